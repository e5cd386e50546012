"""Results are compared to the last digits of float32, which a GPU would round to TF32."""

import tensorflow as tf

tf.config.experimental.enable_tensor_float_32_execution(False)
