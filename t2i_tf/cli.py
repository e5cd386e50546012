"""The command line: flags generated from the dataclasses, one function a verb. The only file that knows absl.flags.

`--help` must not wait for TensorFlow: everything heavy is imported inside the verbs.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import glob
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable

from absl import flags

from t2i_tf import config, papers
from t2i_tf.errors import UserError


class _Option:
    """A flag and where it comes from."""

    def __init__(self, field: dataclasses.Field, owner: type, help: str, default):
        self.field, self.help, self.default = field, help, default
        self.kind, self.is_list = config.option_type(field, owner)

    def define(self, values: flags.FlagValues) -> None:
        name = self.field.name  # choices are checked later: papers may differ in theirs
        if self.is_list and self.field.metadata["repeated"]:
            flags.DEFINE_multi_string(name, None, self.help, flag_values=values)
        elif self.is_list:
            flags.DEFINE_list(name, None, self.help, flag_values=values)
        elif self.kind is bool:
            flags.DEFINE_bool(name, None, self.help, flag_values=values)
        else:
            define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}[self.kind]
            define(name, None, self.help, flag_values=values)

    def value(self, raw):
        if not self.is_list:
            return raw
        try:
            return tuple(self.kind(item) for item in raw)
        except ValueError:
            raise UserError(f"--{self.field.name}={','.join(raw)}: a list of {self.kind.__name__} is wanted") from None


def _options(owner: type) -> dict[str, _Option]:
    return {f.name: _Option(f, owner, f.metadata["help"], _shown(f)) for f in dataclasses.fields(owner)}


def _shown(field: dataclasses.Field) -> str:
    """The default as --help shows it."""
    if field.metadata["required"]:
        return "required"
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _paper_options(chosen: str | None) -> dict[str, _Option]:
    """Flags of the chosen paper, or of all papers; the default of each is named."""
    found: dict[str, _Option] = {}
    for name in [chosen] if chosen else papers.PAPERS:
        for field_name, paper_option in _options(papers.hyperparameter_fields(name)).items():
            default = paper_option.default if chosen else f"{name}: {paper_option.default or 'none'}"
            if field_name in found:
                found[field_name].default += f"; {default}"
            else:
                found[field_name] = paper_option
                paper_option.default = default
    return found


def _chosen_paper(argv: list[str]) -> str | None:
    given = [a.split("=", 1)[1] for a in argv if a.startswith(("--paper=", "-paper="))]
    return given[-1] if given and given[-1] in papers.PAPERS else None


def _help(verb: str, description: str, groups: dict[str, dict[str, _Option]]) -> str:
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    lines = [f"{verb}: {description.strip()}", ""]
    for title, options in groups.items():
        lines += [f"{title}:"]
        for name, item in sorted(options.items()):
            choices = item.field.metadata["choices"]
            if item.field.metadata["or_number"]:
                choices = (*choices, item.field.metadata["or_number"])
            about = item.help + (f" ({'|'.join(map(str, choices))})" if choices else "")
            about += f" [{item.default}]" if item.default else ""
            lines += [
                f"  --{name}",
                *textwrap.wrap(
                    about, width - 8, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
                ),
            ]
        lines += [""]
    return "\n".join([*lines, "  --flagfile=F takes flags from a file, one a line; flags after it win."])


def _given(verb: str, owner: type, argv: list[str], with_paper: bool) -> tuple[dict, dict]:
    """-> what was given of the verb's own flags and, with a paper, of the hyperparameters."""
    values = flags.FlagValues()
    own, of_paper = _options(owner), _paper_options(None) if with_paper else {}
    for item in [*own.values(), *of_paper.values()]:
        item.define(values)
    try:
        left = values([verb, *argv])
    except flags.UnrecognizedFlagError as error:
        close = difflib.get_close_matches(error.flagname, [*own, *of_paper], n=1)
        near = f": did you mean --{close[0]}?" if close else f": see {verb} --help"
        raise UserError(f"unknown flag --{error.flagname}{near}") from None
    except flags.Error as error:
        raise UserError(f"{' '.join(str(error).split())}: see {verb} --help") from None
    if left[1:]:
        raise UserError(f"{left[1]!r} is no flag: write --name=value; see {verb} --help")

    def among(options):
        return {
            name: item.value(values[name].value) for name, item in options.items() if values[name].value is not None
        }

    return among(own), among(of_paper)


def _parse(verb: str, owner: type, argv: list[str], with_paper: bool) -> tuple[object, dict]:
    """-> the verb's dataclass and, with a paper, the hyperparameters that were given."""
    own, of_paper = _given(verb, owner, argv, with_paper)
    return _checked(owner(**own), of_paper)


