"""Runs of every paper, of the smallest sizes and random weights, for tests of what serves them."""

import dataclasses

import numpy as np

from t2i_tf import inference, papers
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.inference import Run
from t2i_tf.networks.moving_average import MovingAverage
from t2i_tf.papers import Context

VOCABULARY = ["a", "flower", "red", "blue", "with", "petals", "yellow", "center", "big", "round"]
TREE = {"num_scales": 2, "base_size": 16, "generator_width": 4, "discriminator_width": 2, "noise_dim": 5}
WORDS = {"image_encoder": "conv", "image_encoder_width": 2, "embedding_dim": 8, "word_dim": 6}
STAGE = {"generator_width": 4, "discriminator_width": 2, "noise_dim": 5, "condition_dim": 4, "residual_blocks": 1}
TEXT, READER = Context(text_dim=16), Context(vocabulary_size=len(VOCABULARY) + 1)
RUNS = {
    "char_cnn_rnn": (Context(), {"text_channels": (8, 8, 8), "embedding_dim": 16, "image_encoder_width": 4}),
    "gan_int_cls": (
        TEXT,
        {"generator_width": 4, "discriminator_width": 4, "text_projection": 8, "noise_dim": 8, "ema_decay": 0.5},
    ),
    "stackgan_stage1": (TEXT, STAGE),
    "stackgan_stage2": (TEXT, {**STAGE, "stage": 2, "form": "pytorch"}),
    "stackgan_v2": (TEXT, {**TREE, "condition_dim": 4}),
    "stackgan_v2_without_text": (Context(), {**TREE, "conditional": False}),
    "damsm": (READER, {**WORDS, "image_size": 32}),
    "attngan": (READER, {**WORDS, **TREE, "condition_dim": 4}),
    "show_attend_tell": (
        READER,
        {"image_encoder": "conv", "image_encoder_width": 2, "image_size": 32}
        | {"word_dim": 5, "state_dim": 6, "attention_layers": 2},
    ),
}


def build(name):
    """A run of random weights, large enough that everything matters. The averages are others than the weights."""
    context, given = RUNS[name]
    paper = next(key for key in papers.PAPERS if name.split("_stage")[0].split("_without")[0] == key)
    hyperparameters = dataclasses.asdict(papers.resolve(paper, **given))
    config = RunConfig(TrainConfig(paper=paper, data_dir=""), hyperparameters, dataclasses.asdict(context))
    recipe = inference.build(config)
    rng = np.random.default_rng(1)

    def shake():
        for network in recipe.networks.values():
            for variable in network.variables:
                if "variance" in variable.path:
                    variable.assign(rng.uniform(0.05, 0.5, variable.shape))
                else:
                    fan_in = max(1, int(np.prod(variable.shape[:-1])))
                    variable.assign(rng.normal(0, 1.5 / np.sqrt(fan_in), variable.shape))

    shake()
    average = MovingAverage.of(recipe)
    shake()
    if average is not None:
        average.swap()
    encoder = build("char_cnn_rnn") if recipe.request.text == "embedding" else None
    reads_words = recipe.request.text == "words"
    return Run(config, recipe, 7, encoder, average, VOCABULARY if reads_words else None)
