"""Our side: the whole train_step of a paper, and drawing by the function of t2i-sample and exports.

Of exactly so many rows: those two pass more, so that a picture depends on no neighbour (docs/serving.md).
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the commands do

import numpy as np
import tensorflow as tf

from experiments.against_pytorch.serve import serve
from t2i_tf import papers
from t2i_tf.networks.constant import constant_weights
from t2i_tf.networks.precision import computing_in
from t2i_tf.training import trainers

RANDOM = np.random.RandomState(0)
WORDS = 18
SETTINGS = {
    "attngan": ({}, {"vocabulary_size": 5450}),
    "stackgan_v2": ({}, {"text_dim": 1024}),
    "gan_int_cls": ({}, {"text_dim": 1024}),
    "show_attend_tell": ({"image_encoder": "random"}, {"vocabulary_size": 9999, "num_captions": 40000}),
}
"""Paper -> hyper-parameters beside the defaults, and what the data set is like."""
CAPTION, ANNOTATIONS = 12, [196, 512]
"""Of captioners: words of each caption, annotations of a picture."""


class Draw:
    def __init__(self, rows):
        self.rows = rows

    def normal(self, name, width):
        return tf.random.stateless_normal([self.rows, width], [0, len(name)])


def random_batch(recipe, rows):
    request = recipe.request
    batch = {"class": tf.range(rows, dtype=tf.int32)}
    if request.annotations:
        words = RANDOM.randint(2, 9999, (rows, 1, CAPTION))
        batch["annotations"] = tf.constant(RANDOM.rand(rows, *ANNOTATIONS), tf.float32)
        return batch | {"words": tf.constant(words, tf.int32), "word_lengths": tf.fill([rows, 1], CAPTION)}
    for name in ("images", "wrong_images") if request.wrong_images else ("images",):
        batch[name] = tuple(
            tf.constant(RANDOM.randint(0, 256, (rows, size, size, 3)), tf.uint8) for size in request.image_sizes
        )
    if request.text == "embedding":
        batch["embedding"] = tf.constant(RANDOM.randn(rows, request.captions, 1024), tf.float32)
        return batch
    lengths = np.linspace(WORDS, WORDS // 2, rows).astype(int)[:, None]
    words = RANDOM.randint(1, 5450, (rows, 1, WORDS)) * (np.arange(WORDS) < lengths[:, :, None])
    return batch | {"words": tf.constant(words, tf.int32), "word_lengths": tf.constant(lengths, tf.int32)}


def main(paper, rows, precision, jit):
    """precision, jit: of t2i-train; a half precision draws in it as well."""
    given, context = SETTINGS[paper]
    with computing_in(precision):
        settings = papers.resolve(paper, **given, batch_size=int(rows))
        recipe = papers.get(paper).Recipe(settings, papers.Context(**context))
    execution = trainers.Execution(scale_loss=precision == "mixed_float16", jit_step=jit == "step")
    trainer = trainers.trainer(recipe, seed=0, steps_per_epoch=100, execution=execution)
    batch = random_batch(recipe, int(rows))
    step = tf.function(trainer.train_step, jit_compile=execution.jit_step)
    train = tf.function(lambda batch: step(batch, trainer.noise(batch)))

    def drawn(condition, noise):
        with constant_weights():  # as a run that only draws, which is one whose weights stay
            return recipe.sample(condition, noise)[-1]

    draw = tf.function(drawn, jit_compile=execution.jit_step)

    def timed(function, *given):
        began = time.perf_counter()
        tf.nest.map_structure(lambda x: x.numpy(), function(*given))
        return time.perf_counter() - began

    def sample(count):
        of_text = {name: value[:1] for name, value in batch.items() if not name.endswith("images")}
        condition = tf.nest.map_structure(lambda x: tf.repeat(x, count, 0), recipe.condition(of_text))
        return timed(draw, condition, recipe.sampling_noise(Draw(count)))

    serve(lambda: timed(train, batch), sample)


if __name__ == "__main__":
    main(*sys.argv[1:])
