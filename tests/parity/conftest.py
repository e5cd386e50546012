"""Results are compared to the last digits of float32, which a GPU would round to TF32."""

import pytest
import tensorflow as tf

from .arrays import ParityFile

tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture
def parity(request):
    """The file that `every_file` asks for."""
    return ParityFile(request.param)
