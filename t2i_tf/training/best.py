"""The best weights of a run, by a score on unseen pictures: kept apart, and a reason to stop."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from t2i_tf import checkpoints, files
from t2i_tf.errors import UserError

_COUNTS = ("no_better", "last")


class BestWeights:
    """Weights of the best score so far in a folder of a run, and how many scores since then were no better.

    Args:
        selection: the recipe's `papers.Selection`.
        patience: `exhausted` after so many scores that were no better; None: never.
        name: of the folder; that of `checkpoints.BEST` is what a run is loaded with.
    """

    def __init__(self, run_dir: Path, selection, patience: int | None, name: str = checkpoints.BEST):
        self.folder, self.selection, self.patience = Path(run_dir) / name, selection, patience
        self.step, self.value, self.no_better, self.last = None, None, 0, 0
        if self._file.is_file():
            try:
                found = json.loads(self._file.read_text())
                self.step, self.value, self.no_better, self.last = (found[n] for n in ("step", "value", *_COUNTS))
            except (ValueError, KeyError) as error:
                raise UserError(f"{self._file} is damaged ({error}): remove {self.folder}, the run goes on") from None

    @property
    def _file(self) -> Path:
        return self.folder / "score.json"

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.no_better >= self.patience

    def consider(self, step: int, score: dict, networks: dict, average) -> None:
        """Takes a score of these weights: keeps them if it is the best. A step that was considered before a crash is
        counted once. A score without that value, for want of a package, is passed over with a warning."""
        value = score.get(self.selection.value)
        if value is None:
            logging.warning("no %s in the scores: the best weights are not chosen by it", self.selection.value)
            return
        if self.value is None or self.selection.better(value, self.value):
            checkpoints.save_weights(self.folder, step, networks, average)
            self.step, self.value, self.no_better = step, value, 0
        elif step > self.last:
            self.no_better += 1
        self.last = max(self.last, step)
        counts = dict(zip(_COUNTS, (self.no_better, self.last), strict=True))
        named = {"metric": self.selection.metric, "name": self.selection.value}
        with files.written_beside(self._file) as beside:
            beside.write_text(json.dumps({**named, "value": self.value, "step": self.step, **counts}) + "\n")

    def __str__(self) -> str:
        return (
            f"best {self.selection.metric}/{self.selection.value} {self.value:.4g} at step {self.step}: {self.folder}"
        )
