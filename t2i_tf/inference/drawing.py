"""Captions and seeds -> pictures, and the ways between them."""

from __future__ import annotations

import zlib

import numpy as np
import tensorflow as tf

from t2i_tf import devices
from t2i_tf.errors import UserError
from t2i_tf.inference.batches import BATCH_SIZE, in_batches, map_arrays, to_uint8
from t2i_tf.inference.paths import great_circle, straight
from t2i_tf.networks.constant import constant_weights


class SeedDraw:
    """Noise for pictures to be looked at: row i follows from seed i and the noise's name, whatever its neighbours."""

    def __init__(self, seeds):
        self.seeds = [int(seed) for seed in seeds]

    def _rows(self, draw, name, width):
        stream = zlib.crc32(name.encode())
        return np.stack([draw([width], [seed, stream]).numpy() for seed in self.seeds])

    def normal(self, name: str, width: int) -> np.ndarray:
        """float32 [len(seeds), width]."""
        return self._rows(tf.random.stateless_normal, name, width)

    def truncated_normal(self, name: str, width: int) -> np.ndarray:
        """As `normal`, within two standard deviations."""
        return self._rows(tf.random.stateless_truncated_normal, name, width)


class DrawsPictures:
    """The part of a `Run` that is a generator's."""

    @devices.traced()
    def _sample(self, condition, noise):
        with self._weights():
            return [to_uint8(image) for image in self.recipe.sample(condition, noise)]

    @devices.traced()
    def _attend(self, condition, noise):
        with self._weights():
            made = self.recipe.attend(condition, noise)
        return {"images": [to_uint8(image) for image in made["images"]], "attention": made["attention"]}

    def need_generator(self) -> None:
        """Raises UserError when the run was imported without what draws."""
        self.need("generator", "stage1_generator")

    def _weights(self):
        """Held by the traced graph where they stay; by several devices each has its own."""
        return constant_weights(self.draws_only and devices.count() == 1)

    def noise(self, seeds, truncation: float = 1.0) -> dict:
        """int seeds [N] -> the recipe's sampling noise, arrays of N rows: a row depends on its seed alone."""
        noise = self.recipe.sampling_noise(SeedDraw(seeds))
        return {name: truncation * np.asarray(rows) for name, rows in noise.items()}

    def render(self, conditions, noise: dict, batch_size: int = BATCH_SIZE) -> list[np.ndarray]:
        """Conditions of N rows, as `embed` gives them, and noise -> pictures uint8 [N,S,S,3] of every scale, small to
        large."""
        self.need_generator()
        return in_batches(self._sample, conditions, noise, batch_size)

    def generate(self, captions: list[str] | None, seeds: list[int], truncation: float = 1.0) -> list[np.ndarray]:
        """Captions [N] and noise seeds [N] -> pictures uint8 [N,S,S,3] of every scale, small to large.

        Captions are None for a run without text. Raises UserError for captions that say nothing, or that the run does
        not take, and when the run is no generator.
        """
        if captions is not None and len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions but {len(seeds)} seeds")
        if self.recipe.kind != "gan":
            raise UserError(f"a run of {self.paper} draws no pictures: give the run of a generator")
        return self.render(self._conditions(captions), self.noise(seeds, truncation))

    def attend(
        self, captions: list[str], seeds: list[int], truncation: float = 1.0
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `generate`, and where each word was looked at on the way.

        Returns pictures uint8 [N,S,S,3] of every scale, and the attention float32 [N,S,S,T] of every stage, small to
        large: sums of 1 over the words; those of a caption are its `tokens`. Raises UserError as `generate`, and for
        a paper without attention to words.
        """
        if self.recipe.kind != "gan" or not hasattr(self.recipe, "attend"):
            raise UserError(f"a run of {self.paper} draws no pictures by attention to words: give one that does")
        self.need_generator()
        made = in_batches(self._attend, self._conditions(captions), self.noise(seeds, truncation), BATCH_SIZE)
        return made["images"], made["attention"]

    def interpolate_text(
        self, first: str, second: str, steps: int, seeds: list[int], truncation: float = 1.0
    ) -> np.ndarray:
        """Pictures uint8 [len(seeds), steps, S,S,3] of the largest scale, from one caption's condition to another's."""
        shares = np.tile(np.linspace(0.0, 1.0, steps, dtype=np.float32), len(seeds))
        rows = map_arrays(lambda ends: straight(ends, shares), self._conditions([first, second]))
        images = self.render(rows, self.noise(np.repeat(seeds, steps), truncation))[-1]
        return images.reshape(len(seeds), steps, *images.shape[1:])

    def interpolate_noise(
        self, caption: str | None, steps: int, seeds: list[int], truncation: float = 1.0
    ) -> np.ndarray:
        """Pictures uint8 [len(seeds)-1, steps, S,S,3]: one caption or no text, noise moved from each seed to the next.

        The way is along the great circle, so that every point on it has the length of normal noise.
        """
        ends = self.noise(seeds)
        shares = np.linspace(0.0, 1.0, steps, dtype=np.float32)
        noise = {
            name: truncation * np.concatenate([great_circle(a, b, shares) for a, b in zip(z[:-1], z[1:], strict=True)])
            for name, z in ends.items()
        }
        condition = self._conditions(None if caption is None else [caption])
        count = steps * (len(seeds) - 1)
        rows = map_arrays(lambda of_one: np.repeat(of_one, count, axis=0), condition)
        images = self.render(rows, noise)[-1]
        return images.reshape(len(seeds) - 1, steps, *images.shape[1:])
