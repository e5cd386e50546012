"""`t2i-import-weights`: published files -> a run folder that t2i-sample and t2i-evaluate take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from t2i_tf import published
from t2i_tf.config import ImportConfig, RunConfig, TrainConfig
from t2i_tf.data import pickles
from t2i_tf.errors import UserError
from t2i_tf.inference import Run, load
from t2i_tf.networks.moving_average import MovingAverage


def import_weights(options: ImportConfig, given: dict | None = None) -> str:
    """Writes the run folder and returns what to print.

    Args:
        given: hyper-parameters of the paper that no file tells.

    Raises UserError: unknown scheme, a file that does not fit completely, a folder that is taken, a text encoder of
    another width than the generator wants, a captions.pickle that is missing, surplus or of another text encoder, or a
    hyper-parameter that is another than the one the weights go with.
    """
    scheme = published.find(options.scheme, options.paper)
    if scheme.paper != options.paper:
        raise UserError(f"--scheme={options.scheme} holds weights of {scheme.paper}: give --paper={scheme.paper}")
    run_dir = Path(options.run_dir)
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"--run_dir={run_dir} is not empty: give a new folder")
    vocabulary = _vocabulary(options, scheme)
    text_encoder = load(options.text_encoder_run) if options.text_encoder_run else None
    imported = published.load(options.scheme, options.weights.split(","), given)
    if vocabulary is not None:
        _check_size(options, len(vocabulary) + 1, imported.context.vocabulary_size)
    if scheme.writes_words and options.captions is not None:
        vocabulary = pickles.dictionary(options.captions, imported.context.vocabulary_size)
    if text_encoder is not None:
        _check_width(options, text_encoder, imported)
    untrained = tuple(name for name in imported.recipe.networks if name not in scheme.networks)
    config = RunConfig(
        TrainConfig(paper=options.paper, data_dir="", init_from=options.weights),
        dataclasses.asdict(imported.hyperparameters),
        dataclasses.asdict(imported.context),
        untrained=untrained,
    )
    average = MovingAverage.of(imported.recipe)  # where the paper keeps one, published weights are it
    run = Run(config, imported.recipe, 0, text_encoder, average, vocabulary)
    run.save(run_dir)
    lines = [str(imported.report)]
    if vocabulary is not None:
        lines.append(f"{options.captions}: {len(vocabulary):,} words")
    if untrained:
        lines.append(f"in none of the files, so untrained: {', '.join(untrained)}")
    return "\n".join([*lines, f"run folder {run_dir}", _next(run, run_dir)])


def _vocabulary(options: ImportConfig, scheme: published.Scheme) -> list[str] | None:
    """The words of a text encoder's captions.pickle."""
    if scheme.writes_words:
        return None
    if scheme.reads_words and options.captions is None:
        raise UserError(
            f"--captions is missing: the text encoder of --scheme={options.scheme} reads words by their numbers in the "
            "captions.pickle published beside it, and without that file the run could read no sentence"
        )
    if not scheme.reads_words and options.captions is not None:
        raise UserError(
            f"--captions={options.captions}: --scheme={options.scheme} neither reads nor writes words: leave it "
            "out, or give a scheme that does"
        )
    return None if options.captions is None else pickles.vocabulary(options.captions)


def _check_size(options: ImportConfig, given: int, wanted: int) -> None:
    if given != wanted:
        raise UserError(
            f"--captions={options.captions} numbers {given:,} words, the text encoder in {options.weights} {wanted:,} "
            "(<end> included): give the captions.pickle of the data set it was trained on"
        )


def _check_width(options: ImportConfig, text_encoder: Run, imported: published.Import) -> None:
    wanted = imported.context.text_dim
    if wanted is None:
        advice = "leave it out"
        if imported.recipe.kind == "gan" and imported.recipe.request.text == "words":
            advice = "give the file of its text encoder beside the generator's, with a scheme that takes both"
        raise UserError(
            f"--text_encoder_run={options.text_encoder_run}: the network in {options.weights} takes no sentence "
            f"vectors of another run: {advice}"
        )
    if text_encoder.recipe.request.text != "characters":
        raise UserError(
            f"--text_encoder_run={options.text_encoder_run} is a run of {text_encoder.paper}: give one of a text "
            "encoder that reads characters"
        )
    given = text_encoder.recipe.hyperparameters.embedding_dim
    if given != wanted:
        raise UserError(
            f"--text_encoder_run={options.text_encoder_run} gives vectors of {given}, the generator in "
            f"{options.weights} wants {wanted}: give the encoder it was trained with"
        )


def _next(run: Run, run_dir: Path) -> str:
    """What to type next, or what the networks that were imported are not enough for."""
    untrained = run.config.untrained
    if run.describes:
        known = f"next: t2i-sample --run_dir={run_dir} --images=a.jpg"
        return "note: without --captions=dictionary.pkl it has no words to write" if run.vocabulary is None else known
    if run.recipe.kind != "gan":
        if "text_encoder" in untrained:
            return "note: without a text encoder it reads no captions: import both"
        if "image_encoder" not in untrained:
            return f"next: t2i-evaluate --run_dir={run_dir} --data_dir=..."
        if run.recipe.request.text == "characters":
            return f"next: t2i-train --paper=... --data_dir=... --text_encoder_run={run_dir}"
        return (
            f"next: t2i-export --run_dir={run_dir} --out=...; AttnGAN takes the file beside its generator's "
            "(--scheme=attngan), or this encoder with its image encoder (--scheme=damsm)"
        )
    if "generator" in untrained:
        return "note: without a generator it draws nothing"
    if run.takes_text and run.text_encoder is None and run.vocabulary is None:
        return "note: without a text encoder it draws no pictures of sentences: import it with one"
    return f"next: t2i-sample --run_dir={run_dir}" + (' --caption="..."' if run.takes_text else "")
