"""t2i_tf: the classic caption-to-image models in TensorFlow/Keras. Importing it loads nothing heavy."""

__version__ = "0.1.0"
