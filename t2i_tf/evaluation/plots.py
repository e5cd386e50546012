"""Scores as curves: against the training step, or against lambda or another setting (AttnGAN, Figure 3).

A line joins what may be compared and belongs together. It is of one method and one kind of weights (EMA or raw), and of
scores that were measured alike: that bear the same letter in the table. Against the step, a method is a run; against a
setting, it is all runs that agree in every other one (those that say how long and how often to log left out), each with
the score of its last step. Where a panel has several letters, they stand behind the names. Bars are deviations.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i_tf import panels
from t2i_tf.config import RunConfig, TableConfig
from t2i_tf.errors import UserError
from t2i_tf.evaluation.table import Row, collect

STEP = "step"
SPOKEN = {"lambda": "damsm_weight"}
"""Words of the papers -> settings."""
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curve:
    """What one line joins, from left to right."""

    panel: tuple[str, str, str]
    """Data set, metric and the value's name."""
    method: str
    label: str
    """The method, and what else tells the line from the others of its panel."""
    x: list[float] | list[str]
    y: list[float]
    deviations: list[float | None]
    style: str

    @property
    def title(self) -> str:
        data, metric, name = self.panel
        return f"{data}, {metric}" if metric == name else f"{data}, {metric}: {name}"


def plot(options: TableConfig) -> Path:
    """Writes --plot. Raises UserError for folders without scores or such a setting, and without matplotlib."""
    against = SPOKEN.get(options.against, options.against)
    rows, _ = collect([Path(folder) for folder in options.run_dirs], options.metrics, every_step=against == STEP)
    path = Path(options.plot)
    figure, lines = draw(curves(rows, against), options.against)
    panels.save(figure, lines, path)
    return path


def curves(rows: Sequence[Row], against: str) -> list[Curve]:
    """The curves of scores, see the head of this module.

    Args:
        against: "step", or the name of a setting.

    Raises UserError when a run has no such setting, or nothing is left to draw: pictures of a folder have no step.
    """
    rows = [row for row in rows if row.step is not None]
    if not rows:
        raise UserError("--plot: there is no score of a run among these: give run folders that were scored so")
    folders = list(dict.fromkeys(row.folder for row in rows))
    if against == STEP:
        names, places = dict(zip(folders, panels.names_of(folders), strict=True)), {}
    else:
        names, places = _methods({folder: _settings(folder) for folder in folders}, against)
    kinds: dict[str, set] = {}
    letters: dict[tuple, list] = {}
    joined: dict[tuple, list[Row]] = {}
    for row in rows:
        panel, method = (row.data, row.metric, row.name), names[row.folder]
        joined.setdefault((panel, method, row.weights, row.measured), []).append(row)
        kinds.setdefault(method, set()).add(row.weights)
        if row.measured not in letters.setdefault(panel, []):
            letters[panel].append(row.measured)
    found = []
    for (panel, method, weights, measured), of_line in joined.items():
        label = method + (f", {weights}" if len(kinds[method]) > 1 else "")
        label += f" ({measured})" if len(letters[panel]) > 1 else ""
        points = [(row.step if against == STEP else places[row.folder], row.value, row.deviation) for row in of_line]
        if not isinstance(points[0][0], str):
            points.sort(key=lambda point: point[0])
        x, y, deviations = zip(*points, strict=True)
        style = STYLES[letters[panel].index(measured) % len(STYLES)]
        found.append(Curve(panel, method, label, list(x), list(y), list(deviations), style))
    return found


def _settings(folder: Path) -> dict:
    """All that makes it this run and no other, by name."""
    identity = RunConfig.read(folder).identity()
    return {name: value for group in identity.values() for name, value in group.items()}


def _methods(settings: dict[Path, dict], against: str) -> tuple[dict[Path, str], dict[Path, float | str]]:
    """-> the method of each run, named by its paper and by what it does otherwise than the others; and its place on
    the axis: a number, or a word where they are not all numbers."""
    for folder, of_run in settings.items():
        if against not in of_run:
            raise UserError(f"--against={against}: {folder} has no such setting; it has {', '.join(sorted(of_run))}")
    others = {folder: {n: v for n, v in of_run.items() if n != against} for folder, of_run in settings.items()}
    names = dict.fromkeys(name for of_run in others.values() for name in of_run)
    differing = [n for n in names if n != "paper" and len({str(of_run.get(n)) for of_run in others.values()}) > 1]
    methods = {
        folder: ", ".join([of_run["paper"], *(f"{n} {of_run[n]}" for n in differing if of_run.get(n) is not None)])
        for folder, of_run in others.items()
    }
    places = {folder: of_run[against] for folder, of_run in settings.items()}
    if not all(isinstance(p, numbers.Real) and not isinstance(p, bool) for p in places.values()):
        places = {folder: str(place) for folder, place in places.items()}
    return methods, places


def draw(found: Sequence[Curve], x_label: str) -> tuple:
    """-> (figure, a line for each name of the legend). A panel a value; a method has one colour in all of them. Places
    that are words are not joined. Raises UserError where matplotlib is missing."""
    titles = {curve.panel: curve.title for curve in found}
    figure, axes = panels.panels(list(titles.values()), x_label)
    colors = {method: f"C{number}" for number, method in enumerate(dict.fromkeys(curve.method for curve in found))}
    lines = {}
    for curve in found:
        bars = [float("nan") if deviation is None else deviation for deviation in curve.deviations]
        style = "none" if isinstance(curve.x[0], str) else curve.style
        lines[curve.label] = axes[list(titles).index(curve.panel)].errorbar(
            curve.x,
            curve.y,
            yerr=bars if any(deviation is not None for deviation in curve.deviations) else None,
            color=colors[curve.method],
            linestyle=style,
            marker=".",
            linewidth=1.4,
            capsize=2,
        )
    return figure, lines
