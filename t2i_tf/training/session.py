"""A run made ready to train: its data, text encoder, recipe and trainer, checked before anything is written."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from t2i_tf import checkpoints, papers
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.data import pipeline, records, sampling, text
from t2i_tf.errors import UserError
from t2i_tf.inference import TEXT_ENCODER, Run, load, read_vocabulary, vocabulary_summary
from t2i_tf.networks.precision import computing_in
from t2i_tf.training import caches, devices, run_folder
from t2i_tf.training.trainers import trainer as make_trainer

SAMPLE_EVERY = 500
"""Steps between sample grids and scores, for papers that do not choose weights by a score."""
FEW_IMAGES = 1000
"""Pictures below which a training set is said to be small."""


def data_context(split: records.Split, words: list[str], text_dim: int | None) -> papers.Context:
    """What a recipe is told of its training split, whose captions are read by `words`."""
    manifest = split.dataset.manifest
    return papers.Context(
        text_dim=text_dim,
        num_classes=len(np.unique(split.class_ids)),
        class_ids=tuple(np.unique(split.class_ids[split.class_ids >= 0]).tolist()),
        vocabulary_size=len(words) + 1 if words else 0,
        num_captions=int(split.caption_offsets[-1]),
        stored_size=manifest["image_size"],
        squashed=manifest["resize"] == "square",
        resample=manifest["resample"],
    )


def training_split(dataset: records.Dataset, hyperparameters, seed: int) -> records.Split:
    """The pictures of the split that the paper names, less those that it holds out."""
    split = dataset.split(getattr(hyperparameters, "split", "train"))
    share = getattr(hyperparameters, "held_out", 0.0)
    if not share:
        return split
    kept = ~sampling.held_out(split.class_ids, share, seed) & (split.class_ids >= 0)
    return records.Subset(split, np.flatnonzero(kept))


def steps_per_epoch(recipe, split: records.Split) -> int:
    """As the recipe says, but captions of each length fill batches of their own where a batch is of one."""
    if recipe.request.sampling == "caption_length":
        return max(1, pipeline.steps_of_lengths(split, recipe.request, recipe.hyperparameters.batch_size))
    return recipe.steps_per_epoch(split.num_images)


class Session:
    """A run made ready to train: everything is built and checked, nothing is written to the run folder yet."""

    def __init__(self, training: TrainConfig, given: dict):
        """`given` are the hyperparameters that the user set."""
        self.training = training
        fields = {field.name for field in dataclasses.fields(papers.get(training.paper).Hyperparameters)}
        hyperparameters = papers.resolve(training.paper, **devices.with_jit(training, given, fields))
        self.hyperparameters = hyperparameters
        self.dataset = records.Dataset.open(training.data_dir)
        self.split = training_split(self.dataset, hyperparameters, training.seed)
        self.strategy = devices.strategy(training.devices)
        self.team = devices.Team(self.strategy)
        replicas = self.strategy.num_replicas_in_sync
        devices.check_batch(hyperparameters.batch_size, replicas, training.accumulate)
        self.text_encoder = self._loaded_text_encoder()
        self.published = self._published_embeddings()
        self.vocabulary_run = self._vocabulary_run()
        words = self._words()
        context = data_context(self.split, words, self._text_dim())
        checksum = self.dataset.manifest["splits"][self.split.name]["index"]["sha256"]
        self.config = RunConfig(training, dataclasses.asdict(hyperparameters), dataclasses.asdict(context), checksum)
        keras.utils.set_random_seed(training.seed)
        with self.strategy.scope(), computing_in(training.precision):
            self.recipe = papers.get(training.paper).Recipe(hyperparameters, context)
            self.steps_per_epoch = steps_per_epoch(self.recipe, self.split)
            execution = devices.execution(training, self.recipe, replicas)
            self.trainer = make_trainer(self.recipe, training.seed, self.steps_per_epoch, execution)
        self.vocabulary = words if self.recipe.request.text == "words" else None
        self.config = dataclasses.replace(self.config, vocabulary=vocabulary_summary(self.vocabulary))
        self.steps = training.steps or hyperparameters.epochs * self.steps_per_epoch
        self.steps -= self.steps % training.steps_per_execution
        self.selection = getattr(self.recipe, "selection", None)
        self.further_selections = getattr(self.recipe, "further_selections", {})
        self.sample_every = training.sample_every or (self.steps_per_epoch if self.selection else SAMPLE_EVERY)
        self.sample_every = -(-self.sample_every // training.steps_per_execution) * training.steps_per_execution
        self._check_data()

    def _check_data(self):
        """Refuses data that do not fit before anything is written; the test split is read for scores later."""
        self.captions_read = self._captions_read()
        self.batch_spec()
        if (self.recipe.request.image_views or self.recipe.request.annotations) and not self.training.dry_run:
            _ = self.recipe.frozen_features  # raises where it cannot be had
        if self.split.num_images < FEW_IMAGES:
            logging.warning(
                "%s has only %d pictures to train on, which a network soon knows by heart: the test split and "
                "t2i-sample --mode=nearest (generators) show whether it does; more pictures, or --init_from=RUN of a "
                "larger set, help",
                self.dataset.path,
                self.split.num_images,
            )
        if self.training.patience and self.selection is None:
            raise UserError(f"--patience: {self.training.paper} does not choose its weights by a score; leave it out")
        if self.team.chief and not checkpoints.steps(run_folder.find(self.config)):
            self._check_pretrained()
        if self.training.box_crop:
            for name in self.dataset.manifest["splits"]:
                pipeline.check_boxes(self.dataset.split(name))

    def _check_pretrained(self):
        """Refuses runs to start from that do not fit; one that goes on has no need of them."""
        for name, (run_dir, _) in getattr(self.recipe, "pretrained", {}).items():
            theirs = Path(run_dir) / TEXT_ENCODER
            if self.text_encoder is not None and theirs.is_dir():
                one, other = (run.recipe.text_encoder.get_weights() for run in (self.text_encoder, load(theirs)))
                if checkpoints.fingerprint(one) != checkpoints.fingerprint(other):
                    raise UserError(
                        f"{run_dir}, where {name} comes from, was trained on another text encoder than that of "
                        f"--text_encoder_run={self.training.text_encoder_run}: give {theirs}"
                    )

    def _captions_read(self) -> np.ndarray | None:
        """Of which captions of the training split a word is known, bool [all captions]; None where it does not matter.

        What else is unknown is left out of captions, and said where they are read by the words of another run. A
        captioner sees to what has no word itself. Raises UserError when a picture is left without a caption, or another
        split without any.
        """
        words = self.vocabulary if self.text_encoder is None else self.text_encoder.vocabulary
        if words is None or self.recipe.request.text is None or self.recipe.request.unknown_words:
            return None
        known, manifest = set(words), self.dataset.manifest
        own = words == manifest["vocabulary"]
        whose = self.training.text_encoder_run or self.vocabulary_run or "the data set"
        for name in manifest["splits"]:
            trained = name == self.split.name
            split = self.split if trained else self.dataset.split(name)
            captions = split.all_captions()
            read = np.array([not known.isdisjoint(text.words(caption)) for caption in captions], bool)
            if trained:
                of_split = read
            unread = np.flatnonzero(~read)
            if not len(unread):
                continue
            named = (
                f"{len(unread):,} of {len(captions):,} captions of {self.dataset.path} ({name}) have no word that "
                f"{whose} knows (e.g. {captions[unread[0]]!r})"
            )
            emptied = (pipeline.counts_of(read, split) == 0) & (split.caption_counts > 0)
            if emptied.any() if trained else not read.any():
                advice = "correct them and prepare the data set again" if own else "train its encoders on these data"
                raise UserError(f"{named}, and a picture no other: {advice}")
            if trained:
                logging.warning("%s: they are not trained on", named)
        counts = dict(zip(manifest["vocabulary"], manifest["vocabulary_counts"], strict=True))
        unknown = {word: count for word, count in counts.items() if word not in known}
        if unknown:
            logging.warning(
                "%s does not know %d words of %s, %.2f%% of its text, which are left out: %s%s",
                whose,
                len(unknown),
                self.dataset.path,
                100.0 * sum(unknown.values()) / sum(counts.values()),
                ", ".join([*unknown][:10]),
                ", ..." if len(unknown) > 10 else "",
            )
        return None if of_split.all() else of_split

    def _vocabulary_run(self) -> str | None:
        """The run whose words captions are read by, where the paper takes its encoders from one."""
        module = papers.get(self.training.paper)
        return module.vocabulary_run(self.hyperparameters) if hasattr(module, "vocabulary_run") else None

    def _words(self) -> list[str]:
        """The words that captions are read by, in the order of their numbers; none for data without captions."""
        own = self.dataset.manifest["vocabulary"]
        theirs = read_vocabulary(self.vocabulary_run) if own and self.vocabulary_run else None
        return own if theirs is None else theirs

    def _loaded_text_encoder(self):
        if not self.training.text_encoder_run:
            return None
        run = load(self.training.text_encoder_run)
        if not hasattr(run.recipe, "encode_captions"):
            raise UserError(
                f"--text_encoder_run={self.training.text_encoder_run} is a run of {run.paper}, which encodes no "
                "captions: give the run of a text encoder"
            )
        if run.reads_words:
            _ = run.known_words  # raises where its vocabulary is missing
        return run

    def _published_embeddings(self):
        return caches.published_embeddings(self.split) if self.text_encoder is None else None

    def _text_dim(self):
        if self.text_encoder is not None:
            return self.text_encoder.recipe.hyperparameters.embedding_dim
        return None if self.published is None else self.published.shape[-1]

    def batches(self, start_step: int) -> tf.data.Dataset:
        """The training stream from a step on. Computes what frozen networks say of the data, once: the chief does."""
        if not self.team.chief:
            self.team.wait()
        stream = self._batches(start_step)
        if self.team.chief:
            self.team.wait()
        return self.team.distributed(stream, self.hyperparameters.batch_size)

    def _batches(self, start_step):
        request, embeddings, features, annotations = self.recipe.request, self.published, None, None
        if request.text == "embedding" and self.text_encoder is not None:
            embeddings = caches.caption_embeddings(self.text_encoder, self.split)
        if request.image_views:
            network, size, views = self.recipe.frozen_features, request.image_sizes[-1], request.image_views
            features = caches.image_features(network, self.split, size, views, self.training.box_crop)
        if request.annotations:
            network, size = self.recipe.frozen_features, request.image_sizes[-1]
            annotations = caches.image_annotations(network, self.split, size, self.training.box_crop)
        return self._pipeline(start_step, embeddings, features, annotations)

    def batch_spec(self):
        """Names, shapes and types of a training batch, without computing any."""
        request = self.recipe.request
        embeddings = np.zeros([1, self._text_dim()]) if request.text == "embedding" else None
        features = np.zeros([1, 1, self.recipe.feature_width]) if request.image_views else None
        annotations = np.zeros([1, *self.recipe.annotation_shape], np.float16) if request.annotations else None
        return self._pipeline(0, embeddings, features, annotations).element_spec

    def _pipeline(self, start_step, embeddings, features, annotations):
        return pipeline.batches(
            self.split,
            self.recipe.request,
            self.hyperparameters.batch_size,
            seed=self.training.seed,
            start_step=start_step,
            embeddings=embeddings,
            features=features,
            annotations=annotations,
            character_rule=getattr(self.hyperparameters, "character_rule", "lower_zero"),
            vocabulary=self.vocabulary,
            box_crop=self.training.box_crop,
            captions_read=self.captions_read,
            share=(self.team.index, self.team.count),
        )

    def load_pretrained(self) -> None:
        """The weights that a fresh run starts from: those of --init_from, and parts the paper takes from other runs, as
        these would draw or encode with them. Networks that an import left untrained start anew."""
        networks, init_from, fresh = self.recipe.networks, self.training.init_from, {*self.recipe.networks}
        if init_from:
            fresh &= {*RunConfig.read(init_from).untrained}
            checkpoints.load_weights(init_from, {name: networks[name] for name in networks if name not in fresh})
            if fresh:
                logging.warning("--init_from=%s was imported without %s, which start anew", init_from, ", ".join(fresh))
        if hasattr(self.recipe, "start"):
            self.recipe.start(fresh)
        for name, (run_dir, theirs) in getattr(self.recipe, "pretrained", {}).items():
            network, *parts = name.split(".")
            part = functools.reduce(getattr, parts, networks[network])
            if RunConfig.read(run_dir).hyperparameters["ema_decay"]:
                averaged = load(run_dir).recipe.networks[theirs]
                for ours, average in zip(part.variables, averaged.variables, strict=True):
                    ours.assign(average)
            else:
                checkpoints.load_weights(run_dir, {theirs: part})

    def live_run(self) -> Run:
        """The networks in training as a `Run`."""
        step = int(self.trainer.step.numpy())
        return Run(self.config, self.recipe, step, self.text_encoder, self.trainer.average, self.vocabulary)
