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

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, DOTS_PER_INCH = 3, 3.2, 2.2, 100  # inches: a picture of 960 pixels


def read_scalars(run_dir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """tag -> steps int64 [N], ascending, and values float64 [N] of a run's events.

    A run that was stopped and resumed has logged some steps twice: the later value counts. Raises ValueError for a
    folder without events.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    if not list((run_dir / "events").glob("*tfevents*")):
        raise ValueError(f"{run_dir} has no events: give a run folder of t2i-train")
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

    Raises ValueError for a pattern that matches none, and names the tags there are.
    """
    known = sorted({tag for scalars in runs.values() for tag in scalars})
    chosen = []
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise ValueError(f"--tags={pattern}: no run has it; there are {', '.join(known)}")
        chosen += [tag for tag in found if tag not in chosen]
    return chosen


def draw(runs: dict[str, dict], tags: list[str], out: Path) -> None:
    """Writes the picture. runs: name -> `read_scalars`."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("matplotlib is missing: pip install -e '.[plots]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(tags))
    rows = -(-len(tags) // columns)
    pyplot.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = pyplot.subplots(
        rows,
        columns,
        figsize=(PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.3),
        squeeze=False,
        layout="constrained",
    )
    lines = {}
    for place, (panel, tag) in enumerate(zip(panels.flat, tags, strict=False)):
        panel.set_title(tag, fontsize=9)
        if place + columns >= len(tags):  # the lowest of its column
            panel.set_xlabel("step")
        panel.grid(alpha=0.25, linewidth=0.5)
        panel.margins(x=0.01)
        for color, (name, scalars) in enumerate(runs.items()):
            if tag not in scalars:
                continue
            steps, values = scalars[tag]
            panel.plot(steps, values, color=f"C{color}", alpha=0.25, linewidth=0.8)
            smooth = running_mean(values, len(values) // 20)
            marker = "." if len(values) == 1 else None
            (lines[name],) = panel.plot(steps, smooth, color=f"C{color}", linewidth=1.4, marker=marker)
    for panel in panels.flat[len(tags) :]:
        panel.axis("off")
    figure.legend(
        [lines[name] for name in runs if name in lines],
        [name for name in runs if name in lines],
        loc="outside upper center",
        ncols=min(len(lines), 4),
        frameon=False,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=DOTS_PER_INCH)
    pyplot.close(figure)


def main(argv: list[str]) -> str:
    """-> what to print. Raises ValueError for runs and tags that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="run folders, with commas between")
    parser.add_argument(
        "--tags", default="*/loss", help="TensorBoard tags or patterns, with commas between [%(default)s]"
    )
    parser.add_argument("--out", default="curves.png", help="picture to write [%(default)s]")
    options = parser.parse_args(argv)
    paths = [Path(run) for run in options.runs.split(",")]
    names = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    runs = {name: read_scalars(path) for name, path in zip(names, paths, strict=True)}
    tags = chosen_tags(runs, options.tags.split(","))
    draw(runs, tags, Path(options.out))
    return f"{', '.join(tags)} of {', '.join(runs)}: {options.out}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"error: {error}")
