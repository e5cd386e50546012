"""Convolutions whose kernels get their gradient in another form give what those of the library give."""

import pytest
import tensorflow as tf

from t2i_tf.networks import kernel_gradients, processor
from t2i_tf.networks.kernel_gradients import by_lines, by_patches, convolve, convolve_transposed
from tests.networks.test_convolutions import normal, same

LIBRARY = tf.nn.conv2d, tf.nn.conv2d_transpose
LINES, PATCHES = "Slice", "ExtractImagePatches"
"""Operations that tell a form."""


@pytest.fixture
def chosen(monkeypatch):
    """Makes this form the one that is chosen, whatever the sizes."""
    monkeypatch.setattr(processor, "was_measured", lambda maps: True)
    return lambda form: monkeypatch.setattr(kernel_gradients, "_quick", lambda *shapes: form)


def without_avx512(monkeypatch, avx512=False, gpu=False):
    monkeypatch.setattr(processor, "has_avx512", lambda: avx512)
    monkeypatch.setattr(processor, "on_cpu", lambda: not gpu)


def operations(function, *shapes, dtype="float32"):
    """Types of the operations that function and its gradients are made of."""

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype) for shape in shapes])
    def gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
        return tape.gradient(y, inputs)

    return {operation.type for operation in gradients.get_concrete_function().graph.get_operations()}


BOTH_EVEN, ANY = [(2, 2), (4, 4), (6, 10), (8, 2)], [(1, 1), (5, 3), (7, 1), (8, 8)]
CASES = [
    *((by_lines, 4, 2, sides) for sides in BOTH_EVEN),
    *((by_lines, 3, 1, sides) for sides in BOTH_EVEN + ANY),
    *((by_patches, kernel, stride, sides) for kernel, stride in [(3, 1), (3, 2), (4, 2), (5, 1)] for sides in ANY),
]


@pytest.mark.parametrize("form, kernel, stride, sides", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_and_its_gradients(chosen, form, kernel, stride, sides, batch):
    chosen(form)
    same(
        lambda maps, weights: convolve(maps, weights, stride),
        lambda maps, weights: LIBRARY[0](maps, weights, stride, "SAME"),
        normal(batch, *sides, 3),
        normal(kernel, kernel, 3, 5),
    )


@pytest.mark.parametrize("form", [by_lines, by_patches])
@pytest.mark.parametrize("batch, height, width", [(1, 1, 1), (2, 2, 2), (3, 5, 3), (1, 4, 7)])
def test_a_transposed_convolution_and_its_gradients(chosen, form, batch, height, width):
    chosen(form)
    same(
        convolve_transposed,
        lambda maps, weights: LIBRARY[1](maps, weights, [tf.shape(maps)[0], 2 * height, 2 * width, 5], 2, "SAME"),
        normal(batch, height, width, 3),
        normal(4, 4, 5, 3),
    )


@pytest.mark.parametrize(
    "side, kernel, stride, form",
    [
        (32, (3, 3, 32, 32), 1, LINES),
        (31, (3, 3, 32, 32), 1, None),
        (32, (3, 3, 3, 64), 1, None),
        (32, (3, 3, 64, 3), 1, None),
        (128, (3, 3, 32, 32), 2, None),
        (128, (4, 4, 32, 64), 2, LINES),
        (64, (4, 4, 32, 64), 2, None),
        (129, (4, 4, 32, 64), 2, None),
        (8, (3, 3, 32, 512), 1, PATCHES),
        (8, (1, 1, 32, 512), 1, None),
        (16, (4, 4, 32, 512), 2, PATCHES),
        (16, (4, 4, 32, 256), 2, None),
    ],
)
def test_what_the_sizes_choose(monkeypatch, side, kernel, stride, form):
    for avx512, gpu in ((False, False), (True, False), (False, True)):
        without_avx512(monkeypatch, avx512, gpu)
        found = operations(lambda x, k: convolve(x, k, stride), (None, side, side, kernel[2]), kernel)
        wanted = None if avx512 or gpu else form
        assert ("Conv2DBackpropFilter" in found) == (wanted is None)
        assert {LINES, PATCHES} & found == {wanted} - {None}


def test_what_the_sizes_choose_of_transposed_ones(monkeypatch):
    without_avx512(monkeypatch)
    for side, kernel, form in (
        (64, (4, 4, 32, 64), LINES),
        (32, (4, 4, 32, 64), None),
        (8, (4, 4, 32, 512), PATCHES),
        (64, (4, 4, 3, 64), None),
    ):
        found = operations(convolve_transposed, (None, side, side, kernel[3]), kernel)
        assert {LINES, PATCHES} & found == {form} - {None}


def test_half_precision_and_unknown_sides_are_the_librarys(monkeypatch):
    without_avx512(monkeypatch)
    kernel = (3, 3, 32, 512)
    assert "Conv2DBackpropFilter" in operations(lambda x, k: convolve(x, k, 1), (2, None, None, 32), kernel)
    assert "Conv2DBackpropFilter" in operations(lambda x, k: convolve(x, k, 1), (2, 8, 8, 32), kernel, dtype="bfloat16")
