"""Panels of curves in one picture. Needs matplotlib: pip install -e '.[plots]'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from t2i_tf.errors import UserError

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT, DOTS_PER_INCH = 3, 3.2, 2.2, 100  # inches: a picture of 960 pixels
FONT_SIZE = 8


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or whole paths where two have the same."""
    names = [folder.name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def panels(titles: Sequence[str], x_label: str) -> tuple:
    """-> (figure, a panel for each title). Raises UserError where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("matplotlib is missing: pip install -e '.[plots]'") from None
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    size = (PANEL_WIDTH * columns, PANEL_HEIGHT * rows + 0.3)
    figure = Figure(size, DOTS_PER_INCH, layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False).flat
    for place, (panel, title) in enumerate(zip(found, titles, strict=False)):
        panel.set_title(title, fontsize=FONT_SIZE + 1)
        if place + columns >= len(titles):  # the lowest of its column
            panel.set_xlabel(x_label, fontsize=FONT_SIZE)
        panel.tick_params(labelsize=FONT_SIZE)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.5)
    for panel in found[len(titles) :]:
        panel.axis("off")
    return figure, list(found[: len(titles)])


def save(figure, lines: Mapping[str, object], path: Path) -> None:
    """Writes the picture with a legend above: name -> one of its lines. The format is that of the path's ending.

    Raises UserError where it cannot be written.
    """
    columns = min(len(lines), 4)
    figure.legend(
        lines.values(), lines.keys(), loc="outside upper center", ncols=columns, frameon=False, fontsize=FONT_SIZE
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # a ValueError is an ending that it does not know
        raise UserError(f"{path}: cannot be written ({error})") from None
