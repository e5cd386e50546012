"""`t2i-sample` on a captioner's run: pictures -> captions, and where each word was looked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import caption_pictures, pictures
from t2i_tf.config import SampleConfig
from t2i_tf.errors import UserError
from t2i_tf.inference import Run

DEFAULT_PICTURES = 8


def describe(run: Run, options: SampleConfig) -> Iterator[str]:
    """Describes the pictures asked for, or some of the test split; yields the lines to print. Raises UserError.

    With attention there is a figure for each picture, else one sheet of pictures with their captions.
    """
    _check(run, options)
    names, squares = _files(run, options) if options.images else _of_the_test_split(run, options)
    found = run.describe(squares, options.beam_size, options.length_normalised)
    seen, out = run.seen(squares), Path(options.out)
    if found.attention is None:
        sheet = pictures.labelled_grid(seen[:, None], found.captions, None, max(1, 128 // seen.shape[1]))
        yield f"{len(names)} pictures with their captions: {pictures.save(sheet, out / 'captions.png')}"
    for number, (name, caption, words) in enumerate(zip(names, found.captions, found.words, strict=True)):
        line = f"{name}: {caption}"
        if found.attention is not None:
            figure = caption_pictures.attention_figure(
                seen[number], words, found.attention[number], found.selectors[number]
            )
            path = out / f"{number + 1:03d}-{pictures.file_stem(Path(name).stem)}.png"
            line += f"\n  {pictures.save(Image.fromarray(figure), path)}"
        yield line
    yield f"next: t2i-evaluate --run_dir={options.run_dir}"


def _check(run, options):
    """Flags that say nothing to a captioner are refused, not passed over."""
    given = {
        "caption": options.caption,
        "captions_file": options.captions_file,
        "seeds": options.seeds,
        "captioner_run": options.captioner_run,
        "mode": options.mode != SampleConfig.mode,
        "attention": options.attention,
        "change": options.change,
        "film": options.film,
    }
    for name, value in given.items():
        if value:
            raise UserError(
                f"--{name}: --run_dir={options.run_dir} is a run of {run.paper}, which describes pictures and draws "
                "none: leave it out, and give --images"
            )


def _files(run, options) -> tuple[list[str], np.ndarray]:
    return list(options.images), run.prepared(options.images)


def _of_the_test_split(run, options) -> tuple[list[str], np.ndarray]:
    split = run.dataset(options, or_give="--images").unseen()
    numbers = np.linspace(0, split.num_images - 1, min(DEFAULT_PICTURES, split.num_images)).astype(int)
    return [split.names[number] for number in numbers], next(run.views(split, len(numbers), numbers))
