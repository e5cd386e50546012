"""Scores of captions against references of people: BLEU, METEOR, ROUGE-L and CIDEr, computed by pycocoevalcap.

What is compared are tokens, and the choice of tokens moves BLEU-4 by more than a point: every score names it.

    ptb    Penn Treebank tokens in lower case, without punctuation: the protocol of COCO. Needs Java.
    words  lower case, without punctuation, split by this package's own rule.
    none   as it is, split at blanks: the published program of Show, Attend and Tell.

BLEU is given with its brevity penalty, as is usual today, and without, as that paper reports it. METEOR (1.5, in Java)
is the score of the corpus, not the mean over the pictures; "CIDEr" is its CIDEr-D form and depends on the set of
pictures.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2i_tf.data import text
from t2i_tf.errors import UserError

TOKENIZATIONS = ("ptb", "words", "none")
_ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Scores:
    """Of a set of captions."""

    corpus: dict
    """bleu_1 to bleu_4, bleu_1_without_brevity_penalty ..., brevity_penalty, words (of the captions), reference_words
    (of the closest references), meteor, rouge_l, cider, images and tokenization."""
    each: dict[str, np.ndarray]
    """bleu_1 to bleu_4, meteor, rouge_l, cider: float64 [images]."""


def _has_java() -> bool:
    return shutil.which("java") is not None


def tokenization_used(tokenization: str) -> str:
    """The one that takes its place where there is no Java for it."""
    return "words" if tokenization == "ptb" and not _has_java() else tokenization


class Scorer:
    """Scores captions; used in `with`, since METEOR is a process that takes seconds and 1.2 GB to start.

    Without Java there is one line in the log, METEOR is left out and "ptb" becomes "words".

    Args:
        tokenization: one of TOKENIZATIONS; meteor: False leaves METEOR out.

    Raises:
        UserError: pycocoevalcap is not installed, or the tokenization is unknown.
    """

    def __init__(self, tokenization: str = "ptb", meteor: bool = True):
        if tokenization not in TOKENIZATIONS:
            raise UserError(f"tokenization {tokenization!r}: choose one of {', '.join(TOKENIZATIONS)}")
        self._package()
        java = _has_java()
        if not java and (meteor or tokenization == "ptb"):
            logging.warning(
                "no Java here: captions are scored without METEOR%s; install a Java runtime for it",
                ", and by lower-case words in place of Penn Treebank tokens" * (tokenization == "ptb"),
            )
        self.tokenization = tokenization_used(tokenization)
        self.with_meteor, self._meteor = meteor and java, None

    @staticmethod
    def _package() -> Path:
        try:
            import pycocoevalcap
        except ImportError:
            raise UserError("scores of captions need pycocoevalcap: pip install -e '.[captions]'") from None
        return Path(next(iter(pycocoevalcap.__path__)))

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_) -> None:
        self._end_meteor()

    def _end_meteor(self) -> None:
        """Of one that was stopped at work, too: it keeps its lock then, for which its own end would wait for ever."""
        if self._meteor is not None:
            self._meteor.lock = threading.Lock()
            self._meteor.meteor_p.kill()
            with contextlib.suppress(BrokenPipeError):  # of what it was still to be told
                self._meteor.meteor_p.stdin.close()
            self._meteor = None

    def __call__(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
        """Scores caption i against references i, any number of one or more.

        Raises UserError when there is nothing to score or a picture has no reference.
        """
        if len(captions) != len(references):
            raise ValueError(f"{len(captions)} captions but references of {len(references)} pictures")
        without = [i for i, of_image in enumerate(references) if not of_image]
        if not captions or without:
            raise UserError(
                f"picture {without[0]} has no reference caption: score a split whose pictures have some"
                if without
                else "no captions to score: give pictures"
            )
        tokens = self._tokenized([*captions, *(reference for of_image in references for reference in of_image)])
        found = {i: [line] for i, line in enumerate(tokens[: len(captions)])}
        rest = iter(tokens[len(captions) :])
        wanted = {i: [next(rest) for _ in of_image] for i, of_image in enumerate(references)}
        corpus, each = self._bleu(wanted, found)
        for name, score in self._scorers().items():
            try:
                corpus[name], values = score(wanted, found)
            except (OSError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
                logging.warning("%s ended early (%s) and is left out; its process needs 2 GB", name, reason)
                if name == "meteor":
                    self._end_meteor()
                continue
            corpus[name], each[name] = float(corpus[name]), np.asarray(values, np.float64)
        return Scores({**corpus, "images": len(captions), "tokenization": self.tokenization}, each)

    def _scorers(self):
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        scorers = {"rouge_l": Rouge().compute_score, "cider": Cider().compute_score}
        if self.with_meteor:
            if self._meteor is None:
                from pycocoevalcap.meteor.meteor import Meteor

                self._meteor = Meteor()
            scorers["meteor"] = self._meteor.compute_score
        return scorers

    def _bleu(self, wanted, found):
        """The closest reference length counts, of two the shorter."""
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer

        scorer = BleuScorer(n=len(_ORDERS))
        for i, references in wanted.items():
            scorer += (found[i][0], references)
        scores, each = scorer.compute_score(option="closest", verbose=0)
        words, reference_words = scorer.testlen(), scorer.reflen()
        penalty = 1.0 if words >= reference_words else float(np.exp(1 - reference_words / words)) if words else 0.0
        corpus = {f"bleu_{n}": float(score) for n, score in zip(_ORDERS, scores, strict=True)}
        corpus |= {
            f"{name}_without_brevity_penalty": score / penalty if penalty else 0.0 for name, score in corpus.items()
        }
        corpus |= {"brevity_penalty": penalty, "words": int(words), "reference_words": int(reference_words)}
        return corpus, {f"bleu_{n}": np.array(values) for n, values in zip(_ORDERS, each, strict=True)}

    def _tokenized(self, captions: Sequence[str]) -> list[str]:
        """Tokens joined by single blanks; whatever would break the line protocols of the jars is a blank."""
        lines = [" ".join(re.sub(r"\|\|\|", " ", caption).split()) for caption in captions]
        if self.tokenization == "words":
            return [" ".join(text.words(line)) for line in lines]
        return self._penn_treebank(lines) if self.tokenization == "ptb" else lines

    def _penn_treebank(self, lines: list[str]) -> list[str]:
        """What pycocoevalcap's own tokenizer gives, which would write into the installed package."""
        from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

        jar = self._package() / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        done = subprocess.run(
            [*command, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
            input="\n".join(lines) + "\n",
            capture_output=True,
            encoding="utf-8",
        )
        found = done.stdout.split("\n")[:-1]
        if done.returncode or len(found) != len(lines):
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise UserError(f"the Penn Treebank tokenizer failed ({reason}): score with another tokenization")
        return [" ".join(token for token in line.split() if token not in PUNCTUATIONS) for line in found]
