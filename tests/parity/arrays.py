"""Parity files: inputs, parameters and results of the published programs, against which ours is compared key by key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

RESULTS = ("out", "grad", "after", "check")


def folder() -> Path:
    return Path(os.environ.get("T2I_PARITY") or Path(__file__).with_name("data"))


def every_file(name: str, in_repository: bool = True, files: str = "config-*") -> pytest.MarkDecorator:
    """Runs a test for every file `<name>/<files>.npz`; its argument `parity` is the ParityFile.

    Args:
        in_repository: False for files too large for tests/parity/data; the test is skipped without T2I_PARITY.
    """
    paths = sorted(folder().glob(f"{name}/{files}.npz"))
    if not paths and (in_repository or "T2I_PARITY" in os.environ):
        raise FileNotFoundError(f"{folder() / name} has no {files}.npz: T2I_PARITY names the folder of parity files")
    return pytest.mark.parametrize("parity", paths, ids=[path.stem for path in paths], indirect=True)


class ParityFile:
    """One file. `compare` collects what differs; `finish` fails on differences and on results never compared."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as content:
            self.arrays = {name: content[name] for name in content.files}
        self.config: dict = json.loads(str(self.arrays.pop("config", "{}")))
        self.compared: set[str] = set()
        self.failures: list[str] = []
        self.worst: dict[str, tuple[float, str]] = {}
        """Tolerance -> the largest error under it and where; printed, and shown by pytest -rP."""

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with the prefix, named by the rest."""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def image(self, name: str) -> tf.Tensor:
        """uint8 NCHW -> float32 NHWC in [-1, 1], the networks' input."""
        return tf.constant(self.arrays[name].transpose(0, 2, 3, 1) / np.float32(127.5) - 1, tf.float32)

    def tensor(self, name: str) -> tf.Tensor:
        return tf.constant(self.arrays[name])

    def compare(self, name: str, ours: Any, tolerance: float, scale: float | None = None) -> None:
        """Relative error max|ours - theirs| / max|theirs| against the tolerance.

        Where theirs is -inf, ours must be below -1e8.

        Args:
            scale: what the error is relative to instead, for an array that is zero but for rounding.
        """
        self.compared.add(name)
        theirs, ours = self.arrays[name], np.asarray(ours)
        if theirs.shape != ours.shape:
            self.failures.append(f"{name}: shape {ours.shape} instead of {theirs.shape}")
            return
        masked = np.isneginf(theirs)
        if not np.array_equal(masked, ours < -1e8):
            self.failures.append(f"{name}: masks other places")
            return
        theirs, ours = np.where(masked, 0, theirs), np.where(masked, 0, ours)
        largest = np.abs(theirs).max() if scale is None else scale
        error = np.abs(ours.astype(np.float64) - theirs).max() / largest if largest else np.abs(ours).max()
        self.worst[f"{tolerance:g}"] = max(self.worst.get(f"{tolerance:g}", (0.0, "")), (float(error), name))
        if not error <= tolerance:
            self.failures.append(f"{name}: error {error:.3g}, tolerance {tolerance:g}")

    def compare_equal(self, name: str, ours: Any) -> None:
        self.compared.add(name)
        if not np.array_equal(self.arrays[name], np.asarray(ours)):
            self.failures.append(f"{name}: differs")

    def compare_image(self, prefix: str, ours: tf.Tensor, tolerance: float) -> None:
        """An image or map NHWC with every stored `<prefix>_<part>`: full, sK (each K-th pixel), corner, mean, std."""
        image = channels_first(ours)
        parts = {
            "full": image,
            "corner": image[:, :, -12:, -12:],
            "mean": image.mean(axis=(2, 3)),
            "std": image.std(axis=(2, 3)),
        }
        for part in self.below(f"{prefix}_").keys() - {"norm"}:
            step = re.fullmatch(r"s(\d+)", part)
            sample = image[:, :, :: int(step[1]), :: int(step[1])] if step else parts[part]
            self.compare(f"{prefix}_{part}", sample, tolerance)

    def compare_image_gradient(self, prefix: str, ours: tf.Tensor, tolerance: float) -> None:
        """A gradient NHWC with `<prefix>_sK`, each K-th pixel, and `<prefix>_norm`, the L2 norm of each sample."""
        self.compare(f"{prefix}_norm", np.sqrt(np.sum(np.square(ours, dtype=np.float64), axis=(1, 2, 3))), tolerance)
        self.compare_image(prefix, ours, tolerance)

    def compare_gradients(
        self, prefix: str, ours: Mapping[str, np.ndarray], tolerance: float, zero: Mapping[str, str] | None = None
    ) -> None:
        """`<prefix>/norm/<parameter>` of all parameters and `<prefix>/full/<parameter>` where stored.

        Args:
            ours: gradients by published name, in published layout.
            zero: parameters whose gradient is exactly zero in theory -> the one whose norm it is measured against.
        """
        norms, full = self.below(f"{prefix}/norm/"), self.below(f"{prefix}/full/")
        if norms.keys() != ours.keys():
            self.failures.append(f"{prefix}: parameters {sorted(norms.keys() ^ ours.keys())} are not in both")
        for parameter in norms.keys() & ours.keys():
            reference = (zero or {}).get(parameter)
            scale = float(norms[reference]) if reference else None
            self.compare(f"{prefix}/norm/{parameter}", np.linalg.norm(ours[parameter]), tolerance, scale)
            if parameter in full:
                self.compare(f"{prefix}/full/{parameter}", ours[parameter], tolerance, scale)

    def compare_statistics(self, prefix: str, ours: Mapping[str, np.ndarray], tolerance: float) -> None:
        """`<prefix>/<norm>.running_{mean,var}` against the same names among all published arrays of a network."""
        moved = {name: array for name, array in ours.items() if name.rpartition(".")[2].startswith("running_")}
        stored = self.below(f"{prefix}/")
        if moved.keys() != stored.keys():
            self.failures.append(f"{prefix}: {sorted(moved.keys() ^ stored.keys())} are not in both")
        for name in moved.keys() & stored.keys():
            self.compare(f"{prefix}/{name}", moved[name], tolerance)

    def finish(self) -> None:
        """Every test ends with it. Fails unless every result in the file was compared and agreed."""
        for tolerance, (error, name) in sorted(self.worst.items()):
            print(f"largest error {error:.2g} of {tolerance}: {name}")
        forgotten = [name for name in self.arrays if name.startswith(RESULTS) and name not in self.compared]
        problems = self.failures + [f"{name}: never compared" for name in forgotten]
        assert not problems, "\n".join([f"{len(problems)} problems, {len(self.compared)} results compared:", *problems])


def channels_first(x: tf.Tensor) -> np.ndarray:
    return np.transpose(x, (0, 3, 1, 2))


def gradients(objective: Callable, *sources: list) -> tuple[Any, list[list]]:
    """What objective() returns, a scalar or a tuple that begins with it, and its gradients for each list of tensors or
    Keras variables."""
    sources = [[item.value if isinstance(item, keras.Variable) else item for item in source] for source in sources]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        result = objective()
    return result, tape.gradient(result[0] if isinstance(result, tuple) else result, sources)
