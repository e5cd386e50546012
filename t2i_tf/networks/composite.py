"""Layers and networks that are made of layers."""

import keras


class _BuiltByCalling:
    def build(self, input_shape):
        """Nothing: its layers are built as it is first called.

        Keras would trace `call` once more to build it, at every level of layers within layers: AttnGAN's networks took
        twice as long to make.
        """


class Composite(_BuiltByCalling, keras.layers.Layer):
    """A layer of layers, without weights of its own."""


class Network(_BuiltByCalling, keras.Model):
    """A network of layers, without weights of its own."""