def _checked(options, of_paper: dict) -> tuple[object, dict]:
    config.validate(options)
    if "paper" in _options(type(options)):
        _check_paper_flags(options.paper, of_paper)
    return options, of_paper


def _check_paper_flags(paper: str, given: dict) -> None:
    """An unknown paper is an error, and a flag that it lacks one that names the papers that have it."""
    owner = papers.hyperparameter_fields(paper)
    for name in given:
        if name not in _options(owner):
            having = [p for p in papers.PAPERS if name in _options(papers.hyperparameter_fields(p))]
            raise UserError(
                f"--{name} is not a setting of {paper} but of {', '.join(having)}: leave it out, or choose that paper"
            )
    config.validate(owner(**given))


_GPU_FILES = "/dev/nvidia[0-9]*"
"""What NVIDIA's driver shows of a machine's GPUs, or of those that are let into a container."""


def _import_tensorflow() -> None:
    """Imports TensorFlow without its banner, which goes to the descriptor whatever the log level; errors remain.

    Warns where there is a GPU that TensorFlow cannot use, unless CUDA_VISIBLE_DEVICES says which are to be seen.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for GPU drivers, and complains where there are none
            tf.get_logger().setLevel("WARNING")
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines()
            for line in lines:
                if not re.match(
                    r"[IW]\d{4} |WARNING: All log messages|To enable the following|\d{4}-.*: [IW] |.*cuInit", line
                ):
                    print(line, file=sys.stderr)
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    if glob.glob(_GPU_FILES) and not hidden and not tf.config.list_physical_devices("GPU"):
        logging.warning(
            "this machine has an NVIDIA GPU, but TensorFlow finds no CUDA for it and takes the CPU: "
            "pip install 'tensorflow[and-cuda]==%s'",
            tf.__version__,
        )


def _resources(error: Exception, trains: bool) -> str | None:
    """What to do when TensorFlow has run out of something; None for any other error."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not isinstance(error, tf.errors.ResourceExhaustedError):
        return None
    full_disk = f"{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EDQUOT)}"
    lines = error.message.strip().splitlines()
    what = next((line for line in lines if re.search(f"OOM|[Oo]ut of memory|{full_disk}", line)), lines[0])
    what = re.sub(r"\{\{.*?\}\} ?|\(\d+\) RESOURCE_EXHAUSTED: | ?\[(Op:|\[).*", "", what).strip()
    if re.search(full_disk, what):
        return f"{what}: make room on the disk, and run the same command again"
    if trains:
        return (
            f"memory is full ({what}): give a smaller --batch_size, cut the batch into parts (--accumulate=2), or "
            "compute in half precision (--precision=mixed_bfloat16)"
        )
    return (
        f"memory is full ({what}): end what else uses it, ask for fewer pictures at a time, or put "
        "CUDA_VISIBLE_DEVICES=-1 before the command, which then takes the CPU"
    )


def _command(
    verb: str, owner: type, body: Callable, with_paper: bool = False, with_tensorflow: bool = True
) -> Callable[[list[str] | None], int]:
    """Wraps a verb: help, flags, one line for a user's error."""

    def main(argv: list[str] | None = None) -> int:
        argv = sys.argv[1:] if argv is None else argv
        if {"--help", "-h", "-help", "--helpfull", "--helpshort"} & set(argv):
            groups = {"Flags": _options(owner)}
            if with_paper:
                chosen = _chosen_paper(argv)
                of_all = "the papers [paper: default], in the words of the first named; --paper=P --help shows one"
                groups[f"Settings of {chosen or of_all}"] = _paper_options(chosen)
            print(_help(verb, owner.__doc__, groups))
            return 0
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # TensorFlow leaves oneDNN's convolutions off without AVX-512, though they are faster there too.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        # Else the first process takes a card whole, and t2i-evaluate --watch has none beside t2i-train.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logging.getLogger("absl").setLevel(logging.WARNING)
        try:
            options, given = _parse(verb, owner, argv, with_paper)
            if with_tensorflow:
                _import_tensorflow()
            return body(options, given) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.filename is None:
                raise
            print(
                f"error: {error.filename}: {error.strerror or error}: give another path, or make this one readable and "
                "writable, with room on its disk",
                file=sys.stderr,
            )
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            advice = _resources(error, trains=with_paper)
            if advice is None:
                raise
            print(f"error: {advice}", file=sys.stderr)
            return 2

    main.__doc__ = owner.__doc__
    return main


def _prepare(options: config.PrepareConfig, given: dict) -> None:
    from t2i_tf.data import prepare as preparing

    preparing.prepare(options)


