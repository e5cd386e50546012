"""What a run sees in pictures: vectors, features, classes, words."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf import devices
from t2i_tf.inference.batches import to_floats


class SeesPictures:
    """The part of a `Run` that judges pictures: encoders, discriminators, classifiers."""

    @devices.traced(reduce_retracing=True)
    def _encode_pictures(self, pictures):
        return self.recipe.encode_pictures(pictures)

    def encode_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] -> their vectors float32 [N, embedding_dim], to compare with those of captions.

        Raises UserError when a frozen network in front cannot be had, or no import brought the image encoder.
        """
        self.need("image_encoder")
        _ = getattr(self.recipe, "frozen_features", None)  # loaded here: on each device it would be once more
        return devices.rows_of(self._encode_pictures, pictures)

    @devices.traced(reduce_retracing=True)
    def _classify(self, pictures):
        return self.recipe.classify(to_floats(pictures))

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [N,S,S,3] -> features float32 [N,F] and logits [N,C] of a classifier."""
        return devices.rows_of(self._classify, pictures)

    @devices.traced(reduce_retracing=True)
    def _tell_words(self, pictures):
        return self.recipe.tell_words(to_floats(pictures))

    def tell_words(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] -> float32 [N,V], how likely each word of `vocabulary` is said of them, as logits in
        its order."""
        return devices.rows_of(self._tell_words, pictures)[:, 1:]

    @devices.traced(reduce_retracing=True)
    def _features(self, images):
        return self.recipe.image_features(to_floats(images))

    def image_features(self, images: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] of the largest scale -> what its discriminator makes of them, float32 [N, F].

        Raises UserError when that was imported without weights.
        """
        self.need([*self.recipe.discriminators][-1])
        return devices.rows_of(self._features, images)

    @tf.function(autograph=False)
    def _attend_pictures(self, pictures, captions):
        return self.recipe.attend({"images": (to_floats(pictures),), **self._read(captions)})

    def attend_pictures(self, pictures: np.ndarray, captions: list[str]) -> np.ndarray:
        """Where in its own picture each word of a caption looks: pictures uint8 [N,S,S,3] and captions [N] -> float32
        [N,T,h,w], sums of 1 over the places; behind the `tokens` of a caption it means nothing. One batch."""
        self.need("text_encoder", "image_encoder")
        return self._attend_pictures(pictures, tf.constant(captions)).numpy()
