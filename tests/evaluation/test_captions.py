"""Scores of captions by hand, and what happens to odd captions and on machines that lack something."""

import logging
import math
import os
import shutil
import subprocess
import sys

import pytest

from t2i_tf.errors import UserError
from t2i_tf.evaluation import captions

needs_package = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("pycocoevalcap") is None,
    reason="needs pycocoevalcap: pip install -e '.[captions]'",
)
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


def score(found, references, tokenization="none"):
    with captions.Scorer(tokenization, meteor=False) as scorer:
        return scorer(found, references)


@needs_package
def test_bleu_by_hand():
    """Matches 5 of 6, 3 of 5, 1 of 4 and 0 of 3; the closest reference has 7 words."""
    corpus = score(["the cat sat on the mat"], [["a cat sat on the the rug", "mat"]]).corpus
    assert (corpus["words"], corpus["reference_words"]) == (6, 7)
    penalty = math.exp(1 - 7 / 6)
    # the cat (0) cat sat (1) sat on (1) on the (1) the mat (0); cat sat on (1), sat on the (1)
    precisions = [6 / 6, 3 / 5, 2 / 4]
    assert corpus["brevity_penalty"] == pytest.approx(penalty)
    for n in (1, 2, 3):
        wanted = math.prod(precisions[:n]) ** (1 / n)
        assert corpus[f"bleu_{n}_without_brevity_penalty"] == pytest.approx(wanted, rel=1e-6)
        assert corpus[f"bleu_{n}"] == pytest.approx(wanted * penalty, rel=1e-6)


@needs_package
def test_rouge_by_hand():
    """Longest common subsequence of 3: precision 3/4, recall 3/5, beta 1.2; the mean over two pictures."""
    scores = score(["a red dog runs", "cat"], [["a big red dog barks"], ["a dog"]])
    precision, recall = 3 / 4, 3 / 5
    wanted = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert scores.each["rouge_l"] == pytest.approx([wanted, 0.0])
    assert scores.corpus["rouge_l"] == pytest.approx(wanted / 2)


@needs_package
def test_the_same_words_score_highest():
    found = ["a red flower on a green field", "two dogs run in the snow"]
    corpus = score(found, [[line] for line in found]).corpus
    assert corpus["bleu_4"] == pytest.approx(1.0) and corpus["rouge_l"] == pytest.approx(1.0)
    assert corpus["brevity_penalty"] == 1.0 and corpus["cider"] == pytest.approx(10.0)
    assert corpus["bleu_4"] == corpus["bleu_4_without_brevity_penalty"]


@needs_package
def test_tokens_decide():
    found, references = ["A dog, running."], [["a dog running"]]
    assert score(found, references, "none").corpus["rouge_l"] == 0.0
    words = score(found, references, "words").corpus
    assert words["rouge_l"] == pytest.approx(1.0) and words["tokenization"] == "words"


@pytest.mark.slow
@needs_package
@needs_java
def test_odd_captions_stay_in_their_lines():
    """Empty ones, line separators of all kinds, METEOR's own separator, accents."""
    odd = ["", "a\u2028red\ndog", "  a ||| dog  ", "caf\u00e9 \u00fcber", "...", "\x85"]
    with captions.Scorer("ptb") as scorer:
        tokens = scorer._tokenized(odd)
        assert tokens == ["", "a red dog", "a dog", "caf\u00e9 \u00fcber", "", ""]
        scores = scorer(odd, [["a red dog", "a ||| dog"]] * 5 + [["\u2029."]])
        again = scorer(odd, [["a red dog", "a ||| dog"]] * 5 + [["\u2029."]])
    assert scores.corpus == again.corpus
    for name, values in scores.each.items():
        assert values.shape == (6,) and values[0] == pytest.approx(0.0, abs=1e-6), name
    assert scores.each["meteor"][1] > 0.5


@needs_package
def test_nothing_but_empty_captions():
    corpus = score([""], [["a dog"]], "words").corpus
    assert corpus["brevity_penalty"] == corpus["bleu_4"] == corpus["bleu_4_without_brevity_penalty"] == 0.0


@needs_package
def test_without_java(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING), captions.Scorer() as scorer:
        corpus = scorer(["A dog."], [["a dog"]]).corpus
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert "no Java here: captions are scored without METEOR, and by lower-case words" in caplog.text
    assert corpus["tokenization"] == "words" and "meteor" not in corpus
    assert corpus["bleu_1"] == pytest.approx(1.0) and {"rouge_l", "cider"} <= set(corpus)


@needs_package
@pytest.mark.parametrize("answers", [0, 1])
def test_a_meteor_that_dies_takes_no_other_score_with_it(tmp_path, answers):
    """At once, or after so many answers; in a process of its own, since it must also end."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n" + "read line; echo 1 2 3\n" * answers + "exit 1\n")
    java.chmod(0o755)
    program = (
        "from t2i_tf.evaluation import captions\n"
        "with captions.Scorer('words') as scorer:\n"
        "    print(sorted(scorer(['a dog', 'a cat'], [['a dog'], ['a cat']]).each))\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider', 'rouge_l']\n"
    assert "meteor ended early" in done.stderr and "Traceback" not in done.stderr


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(UserError, match=r"need pycocoevalcap: pip install -e '\.\[captions\]'"):
        captions.Scorer()


@needs_package
def test_bad_input():
    with pytest.raises(UserError, match="tokenization 'moses': choose one of ptb, words, none"):
        captions.Scorer("moses")
    with captions.Scorer("words", meteor=False) as scorer:
        with pytest.raises(UserError, match="no captions to score"):
            scorer([], [])
        with pytest.raises(UserError, match="picture 1 has no reference caption"):
            scorer(["a", "b"], [["a"], []])
        with pytest.raises(ValueError, match="2 captions but references of 1"):
            scorer(["a", "b"], [["a"]])
