"""`t2i-export`: a trained run -> a SavedModel that takes strings and numbers, and needs nothing of this package.

Tokenizer, vocabulary, text encoder, noise and networks are inside. Its functions are

    generators      generate, generate_png, attend (where places look at words), interpolate (with text)
    captioners      caption, see
    text encoders   encode, encode_pictures, attend (where words look at places)

each a signature and, in Python, a method of the loaded object. docs/serving.md says what they take and give.

A picture follows from its caption and seed, whatever stands beside them in a batch, and is that of `t2i-sample` to the
bit, or with `--tolerance` to a level of 255: see `rows`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from t2i_tf.config import ExportConfig
from t2i_tf.errors import UserError
from t2i_tf.export.captioning import Captioning
from t2i_tf.export.comparison import ExportDiffers
from t2i_tf.export.drawing import Drawing
from t2i_tf.export.encoding import Encoding
from t2i_tf.export.rows import ROWS, agreeing_rows
from t2i_tf.inference import Run, load
from t2i_tf.networks import processor


def export(options: ExportConfig) -> Iterator[str]:
    """Writes the SavedModel; yields the lines to print. Raises UserError, and leaves nothing behind then."""
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out={out} exists already: give a new folder, or remove it")
    run = load(options.run_dir, options.weights, options.checkpoint, judges=False)
    serving = _serving(run, options)
    beside = out.with_name(out.name + ".partial")
    try:
        loaded, seconds, equal, least = _compared(serving, options, beside)
        (beside / "assets.extra").mkdir()
        about = {"paper": run.paper, "step": run.step, "least_rows": least}
        (beside / "assets.extra" / "export.json").write_text(json.dumps(about, indent=2) + "\n")
        beside.replace(out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    yield f"{run.paper} of step {run.step}, loaded again and compared: equal to the live model in {equal}"
    for name, function in loaded.signatures.items():
        yield f"  {name}({_shapes(function.structured_input_signature[1])}) -> {_shapes(function.structured_outputs)}"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    yield f"{size / 1e6:.1f} MB in {out}; loads in {seconds:.1f} s; at least {least} at a time pass the networks"
    if processor.on_cpu() and not processor.has_avx512():
        yield "serve it with TF_ENABLE_ONEDNN_OPTS=1 in the environment: quicker here, and rounded as it was compared"
    yield f"next: saved_model_cli show --dir={out} --tag_set=serve --all"


def _compared(serving, options: ExportConfig, folder: Path) -> tuple:
    """Writes and loads again. Returns what was loaded, the seconds that took, what was equal, and rows at a time."""
    seconds = 0.0

    def written(least):
        nonlocal seconds
        shutil.rmtree(folder, ignore_errors=True)
        save(serving, least, folder)
        began = time.perf_counter()
        loaded = tf.saved_model.load(str(folder))
        seconds = time.perf_counter() - began
        return loaded

    loaded, equal, least = _first_equal(serving, options, written)
    return loaded, seconds, equal, least


def in_memory(run: Run) -> tf.Module:
    """What loading an export of the run would give, without writing one; compared with the run as an export is.

    Raises UserError for a run that cannot be exported.
    """
    options = ExportConfig()
    serving = _serving(run, options)
    return _first_equal(serving, options, lambda least: _module(serving, serving.functions(least)))[0]


def _first_equal(serving, options: ExportConfig, made: Callable) -> tuple:
    """What is made with the fewest rows at a time with which it equals the live run.

    Measured agreement holds for the rows it was measured on, and may miss a last bit in others: then it takes more.
    With a tolerance it tries from one row on.
    """
    if options.least_rows:
        allowed = [options.least_rows]
    else:
        least = 1 if options.tolerance else agreeing_rows(serving.numbers, serving.examples())
        allowed = [rows for rows in ROWS if rows >= least]
    for least in allowed:
        model = made(least)
        try:
            return model, serving.compare(model), least
        except ExportDiffers:
            if least == allowed[-1]:
                raise


def _serving(run: Run, options: ExportConfig):
    if run.recipe.kind == "gan":
        return Drawing(run, options.tolerance)
    if options.tolerance:
        raise UserError(f"--tolerance: of a run that draws; what {run.paper} gives is equal to the bit, leave it out")
    if run.describes:
        return Captioning(run, options.beam_size, options.length_normalised)
    return Encoding(run)


def _module(serving, functions: dict[str, Callable]) -> tf.Module:
    """The functions as methods, beside the table of words that they use."""
    module = tf.Module()
    module.tokenizer = getattr(serving.reader, "tokenizer", None)
    for name, function in functions.items():
        setattr(module, name, function)
    return module


def save(serving, least: int, folder: Path) -> None:
    """Writes the functions with the variables and tables they use, and no other."""
    functions = serving.functions(least)
    traced = {name: function.get_concrete_function() for name, function in functions.items()}
    used = {id(v): v for function in traced.values() for v in function.graph.variables}
    module = _module(serving, functions)
    module.used_variables = list(used.values())
    first = next(iter(traced.values()))
    tf.saved_model.save(module, str(folder), signatures={"serving_default": first, **traced})


def _shapes(specs: dict) -> str:
    def one(name, spec):
        sizes = ",".join("?" if size is None else str(size) for size in spec.shape)
        return f"{name} {spec.dtype.name}[{sizes}]"

    return ", ".join(one(name, specs[name]) for name in sorted(specs))
