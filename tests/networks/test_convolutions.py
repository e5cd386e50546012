"""Every form of a convolution gives what the plain one gives, and its gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import convolutions, processor

RANDOM = np.random.RandomState(0)


def normal(*shape, dtype="float64"):
    return tf.constant(RANDOM.randn(*shape), dtype)


def plain_upsampled(maps, kernel):
    return tf.nn.conv2d(tf.repeat(tf.repeat(maps, 2, axis=1), 2, axis=2), kernel, 1, "SAME")


def same(form, plain, *inputs):
    """Outputs and the gradients of all inputs, eager and as a graph for any batch."""
    spec = [tf.TensorSpec([None, *x.shape[1:]] if i == 0 else x.shape, x.dtype) for i, x in enumerate(inputs)]

    def with_gradients(function, upstream=None):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
        upstream = normal(*y.shape, dtype=y.dtype) if upstream is None else upstream
        return [y, *tape.gradient(y, inputs, output_gradients=upstream)], upstream

    wanted, upstream = with_gradients(plain)
    for function in (form, tf.function(form, input_signature=spec)):
        found, _ = with_gradients(function, upstream)
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", [convolutions._upsampled_by_taps, convolutions._upsampled_by_folding])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 1, 3, 2), (1, 2, 2, 3), (3, 3, 5, 4), (2, 4, 4, 6), (1, 5, 4, 2), (2, 9, 16, 3)]
)
def test_upsampling_inside_a_convolution(form, shape):
    same(form, plain_upsampled, normal(*shape), normal(3, 3, shape[-1], 5))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 3, 2), (1, 2, 2, 3), (3, 3, 5, 4), (2, 4, 4, 6)])
def test_a_transposed_convolution_by_taps(shape):
    def plain(maps, kernel):
        _, height, width, _ = maps.shape
        return tf.nn.conv2d_transpose(maps, kernel, [tf.shape(maps)[0], 2 * height, 2 * width, 5], 2, "SAME")

    same(convolutions._transposed_by_taps, plain, normal(*shape), normal(4, 4, 5, shape[-1]))


@pytest.mark.parametrize("side, first", [(1, True), (2, False), (4, False), (8, False)])
def test_the_transposed_layer_is_that_of_keras(side, first):
    layer = convolutions.TransposedConvolution(5, first, dtype="float64")
    plain = keras.layers.Conv2DTranspose(
        5, 4, *((1, "valid") if first else (2, "same")), use_bias=False, dtype="float64"
    )
    maps = normal(2, side, side, 3)
    layer.build(maps.shape), plain.build(maps.shape)
    plain.kernel.assign(layer.kernel)
    found, wanted = layer(maps), plain(maps)
    assert layer.compute_output_shape(maps.shape) == found.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kernel, stride", [(4, 2), (3, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("side", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (8, 8)])
def test_a_product_of_patches(monkeypatch, kernel, stride, side):
    monkeypatch.setattr(processor, "on_cpu", lambda: True)
    monkeypatch.setattr(convolutions, "WEIGHTS_A_PLACE", 0)
    library = tf.nn.conv2d
    monkeypatch.setattr(tf.nn, "conv2d", None)  # so that only the product can be taken
    with tf.device("CPU:0"):
        same(
            lambda maps, kernel: convolutions._convolved(maps, kernel, stride),
            lambda maps, kernel: library(maps, kernel, stride, "SAME"),
            normal(2, *side, 3),
            normal(kernel, kernel, 3, 5),
        )


@pytest.mark.parametrize("batch, shape", [(1, (32, 32, 3)), (2, (32, 32, 3)), (1, (64, 33, 2)), (1, (33, 32, 3))])
def test_a_single_picture_is_drawn_as_its_halves(monkeypatch, batch, shape):
    monkeypatch.setattr(processor, "on_cpu", lambda: True)
    layer = convolutions.Convolution(5, 3, dtype="float64")
    layer.build((None, *shape))
    maps, offset = normal(batch, *shape), normal(5)

    def draw(convolved):
        return tf.sigmoid(convolved(tf.convert_to_tensor(layer.kernel)) + offset)

    wanted = tf.sigmoid(tf.nn.conv2d(maps, layer.kernel.value, 1, "SAME") + offset)
    for avx512 in (True, False):
        monkeypatch.setattr(processor, "has_avx512", lambda avx512=avx512: avx512)
        with tf.device("CPU:0"):
            traced = tf.function(lambda maps: layer.drawn(maps, draw))
            graph = traced.get_concrete_function(tf.TensorSpec([None, *shape], "float64")).graph
            chosen = any(operation.type in ("If", "StatelessIf") for operation in graph.get_operations())
            assert chosen == (not avx512 and shape[0] % 2 == 0), "a way of its own for a single picture"
            for found in (layer.drawn(maps, draw), traced(maps)):
                np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


def test_what_the_sizes_choose(monkeypatch):
    """Seen in the operations of the graph, with and without a GPU."""

    def operations(layer, *shape):
        layer.build((None, *shape))
        graph = tf.function(layer.call).get_concrete_function(tf.TensorSpec([None, *shape])).graph
        return {operation.type for operation in graph.get_operations()}

    large, small = (32, 32, 2), (8, 8, 2)
    for gpu in (False, True):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, gpu=gpu: ["GPU:0"] if gpu else [])
        few_places = operations(convolutions.Convolution(512, 4, 2), 8, 8, 256)
        assert ("ExtractImagePatches" in few_places, "Conv2D" in few_places) == (not gpu, gpu)
        assert "Conv2D" in operations(convolutions.Convolution(512, 4, 2), 16, 16, 256)
        assert "Conv2DBackpropInput" in operations(convolutions.UpsampledConvolution(3), *large)
        assert ("Conv2D" in operations(convolutions.UpsampledConvolution(3), *small)) == gpu
        for avx512 in (False, True):
            monkeypatch.setattr(processor, "has_avx512", lambda avx512=avx512: avx512)
            by_taps = "Conv2DBackpropInput" not in operations(convolutions.UpsampledConvolution(3), 16, 16, 2)
            assert by_taps == (not gpu and not avx512)
        assert ("Conv2DBackpropInput" in operations(convolutions.TransposedConvolution(3), 4, 4, 2)) == gpu
        assert "Conv2DBackpropInput" in operations(convolutions.TransposedConvolution(3), 8, 8, 2)
    assert "Conv2D" in operations(convolutions.Convolution(512, 4, 2), None, None, 256), "sizes known when it runs"


@pytest.mark.parametrize("side, channels", [(4, 16), (8, 8), (16, 8), (32, 4)])
def test_no_bit_hangs_on_knowing_the_batch(side, channels):
    """TensorFlow brings sums into another order once it knows their sizes; exports must equal the live run."""
    layer = convolutions.UpsampledConvolution(4)
    maps = normal(32, side, side, channels, dtype="float32")
    layer.build(maps.shape)
    of_any = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec([None, *maps.shape[1:]])])
    np.testing.assert_array_equal(of_any(maps), tf.function(lambda x: layer(x))(maps))


@pytest.mark.parametrize("side", [4, 16])
def test_layers_keep_weights_and_policy(side):
    layer = convolutions.UpsampledConvolution(6, dtype="mixed_bfloat16", name="conv")
    y = layer(normal(2, side, side, 4, dtype="float32"))
    assert y.dtype == tf.bfloat16
    assert y.shape == layer.compute_output_shape((2, side, side, 4)) == (2, 2 * side, 2 * side, 6)
    assert [(v.path, v.dtype, v.shape) for v in layer.weights] == [("conv/kernel", "float32", (3, 3, 4, 6))]


def test_doubling_repeats_rows_and_columns():
    for shape in [(1, 1, 1, 1), (2, 3, 5, 4)]:
        x = normal(*shape)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = convolutions.double_size(x)
        np.testing.assert_array_equal(y, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
        upstream = normal(*y.shape)
        wanted = np.reshape(upstream, (shape[0], shape[1], 2, shape[2], 2, shape[3])).sum(axis=(2, 4))
        np.testing.assert_allclose(tape.gradient(y, x, output_gradients=upstream), wanted, rtol=1e-9)
