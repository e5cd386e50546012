"""`t2i-sample --film`: animated pictures from caption to caption, or from seed to seed, that end where they began."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import files, pictures
from t2i_tf.config import SampleConfig
from t2i_tf.errors import UserError
from t2i_tf.inference import Run

MILLISECONDS = 50
"""A picture is shown so long."""

SMALLEST = 256
"""Pictures are shown at least so large."""


def film(run: Run, captions: list[str], seeds: list[int] | None, options: SampleConfig) -> Iterator[str]:
    """Writes a film for each seed through two captions and more, or one through the seeds; yields the lines to print.

    Along a film of captions the noise is fixed, along one of seeds the words are. Raises UserError.
    """
    out, steps = Path(options.out), options.film_steps
    if len(captions) > 1:
        for seed in [0] if seeds is None else seeds:
            frames = through_captions(run, captions, seed, steps, options.truncation)
            path = save(frames, out / f"film-seed{seed}.{options.film_format}")
            yield f"film of {len(frames)} pictures through {len(captions)} captions, seed {seed}: {path}"
        return
    seeds = [0, 1, 2, 3] if seeds is None else seeds
    if len(seeds) < 2:
        raise UserError("--film needs two captions (repeat --caption) or two seeds, e.g. --seeds=0-3")
    frames = through_seeds(run, captions[0] if captions else None, seeds, steps, options.truncation)
    path = save(frames, out / f"film-seeds.{options.film_format}")
    yield f"film of {len(frames)} pictures through {len(seeds)} seeds: {path}"


def through_captions(run: Run, captions: list[str], seed: int, steps: int, truncation: float = 1.0) -> np.ndarray:
    """uint8 [len(captions) * steps, S,S,3]: picture i * steps is that of caption i, the last goes back to the first."""
    pairs = zip(captions, [*captions[1:], captions[0]], strict=True)
    legs = [run.interpolate_text(first, second, steps + 1, [seed], truncation)[0, :-1] for first, second in pairs]
    return np.concatenate(legs)


def through_seeds(run: Run, caption: str | None, seeds: list[int], steps: int, truncation: float = 1.0) -> np.ndarray:
    """uint8 [len(seeds) * steps, S,S,3]: picture i * steps is that of seed i, the last goes back to the first."""
    legs = run.interpolate_noise(caption, steps + 1, [*seeds, seeds[0]], truncation)[:, :-1]
    return legs.reshape(-1, *legs.shape[2:])


def save(frames: np.ndarray, path: Path) -> Path:
    """Writes uint8 [N,S,S,3] as an animated WebP or GIF that plays for ever, by the ending of the path."""
    size = frames.shape[1] * max(1, SMALLEST // frames.shape[1])
    first, *others = (Image.fromarray(frame) for frame in pictures.enlarged(frames, size))
    kind = path.suffix.removeprefix(".").upper()
    quality = {"quality": 90, "method": 4} if kind == "WEBP" else {}
    with files.written_beside(path) as beside:
        first.save(beside, kind, save_all=True, append_images=others, duration=MILLISECONDS, loop=0, **quality)
    return path