def _train(options: config.TrainConfig, given: dict) -> int:
    from t2i_tf.training import dry_run, loop
    from t2i_tf.training.session import Session

    if options.dry_run:
        print(dry_run.report(Session(options, given)))
        return 0
    outcome = loop.run(options, given)
    run_dir = outcome.run_dir
    if run_dir is None:
        print(f"step {outcome.step} of {outcome.steps} done; the run folder is in the hands of worker 0")
        return 130 if outcome.interrupted else 0
    if outcome.interrupted:
        print(f"interrupted at step {outcome.step}; saved in {run_dir}. The same command goes on from there.")
        return 130
    if outcome.best:
        print(outcome.best)
    if outcome.stopped:
        print(f"stopped early: --patience={options.patience} scores in a row were no better")
    print(f"step {outcome.step} of {outcome.steps} done; run folder {run_dir}\nnext: {loop.next_command(outcome)}")
    return 0


def _sample(options: config.SampleConfig, given: dict) -> None:
    from t2i_tf import sampling

    for line in sampling.sample(options):
        print(line)


def _evaluate(options: config.EvaluateConfig, given: dict) -> None:
    from t2i_tf.evaluation import evaluate as evaluation

    for line in evaluation.evaluate_run(options):
        print(line)


def _table(options: config.TableConfig, given: dict) -> None:
    from t2i_tf.evaluation import plots
    from t2i_tf.evaluation import table as tables

    text = tables.table(options)
    if options.plot:
        plots.plot(options)
    if options.out is None:
        print(text, end="")
        return
    _write_text(options.out, text)


def _write_text(out: str, text: str, mode: str = "w") -> None:
    try:
        with open(out, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from None


def _human_rank(options: config.HumanRankConfig, given: dict) -> None:
    from pathlib import Path

    from t2i_tf.evaluation import human_rank as ranking

    folder = Path(options.sheets)
    if options.report:
        sheets = ranking.Sheets.read(folder)
        sheets.check(options)
        for line in ranking.report(sheets, ranking.Votes(folder / ranking.VOTES).all()):
            print(line)
        return
    from t2i_tf.web import human_rank as page

    if options.serve:
        page.check_installed()
    if options.run_dirs and not (folder / ranking.SHEETS).exists():
        _import_tensorflow()
        from t2i_tf.evaluation import rank_sheets

        print(rank_sheets.prepare(options))
    sheets = ranking.Sheets.read(folder)
    sheets.check(options)
    if options.serve:
        page.serve(sheets, options.host, options.port)
    else:
        print(f"next: t2i-human-rank --sheets={options.sheets}")


def _import_weights(options: config.ImportConfig, given: dict) -> None:
    from t2i_tf import importing

    print(importing.import_weights(options, given))


def _export(options: config.ExportConfig, given: dict) -> None:
    from t2i_tf import export as exporting

    for line in exporting.export(options):
        print(line)


def _demo(options: config.DemoConfig, given: dict) -> None:
    from t2i_tf.web import demo as page

    page.serve(options, print)


def _benchmark(options: config.BenchmarkConfig, given: dict) -> None:
    import json

    beside = None
    if options.compare is not None:
        own, of_paper = _given("t2i-benchmark", config.BenchmarkConfig, shlex.split(options.compare), with_paper=True)
        beside = _checked(dataclasses.replace(options, **own), {**given, **of_paper})
    if options.out is not None:
        _write_text(options.out, "", "a")  # what cannot be written is said before anything is measured

    from t2i_tf import benchmark

    found = benchmark.measure(options, given, beside)
    print(benchmark.shown(found))
    if options.out is not None:
        _write_text(options.out, json.dumps(found, indent=2, default=float) + "\n")


prepare = _command("t2i-prepare", config.PrepareConfig, _prepare)
train = _command("t2i-train", config.TrainConfig, _train, with_paper=True)
sample = _command("t2i-sample", config.SampleConfig, _sample)
evaluate = _command("t2i-evaluate", config.EvaluateConfig, _evaluate)
table = _command("t2i-table", config.TableConfig, _table, with_tensorflow=False)
human_rank = _command("t2i-human-rank", config.HumanRankConfig, _human_rank, with_tensorflow=False)
import_weights = _command("t2i-import-weights", config.ImportConfig, _import_weights, with_paper=True)
export = _command("t2i-export", config.ExportConfig, _export)
demo = _command("t2i-demo", config.DemoConfig, _demo)
benchmark = _command("t2i-benchmark", config.BenchmarkConfig, _benchmark, with_paper=True)
