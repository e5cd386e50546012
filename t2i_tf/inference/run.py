"""A run in use: loading it, saving it, and all that it can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2i_tf import checkpoints, files, papers
from t2i_tf.config import RunConfig
from t2i_tf.data import pipeline, records, text
from t2i_tf.errors import UserError
from t2i_tf.inference.captioning import DescribesPictures
from t2i_tf.inference.drawing import DrawsPictures
from t2i_tf.inference.folder import TEXT_ENCODER, read_vocabulary, vocabulary_summary, write_vocabulary
from t2i_tf.inference.reading import ReadsCaptions
from t2i_tf.inference.seeing import SeesPictures
from t2i_tf.networks.initial import from_a_file
from t2i_tf.networks.moving_average import MovingAverage


@dataclass(eq=False)
class Run(ReadsCaptions, DrawsPictures, DescribesPictures, SeesPictures):
    """A recipe with its weights, and the text encoder in front of it where it needs one."""

    config: RunConfig
    recipe: object
    step: int
    text_encoder: Run | None = None
    average: MovingAverage | None = None
    vocabulary: list[str] | None = None
    """Words that the recipe was trained on, in the order of their numbers, where it reads words."""
    draws_only: bool = False
    """Its weights stay as they are, so that what follows from them alone is computed once, when it first draws."""

    def __post_init__(self):
        self._captions_of: dict = {}
        self._told: set[str] = set()
        unknown = self.recipe.request.unknown_words  # its table is made here: inside a graph it would stay there
        self._tokenizer = None if self.vocabulary is None else text.WordTokenizer(self.vocabulary, unknown)

    @property
    def paper(self) -> str:
        return self.config.training.paper

    def need(self, *networks: str) -> None:
        """Raises UserError when an import left one of these networks untrained."""
        self.config.need(f"this run of {self.paper}", *networks)

    @property
    def weights_used(self) -> str:
        """Which weights its networks have now: "ema" or "raw"."""
        return "ema" if self.average is not None and self.average.swapped else "raw"

    def dataset(self, options, or_give: str = "") -> records.Dataset:
        """The data set of --data_dir, or the run's own.

        Args:
            options: of a verb, with run_dir and data_dir; or_give: a flag that does in place of --data_dir.

        Raises UserError when it cannot be opened, or an imported run knows none.
        """
        path = options.data_dir or self.config.training.data_dir
        if not path:
            flags = " or ".join(filter(None, (or_give, "--data_dir")))
            raise UserError(f"--run_dir={options.run_dir} was imported and knows no data set: give {flags}")
        return records.Dataset.open(path)

    def views(self, split: records.Split, at_once: int, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Batches uint8 [<=at_once,S,S,3] of a split's pictures from the middle, cropped as the run was trained and of
        its largest scale: all in their order, or those of the numbers `chosen` in theirs."""
        size, box_crop = self.recipe.request.image_sizes[-1], self.config.training.box_crop
        augmentation = self.recipe.request.augmentation
        found = pipeline.views(split, size, at_once, box_crop=box_crop, chosen=chosen, augmentation=augmentation)
        return found.as_numpy_iterator()

    def save(self, folder: Path) -> None:
        """Writes a run folder with configuration and weights alone, the configuration last: it makes it a run."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        averaged = self.weights_used == "ema"
        if averaged:
            self.average.swap()
        checkpoints.save_weights(folder, self.step, self.recipe.networks, self.average)
        if averaged:
            self.average.swap()
        write_vocabulary(folder, self.vocabulary)
        if self.text_encoder is not None:
            self.text_encoder.save(folder / TEXT_ENCODER)
        config = dataclasses.replace(self.config, vocabulary=vocabulary_summary(self.vocabulary))
        with files.written_beside(folder / "config.json") as beside:
            beside.write_text(config.to_json())


def build(config: RunConfig, judges: bool = True):
    """The recipe of a run, with fresh weights."""
    module = papers.get(config.training.paper)
    hyperparameters = papers.resolve(config.training.paper, **config.hyperparameters)
    parts = {"judges": False} if module.Recipe.kind == "gan" and not judges else {}
    return module.Recipe(hyperparameters, papers.Context(**config.context), **parts)


def load(run_dir: str | Path, weights: str = "best", checkpoint: str = "best", judges: bool = True) -> Run:
    """Loads a readable checkpoint of a run.

    Args:
        weights: "ema", "raw", or "best": EMA where the run keeps it.
        checkpoint: "newest", "best": that of the best score where the run chooses by one, or the number of a step.
        judges: False for a GAN that will only draw, with the weights it has then: its discriminators and image encoders
            are left where they are, and AttnGAN at published width is there in 2 in place of 8 seconds.

    Raises UserError: no run folder, no readable checkpoint or none of that step, EMA asked for and not kept, a
    vocabulary that is missing or another than the run was trained with.
    """
    config, vocabulary = RunConfig.read(run_dir), read_vocabulary(run_dir)
    with from_a_file():
        recipe = build(config, judges)
    average = MovingAverage.of(recipe)
    if weights == "ema" and average is None:
        raise UserError(f"--weights=ema: {run_dir} was trained without a moving average: use --weights=raw")
    step = int(checkpoint) if checkpoint.isdecimal() else None
    step = checkpoints.load_weights(run_dir, recipe.networks, average, newest=checkpoint == "newest", step=step)
    if average is not None and weights != "raw":
        average.swap()
    encoder = Path(run_dir) / TEXT_ENCODER
    text_encoder = load(encoder) if encoder.is_dir() else None
    return Run(config, recipe, step, text_encoder, average, vocabulary, draws_only=not judges)


def restore(run: Run, run_dir: str | Path, step: int) -> None:
    """Takes the weights of another step of its folder into a run, which keeps to raw or EMA as it was loaded.

    Raises UserError when there is no readable checkpoint of that step, ValueError for a run that only draws.
    """
    if run.draws_only:
        raise ValueError("a run that only draws keeps the weights that it was loaded with")
    averaged = run.weights_used == "ema"
    if averaged:
        run.average.swap()
    try:
        run.step = checkpoints.load_weights(run_dir, run.recipe.networks, run.average, newest=True, step=step)
    finally:
        if averaged:
            run.average.swap()
