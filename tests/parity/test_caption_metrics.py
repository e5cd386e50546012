"""Scores of captions against golden values: 1,000 pictures of Flickr8k, captions of people against each other.

METEOR runs once for all, since its start takes seconds.
"""

import json
import shutil

import numpy as np
import pytest

from t2i_tf.evaluation import captions

from .arrays import folder

pytest.importorskip("pycocoevalcap", reason="needs pycocoevalcap: pip install -e '.[captions]'")
JAVA = shutil.which("java") is not None
needs_java = pytest.mark.skipif(not JAVA, reason="needs Java")
EXACT, OF_METEOR = 1e-6, 1e-4
NAMES = {"bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4"}
NAMES |= {"rouge_l": "ROUGE_L", "cider": "CIDEr", "meteor": "METEOR"}


def lines(kind):
    """(captions, the four references of each)."""
    path = folder() / "caption_metrics"
    read = [(path / f"{name}{kind}.txt").read_text(encoding="utf-8").splitlines() for name in
            ("hyp", "ref0", "ref1", "ref2", "ref3")]  # fmt: skip
    return read[0], list(zip(*read[1:], strict=True))


@pytest.fixture(scope="module")
def golden():
    return json.loads((folder() / "caption_metrics" / "golden.json").read_text())


@pytest.fixture(scope="module")
def scorer():
    """Of tokens that are there already."""
    with captions.Scorer("none") as scorer:
        yield scorer


def compare(corpus, wanted):
    for ours, theirs in NAMES.items():
        if ours == "meteor" and not JAVA:
            continue
        assert corpus[ours] == pytest.approx(wanted[theirs], abs=OF_METEOR if ours == "meteor" else EXACT), ours
    assert ("meteor" in corpus) == JAVA


def compare_counts(corpus, counts):
    assert (corpus["words"], corpus["reference_words"]) == (counts["hyp_len"], counts["ref_len_closest"])
    assert corpus["brevity_penalty"] == pytest.approx(counts["brevity_penalty"], abs=EXACT)
    for n, score in enumerate(counts["BLEU_without_brevity_penalty"], 1):
        assert corpus[f"bleu_{n}_without_brevity_penalty"] == pytest.approx(score, abs=EXACT)
    assert corpus["images"] == 1000


@pytest.mark.slow
def test_penn_treebank_tokens(scorer, golden):
    scores = scorer(*lines(".ptb"))
    compare(scores.corpus, golden["protocol_A_ptb"]["pycocoevalcap"])
    compare_counts(scores.corpus, golden["protocol_A_ptb"]["counts"])
    with np.load(folder() / "caption_metrics" / "golden_per_image.npz") as content:
        for ours, theirs in NAMES.items():
            if ours in scores.each:
                np.testing.assert_allclose(scores.each[ours], content[theirs], atol=EXACT, err_msg=ours)


@needs_java
def test_our_call_of_the_tokenizer(golden):
    """From raw lines to the same tokens; in one batch, as it is used."""
    found, references = lines("")
    with captions.Scorer("ptb", meteor=False) as scorer:
        tokens = scorer._tokenized([*found, *(line for row in references for line in row)])
        wanted, wanted_references = lines(".ptb")
        assert tokens == [*wanted, *(line for row in wanted_references for line in row)]
        corpus = scorer(found, references).corpus
    assert corpus["tokenization"] == "ptb" and "meteor" not in corpus
    assert corpus["bleu_4"] == pytest.approx(golden["protocol_A_ptb"]["pycocoevalcap"]["BLEU-4"], abs=EXACT)


def test_raw_lines(scorer, golden):
    """As the published program scores them."""
    corpus = scorer(*lines("")).corpus
    assert corpus["tokenization"] == "none"
    compare(corpus, golden["protocol_B_raw_lines"]["pycocoevalcap"])
    compare_counts(corpus, golden["protocol_B_raw_lines"]["counts"])


def test_raw_lines_in_lower_case(scorer, golden):
    found, references = lines("")
    corpus = scorer([line.lower() for line in found], [[line.lower() for line in row] for row in references]).corpus
    compare(corpus, golden["protocol_C_raw_lowercased"]["pycocoevalcap"])
    compare_counts(corpus, golden["protocol_C_raw_lowercased"]["counts"])


@pytest.mark.parametrize("held_out", range(5))
def test_each_human_caption_against_the_other_four(scorer, golden, held_out):
    found, references = lines(".ptb")
    five = [[*row, line] for line, row in zip(found, references, strict=True)]
    corpus = scorer([row[held_out] for row in five], [row[:held_out] + row[held_out + 1 :] for row in five]).corpus
    wanted = golden["protocol_A_each_reference_held_out"][f"reference{held_out}"]
    compare(corpus, wanted)
    assert corpus["brevity_penalty"] == pytest.approx(wanted["brevity_penalty"], abs=EXACT)


def test_five_references(scorer, golden):
    found, references = lines(".ptb")
    five = [[*row, line] for line, row in zip(found, references, strict=True)]
    corpus = scorer([" ".join(row[2].split()[:-1]) for row in five], five).corpus
    compare(corpus, golden["protocol_A_five_references_synthetic"])
