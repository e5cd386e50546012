"""Trained runs in use: load(run_dir) -> captions to vectors, captions to pictures, pictures to captions, interpolation.

Never imports training. A `Run` is also what the training loop wraps around its live networks to draw samples.
"""

from t2i_tf.inference.batches import BATCH_SIZE
from t2i_tf.inference.captioning import Descriptions
from t2i_tf.inference.folder import TEXT_ENCODER, read_vocabulary, vocabulary_summary, write_vocabulary
from t2i_tf.inference.run import Run, build, load, restore

__all__ = [
    "BATCH_SIZE",
    "TEXT_ENCODER",
    "Descriptions",
    "Run",
    "build",
    "load",
    "read_vocabulary",
    "restore",
    "vocabulary_summary",
    "write_vocabulary",
]
