"""Scores of captioners, and of generators through one: what is said of a picture against what people, or its own
caption, said of it.

On `blossoms` the truth of each picture is known, and its captions can be read: the share of captions that name the
right colours needs no reference. Where the petals are is known too, and so whether attention lies on them when their
colour is named.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records
from t2i_tf.data.sources.blossoms import parse_caption, petal_color_word
from t2i_tf.data.sources.blossoms_masks import petal_masks
from t2i_tf.errors import UserError
from t2i_tf.evaluation.captions import Scorer, tokenization_used
from t2i_tf.evaluation.fidelity import ATTRIBUTES
from t2i_tf.evaluation.petals import share_on
from t2i_tf.inference import Run, load

_PICTURES, _ROWS = 32, 64  # a batch to caption, and of captions to take the likelihood of


def captions(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Captions of pictures against all their references, and the likelihood of the references.

    bleu_1 to cider as `evaluation.captions` gives them. negative_log_likelihood is of a reference caption, in nats,
    mean over all; the same per_word. The end of a caption counts as a word, words the vocabulary lacks are one word.

    On `blossoms` also what `colors_named` gives, and with attention attention_on_petals: the share of attention on
    petals at the word that names their colour (`petals.share_on`), mean over the captions that do
    (attention_on_petals_count); petal_area is the share of these pictures that petals cover, which attention gets that
    looks everywhere alike.
    """
    if not run.describes:
        raise UserError(f"--metrics=captions needs a run of a captioner, this is one of {run.paper}")
    split.check_captions("--metrics=captions")
    references = split.captions()
    order = np.random.Generator(np.random.Philox(options.seed)).permutation(split.num_images)
    chosen = np.array([number for number in order if references[number]][: options.num_images], int)
    size = run.recipe.request.image_sizes[-1]
    is_drawn = split.dataset.manifest["name"] == "blossoms"
    found, costs, counts, looks = [], [], [], []
    for pictures in run.views(split, _PICTURES, chosen):
        numbers = chosen[len(found) : len(found) + len(pictures)]
        annotations = run.annotations(pictures)
        described = run.describe_annotations(annotations, options.beam_size, options.length_normalised)
        found += described.captions
        for cost, count in _reference_costs(run, annotations, [references[number] for number in numbers]):
            costs.append(cost)
            counts.append(count)
        if is_drawn and described.attention is not None:
            masks = run.seen(petal_masks(split, numbers, size, augmentation=False))
            looks.append(_attention_on_petals(described.captions, described.attention, masks))
    scores = _scored(found, [references[number] for number in chosen], options)
    nats, words = (float(np.concatenate(parts).sum()) for parts in (costs, counts))
    total = sum(map(len, costs))
    scores |= {"negative_log_likelihood": nats / total, "negative_log_likelihood_per_word": nats / words}
    scores |= {"images": len(chosen), "references": total, **_decoding(options)}
    if is_drawn:
        attributes = split.attributes()
        scores |= colors_named(found, [attributes[number] for number in chosen])
    if looks:
        on_petals, area = np.concatenate(looks).T
        scores |= {
            "attention_on_petals": float(on_petals.mean()) if len(area) else None,
            "petal_area": float(area.mean()) if len(area) else None,
            "attention_on_petals_count": len(area),
        }
    return scores


def _reference_costs(run, annotations, references):
    """Costs and words of the references of each picture, in small batches."""
    pairs = [(row, caption) for row, of_image in enumerate(references) for caption in of_image]
    for start in range(0, len(pairs), _ROWS):
        rows, texts = zip(*pairs[start : start + _ROWS], strict=True)
        yield run.caption_costs(annotations.numpy()[list(rows)], list(texts))


def described(options: EvaluateConfig) -> dict:
    """What a line says of how captions were made and scored."""
    return {"tokenization": tokenization_used(options.tokenization), **_decoding(options)}


def _decoding(options: EvaluateConfig) -> dict:
    return {"beam_size": options.beam_size, "length_normalised": options.length_normalised}


