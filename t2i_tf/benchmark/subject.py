"""A preset made ready to be measured, with or without its data set, its text encoder and its DAMSM.

Weights are fresh: how long a step takes does not depend on them, so nothing that was trained before is needed. Without
a data set the batches are random pictures and words, of the shapes that the paper asks for.
"""

from __future__ import annotations

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf

from t2i_tf import papers
from t2i_tf.config import BenchmarkConfig, RunConfig
from t2i_tf.data import pipeline, records, text
from t2i_tf.errors import UserError
from t2i_tf.inference import Run
from t2i_tf.networks.precision import computing_in
from t2i_tf.training import devices, session
from t2i_tf.training.trainers import trainer as make_trainer

CUB = papers.Context(
    text_dim=1024, num_classes=150, class_ids=tuple(range(150)), vocabulary_size=5450, num_captions=88_550
)
"""Stands in for a data set: the training split, the sentence vectors and the vocabulary of the published models."""
CUB_IMAGES = 8855
WORDS = 18
"""Of the longest caption, where the paper names no number."""


class Subject:
    """The networks of a preset, its trainer and its batches.

    Attributes: hyperparameters, batch_size (global), recipe, request, trainer, replicas; steps, of the whole training,
        None where nothing tells how many pictures there are; build_seconds, what all that took; graph, the traced graph
        of one training step of all replicas, None before the first.
    """

    def __init__(self, options: BenchmarkConfig, given: dict):
        """`given` are the hyperparameters that the user set. Raises UserError for settings or data that do not fit."""
        began = time.perf_counter()
        self.options = options
        fields = {field.name for field in dataclasses.fields(papers.get(options.paper).Hyperparameters)}
        self.hyperparameters = papers.resolve(options.paper, **devices.with_jit(options, given, fields))
        self.batch_size = self.hyperparameters.batch_size
        self.split = self._opened_split()
        self.context = self._context()
        keras.utils.set_random_seed(options.seed)
        self.strategy = devices.strategy(options.devices)
        self.replicas = self.strategy.num_replicas_in_sync
        devices.check_batch(self.batch_size, self.replicas, options.accumulate)
        with self.strategy.scope(), computing_in(options.precision):
            self.recipe = papers.get(options.paper).Recipe(self.hyperparameters, self.context)
            if self.split is None:
                per_epoch = self.recipe.steps_per_epoch(CUB_IMAGES)
            else:
                per_epoch = session.steps_per_epoch(self.recipe, self.split)
            execution = devices.execution(options, self.recipe, self.replicas)
            self.trainer = make_trainer(self.recipe, options.seed, per_epoch, execution)
        self.steps = options.steps
        if self.steps is None and self.split:
            self.steps = self.hyperparameters.epochs * per_epoch
        self.request = self.recipe.request
        self.graph: tf.Graph | None = None
        self._iterator = None
        self.build_seconds = time.perf_counter() - began

    def _opened_split(self) -> records.Split | None:
        if self.options.data_dir is None:
            return None
        dataset = records.Dataset.open(self.options.data_dir)
        return session.training_split(dataset, self.hyperparameters, self.options.seed)

    def _context(self) -> papers.Context:
        text_dim, encoder = CUB.text_dim, self.options.text_encoder_run
        if encoder is not None:
            run = RunConfig.read(encoder)
            if "embedding_dim" not in run.hyperparameters:
                raise UserError(f"--text_encoder_run={encoder} is a run of {run.training.paper}: give a text encoder's")
            text_dim = run.hyperparameters["embedding_dim"]
        if self.split is None:
            return dataclasses.replace(CUB, text_dim=text_dim)
        return session.data_context(self.split, self.split.dataset.manifest["vocabulary"], text_dim)

    @property
    def data(self) -> str:
        """What the batches are, in words."""
        return "random pictures and words" if self.split is None else str(self.split.dataset.path)

    @property
    def longest_caption(self) -> int:
        """In words."""
        return self.request.words or WORDS

    def step(self) -> int:
        """Trains as `fit` does; returns how many steps were taken, when they are done."""
        before = int(self.trainer.step.numpy())
        if self._iterator is None:
            self._keep_graph()
            self.trainer.make_train_function()
            self._iterator = iter(self.strategy.experimental_distribute_dataset(self.batches()))
        logs = self.trainer.train_function(self._iterator)
        tf.nest.map_structure(np.asarray, logs)  # waits for the device
        return int(self.trainer.step.numpy()) - before

    def _keep_graph(self) -> None:
        train_step = self.trainer.train_step

        def traced(*given):
            self.graph = tf.compat.v1.get_default_graph()
            return train_step(*given)

        self.trainer.train_step = traced

    def batches(self) -> tf.data.Dataset:
        """The endless stream of training batches."""
        if self.split is not None:
            return self._read_batches()
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return tf.data.Dataset.from_tensors(self.made_batch(self.batch_size)).repeat().with_options(options)

    def _read_batches(self) -> tf.data.Dataset:
        """Of the data set; what frozen networks would say of it is the same random row for all."""
        request, context, rng = self.request, self.context, np.random.default_rng(self.options.seed)
        if request.text is not None and not context.num_captions:
            raise UserError(f"--data_dir={self.options.data_dir} has no captions: give one with some, or leave it out")

        def for_all(count, *shape):
            return np.broadcast_to(rng.normal(size=shape).astype(np.float32), (count, *shape))

        images, views = self.split.num_images, request.image_views
        return pipeline.batches(
            self.split,
            request,
            self.batch_size,
            seed=self.options.seed,
            embeddings=for_all(context.num_captions, context.text_dim) if request.text == "embedding" else None,
            features=for_all(images, views, self.recipe.feature_width) if views else None,
            annotations=for_all(images, *self.recipe.annotation_shape) if request.annotations else None,
            character_rule=getattr(self.hyperparameters, "character_rule", "lower_zero"),
            vocabulary=self.split.dataset.manifest["vocabulary"] if request.text == "words" else None,
            box_crop=self.options.box_crop,
        )

    def made_batch(self, rows: int) -> dict:
        """Random numbers, as `t2i_tf.data.pipeline.batches` would give them."""
        request, context, rng = self.request, self.context, np.random.default_rng(self.options.seed)
        few = rows <= len(context.class_ids)  # no class twice: some losses tell a row from those of other classes
        batch: dict = {"class": rng.choice(context.class_ids or [-1], rows, replace=not few).astype(np.int32)}

        def normal(kind, *shape):
            return rng.normal(size=(rows, *shape)).astype(kind)

        def numbers(kind, low, high, *shape):
            return rng.integers(low, high, (rows, *shape)).astype(kind)

        if request.annotations:
            batch["annotations"] = normal(np.float16, *self.recipe.annotation_shape)
        elif request.image_views:
            batch["features"] = normal(np.float32, self.recipe.feature_width)
        elif request.pictures:
            for name in ("images", "wrong_images")[: 1 + request.wrong_images]:
                batch[name] = tuple(numbers(np.uint8, 0, 256, size, size, 3) for size in request.image_sizes)
        if request.text == "embedding":
            batch["embedding"] = normal(np.float32, request.captions, context.text_dim)
        elif request.text == "characters":
            batch["characters"] = numbers(np.int32, 1, len(text.ALPHABET) + 1, request.captions, text.TEXT_LENGTH)
        elif request.text == "words":
            words = numbers(np.int32, 1, context.vocabulary_size, request.captions, self.longest_caption)
            batch |= {"words": words, "word_lengths": np.full(words.shape[:2], self.longest_caption, np.int32)}
        return tf.nest.map_structure(tf.constant, batch)

    def run(self) -> Run:
        """The networks as they draw pictures and write captions."""
        config = RunConfig(self.options, dataclasses.asdict(self.hyperparameters), dataclasses.asdict(self.context))
        return Run(config, self.recipe, int(self.trainer.step.numpy()), average=self.trainer.average)
