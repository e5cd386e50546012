"""Scored pictures as plain files, for the scorers of other people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf.errors import UserError

CAPTIONS = "captions.txt"


def check(folder: str) -> None:
    """Raises UserError when something is in the folder: of other pictures, a scorer would take both."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--save_images={folder}: there already and not an empty folder: remove it or choose another")


class SavedPictures:
    """Writes pictures that pass by as 000000.png, 000001.png ..., and the caption of each on its line of captions.txt.

    Args:
        source: `evaluation.sources.Drawn`.

    Raises UserError when the folder cannot be written.
    """

    def __init__(self, folder: str, source):
        check(folder)
        self.folder, self.count = Path(folder), 0
        with self._written():
            self.folder.mkdir(parents=True, exist_ok=True)
            if source.own is not None:
                lines = (source.captions[place] + "\n" for place in source.own)
                (self.folder / CAPTIONS).write_text("".join(lines), encoding="utf-8")

    def add(self, images: np.ndarray) -> None:
        """uint8 [B,S,S,3]."""
        with self._written(), ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._save, images, range(self.count, self.count + len(images))))
        self.count += len(images)

    def _save(self, image: np.ndarray, number: int) -> None:
        Image.fromarray(image).save(self.folder / f"{number:06d}.png")

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"--save_images={self.folder}: cannot be written ({reason}): choose another") from error

    def results(self) -> dict[str, dict]:
        """Nothing: they are not scored here."""
        return {}
