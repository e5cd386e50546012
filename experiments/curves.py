"""Curves of training runs as one picture: a panel for each tag, a line for each run.

    python experiments/curves.py RUN[,RUN...] --tags="*/loss,diversity/*" --out=curves.png

Reads the TensorBoard events of the run folders. A line is a running mean; the raw values are faint behind it. Needs
matplotlib: pip install -e '.[plots]'.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

import numpy as np

from t2i_tf import panels
from t2i_tf.errors import UserError


def read_scalars(run_dir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """tag -> steps int64 [N], ascending, and values float64 [N] of a run's events.

    A run that was stopped and resumed has logged some steps twice: the later value counts. Raises UserError for a
    folder without events.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    if not list((run_dir / "events").glob("*tfevents*")):
        raise UserError(f"{run_dir} has no events: give a run folder of t2i-train")
    events = EventAccumulator(str(run_dir / "events"), size_guidance={"tensors": 0}).Reload()
    scalars = {}
    for tag in sorted(events.PluginTagToContent("scalars")):
        logged = sorted(events.Tensors(tag), key=lambda event: event.wall_time)
        values = {event.step: tensor_util.make_ndarray(event.tensor_proto).item() for event in logged}
        steps = sorted(values)
        scalars[tag] = np.array(steps), np.array([values[step] for step in steps], np.float64)
    return scalars


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """[N] -> [N]: the mean of the values around each, half a window to either side, less where they end."""
    half, sums = window // 2, np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def chosen_tags(runs: dict[str, dict], patterns: list[str]) -> list[str]:
    """The tags of any run that a pattern matches, in the order of the patterns.

    Raises UserError for a pattern that matches none, and names the tags there are.
    """
    known = sorted({tag for scalars in runs.values() for tag in scalars})
    chosen = []
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise UserError(f"--tags={pattern}: no run has it; there are {', '.join(known)}")
        chosen += [tag for tag in found if tag not in chosen]
    return chosen


def draw(runs: dict[str, dict], tags: list[str], out: Path) -> None:
    """Writes the picture. runs: name -> `read_scalars`. Raises UserError where it cannot."""
    figure, axes = panels.panels(tags, "step")
    lines = {}
    for panel, tag in zip(axes, tags, strict=True):
        panel.margins(x=0.01)
        for color, (name, scalars) in enumerate(runs.items()):
            if tag not in scalars:
                continue
            steps, values = scalars[tag]
            panel.plot(steps, values, color=f"C{color}", alpha=0.25, linewidth=0.8)
            smooth = running_mean(values, len(values) // 20)
            marker = "." if len(values) == 1 else None
            (lines[name],) = panel.plot(steps, smooth, color=f"C{color}", linewidth=1.4, marker=marker)
    panels.save(figure, {name: lines[name] for name in runs if name in lines}, out)


def main(argv: list[str]) -> str:
    """-> what to print. Raises UserError for runs and tags that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="run folders, with commas between")
    parser.add_argument(
        "--tags", default="*/loss", help="TensorBoard tags or patterns, with commas between [%(default)s]"
    )
    parser.add_argument("--out", default="curves.png", help="picture to write [%(default)s]")
    options = parser.parse_args(argv)
    paths = [Path(run) for run in options.runs.split(",")]
    runs = {name: read_scalars(path) for name, path in zip(panels.names_of(paths), paths, strict=True)}
    tags = chosen_tags(runs, options.tags.split(","))
    draw(runs, tags, Path(options.out))
    return f"{', '.join(tags)} of {', '.join(runs)}: {options.out}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
