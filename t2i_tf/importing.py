"""`t2i-import-weights`: a published file -> a run folder that t2i-sample and t2i-evaluate take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from t2i_tf import published
from t2i_tf.config import ImportConfig, RunConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.inference import Run, load


def import_weights(options: ImportConfig) -> str:
    """Writes the run folder and returns what to print.

    Raises UserError: unknown scheme, a file that does not fit completely, a folder that is taken, or a text encoder of
    another width than the generator wants.
    """
    scheme = published.SCHEMES.get(options.scheme)
    if scheme is not None and scheme.paper != options.paper:
        raise UserError(f"--scheme={options.scheme} holds weights of {scheme.paper}: give --paper={scheme.paper}")
    run_dir = Path(options.run_dir)
    if run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(f"--run_dir={run_dir} is not empty: give a new folder")
    text_encoder = load(options.text_encoder_run) if options.text_encoder_run else None
    imported = published.load(options.scheme, options.weights.split(","))
    if text_encoder is not None:
        width = text_encoder.recipe.hyperparameters.embedding_dim
        if imported.context.text_dim != width:
            raise UserError(
                f"--text_encoder_run={options.text_encoder_run} gives vectors of {width}, the generator in "
                f"{options.weights} wants {imported.context.text_dim}: give the encoder it was trained with"
            )
    config = RunConfig(
        TrainConfig(paper=options.paper, data_dir="", init_from=options.weights),
        dataclasses.asdict(imported.hyperparameters),
        dataclasses.asdict(imported.context),
    )
    Run(config, imported.recipe, 0, text_encoder).save(run_dir)
    verb = "t2i-sample" if imported.recipe.kind == "gan" else "t2i-evaluate"
    caption = ' --caption="..."' if imported.recipe.kind == "gan" else " --data_dir=..."
    return f"{imported.report}\nrun folder {run_dir}\nnext: {verb} --run_dir={run_dir}{caption}"