def _scored(found: Sequence[str], references: Sequence[Sequence[str]], options: EvaluateConfig) -> dict:
    """The corpus scores; none where the package that computes them is missing: a training goes on without."""
    try:
        scorer = Scorer(options.tokenization, options.meteor)
    except UserError as error:
        _warn_once(f"{error}; until then there is the likelihood alone")
        return {}
    with scorer:
        return scorer(found, references).corpus


@cache
def _warn_once(line: str) -> None:
    logging.warning(line)


def colors_named(captions: Sequence[str], truths: Sequence[Mapping[str, str]]) -> dict[str, float | int | None]:
    """Do captions name the colours of flowers?

    petal_color: share of the captions that name the true one; one that names none is wrong. center_color and
    background: share of the right ones among the captions that mention it (`<attribute>_count`), None where none does.
    """
    named = [parse_caption(caption) for caption in captions]
    scores: dict[str, float | int | None] = {}
    for attribute in ATTRIBUTES:
        pairs = [
            (said.get(attribute), truth[attribute])
            for said, truth in zip(named, truths, strict=True)
            if attribute in truth and (attribute in said or attribute == "petal_color")
        ]
        scores[attribute] = float(np.mean([said == truth for said, truth in pairs])) if pairs else None
        scores[f"{attribute}_count"] = len(pairs)
    return scores


def _attention_on_petals(captions: Sequence[str], attention: Sequence[np.ndarray], masks: np.ndarray) -> np.ndarray:
    """float64 [captions that name a petal colour, 2]: share of attention on petals, share of the picture they cover.

    attention: of each caption [words,h,w]; masks: bool [N,s,s] of what the maps cover.
    """
    places = [(row, word) for row, word in enumerate(map(petal_color_word, captions)) if word is not None]
    if not places:
        return np.zeros([0, 2])
    masks = masks[[row for row, _ in places]]
    on_petals = share_on(np.stack([attention[row][word] for row, word in places]), masks)
    return np.stack([on_petals, masks.mean(axis=(1, 2))], axis=1)


def round_trip(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Captions -> a generator's pictures -> captions again: how much of a caption comes back?

    Each caption read back is scored against the one caption that its picture was made from: others of the real picture
    may tell what this one left open. real_... are the scores of the same captioner on the real pictures of these
    captions, as small as the generator's: what a perfect generator would reach. On `blossoms` petal_color is the share
    of petal colours that come back, center_color and background of those that both captions mention.
    """
    if run.recipe.kind != "gan" or not run.takes_text:
        raise UserError(f"--metrics=round_trip needs a run that draws pictures of captions, this is one of {run.paper}")
    captioner = load_captioner(options.captioner_run, "--metrics=round_trip")
    captions, pictures = run.all_captions(split, "--metrics=round_trip")
    chosen = np.random.Generator(np.random.Philox(options.seed)).permutation(len(captions))[: options.num_images]
    captions = [captions[i] for i in chosen]
    seen = {
        "": run.generate(captions, list(range(options.seed, options.seed + len(captions))))[-1],
        "real_": np.concatenate(list(run.views(split, 64, pictures[chosen]))),
    }
    scores = {}
    with Scorer(options.tokenization, meteor=False) as scorer:
        for prefix, images in seen.items():
            found = captioner.describe(images, options.beam_size, options.length_normalised).captions
            corpus = scorer(found, [[caption] for caption in captions]).corpus
            if split.dataset.manifest["name"] == "blossoms":
                corpus |= colors_named(found, [parse_caption(caption) for caption in captions])
            scores |= {f"{prefix}{name}": value for name, value in corpus.items() if isinstance(value, float)}
    return {
        **scores,
        "images": len(captions),
        "references": "the caption that a picture was made from",
        "tokenization": scorer.tokenization,
        **_decoding(options),
        "captioner_run": options.captioner_run,
        "captioner_step": captioner.step,
    }


def load_captioner(run_dir: str | None, asked_by: str) -> Run:
    """Raises UserError when none is given, or the run describes no pictures."""
    if run_dir is None:
        raise UserError(f"{asked_by} needs a captioner: give its run folder with --captioner_run")
    captioner = load(run_dir)
    if not captioner.describes:
        raise UserError(
            f"--captioner_run={run_dir} is a run of {captioner.paper}, which describes no pictures: give the run of a "
            "captioner"
        )
    return captioner
