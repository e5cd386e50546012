"""`t2i-benchmark`: what a preset costs on this machine, and parts of it beside their alternatives.

Times are taken in one process, so that what is compared ran under the same conditions. Nothing is written to a run
folder, and no run is needed.
"""

from __future__ import annotations

import tensorflow as tf

from t2i_tf import papers
from t2i_tf.benchmark import attention, reading, step, table
from t2i_tf.benchmark.subject import Subject
from t2i_tf.config import BenchmarkConfig
from t2i_tf.errors import UserError


def measure(options: BenchmarkConfig, given: dict, beside: tuple[BenchmarkConfig, dict] | None = None) -> dict:
    """What `options.part` names, as numbers, texts, lists and dicts.

    Args:
        given: hyperparameters of the paper that the user set, by name.
        beside: a second set of both, with which steps are taken in turn.

    Raises UserError.
    """
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    if options.part == "step":
        return step.measure(options, given, beside)
    for name in ("compare", "profile"):
        if getattr(options, name):
            raise UserError(f"--{name} goes with --part=step: leave it out")
    if options.part == "input":
        return reading.beside_pil(Subject(options, given))
    return attention.layers(papers.resolve(options.paper, **given).batch_size, options.rounds, options.seconds)


def shown(found: dict) -> str:
    """The same for people."""
    if "measured" in found:
        return "\n".join(table.lines(found))
    return "\n".join(
        f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in found.items()
    )
