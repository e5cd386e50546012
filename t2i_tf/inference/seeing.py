"""What a run sees in pictures: vectors, features, classes, words."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.inference.batches import to_floats


class SeesPictures:
    """The part of a `Run` that judges pictures: encoders, discriminators, classifiers."""

    @tf.function
    def _encode_pictures(self, pictures):
        return self.recipe.encode_pictures(pictures)

    def encode_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [B,S,S,3] -> their vectors float32 [B, embedding_dim], to compare with those of captions.

        One batch of the network: the caller cuts large sets into batches of one size.
        """
        return self._encode_pictures(pictures).numpy()

    @tf.function
    def _classify(self, pictures):
        return self.recipe.classify(to_floats(pictures))

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [B,S,S,3] -> features float32 [B,F] and logits [B,C] of a classifier; one batch of it."""
        features, logits = self._classify(pictures)
        return features.numpy(), logits.numpy()

    @tf.function
    def _tell_words(self, pictures):
        return self.recipe.tell_words(to_floats(pictures))

    def tell_words(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [B,S,S,3] -> float32 [B,V], how likely each word of `vocabulary` is said of them, as logits in
        its order; one batch of the network."""
        return self._tell_words(pictures).numpy()[:, 1:]

    @tf.function
    def _features(self, images):
        return self.recipe.image_features(to_floats(images))

    def image_features(self, images: np.ndarray) -> np.ndarray:
        """Pictures uint8 [B,S,S,3] of the largest scale -> what its discriminator makes of them, float32 [B, F].

        One batch of the network: the caller cuts large sets into batches of one size.
        """
        return self._features(images).numpy()

    @tf.function
    def _attend_pictures(self, pictures, captions):
        return self.recipe.attend({"images": (to_floats(pictures),), **self._read(captions)})

    def attend_pictures(self, pictures: np.ndarray, captions: list[str]) -> np.ndarray:
        """Where in its own picture each word of a caption looks: pictures uint8 [N,S,S,3] and captions [N] -> float32
        [N,T,h,w], sums of 1 over the places; behind the `tokens` of a caption it means nothing. One batch."""
        return self._attend_pictures(pictures, tf.constant(captions)).numpy()
