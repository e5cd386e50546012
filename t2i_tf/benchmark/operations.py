"""Floating-point operations of a step, counted in its traced graph.

Counted are convolutions and products of matrices, forward and backward, two operations (a product and a sum) for every
multiplication of their definition, padding included, whatever algorithm computes them. Everything else (norms,
activations, optimizers) is left out, as is usual: it is bound by memory, not by arithmetic.
"""

from __future__ import annotations

import math
from collections import Counter

import tensorflow as tf


def _elements(tensor) -> int:
    return math.prod(tensor.shape.as_list())


def _convolution(op) -> int:
    """Every number of the output sums over the filter [h,w,in,out] of all but its own output channel."""
    return _elements(op.outputs[0]) * math.prod(op.inputs[1].shape.as_list()[:3])


def _convolution_input_gradient(op) -> int:
    """Inputs: sizes, filter, gradient of the output. As many products as forward."""
    return _elements(op.inputs[2]) * math.prod(op.inputs[1].shape.as_list()[:3])


def _convolution_filter_gradient(op) -> int:
    """Inputs: pictures, sizes, gradient of the output. As many products as forward."""
    return _elements(op.inputs[2]) * math.prod(op.outputs[0].shape.as_list()[:3])


def _depthwise_convolution(op) -> int:
    return _elements(op.outputs[0]) * math.prod(op.inputs[1].shape.as_list()[:2])


def _matrix_product(op) -> int:
    """Every number of the product sums over the inner side."""
    transposed = any(op.get_attr(name) for name in ("transpose_a", "adj_x") if name in op.node_def.attr)
    return _elements(op.outputs[0]) * op.inputs[0].shape.as_list()[-2 if transposed else -1]


def _einsum(op) -> int:
    """Over all letters of the equation."""
    equation = op.get_attr("equation").decode()
    if "." in equation:
        raise ValueError(f"einsum {equation}")
    sides = {}
    for letters, tensor in zip(equation.split("->")[0].split(","), op.inputs, strict=True):
        sides |= dict(zip(letters, tensor.shape.as_list(), strict=True))
    return math.prod(sides.values())


COUNTED = {
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _convolution_input_gradient,
    "Conv2DBackpropFilter": _convolution_filter_gradient,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
LOOPS = ("While", "StatelessWhile")
CHOICES = ("If", "StatelessIf")


def _needed(graph: tf.Graph) -> set:
    """Operations that a pass runs: those that its results, or what must happen beside them, depend on.

    Tracing leaves more: the gradient of a convolution always has both parts, though one of them is never asked for.
    """
    pending, found = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs], set()
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return found


def count(graph: tf.Graph, turns: int = 1) -> Counter:
    """Name of each kind of operation in COUNTED -> its floating-point operations in one pass of the graph.

    Calls are followed; of a choice the dearer branch counts; a loop counts as often as it may turn at most.

    Args:
        graph: of a traced function, a FuncGraph; its shapes must be known.
        turns: of a loop whose number of turns follows from the data, such as one over the words of a caption.

    An operation whose shape is unknown is counted as 0 and named: "uncounted Conv2D" -> how many there are.
    """
    found: Counter = Counter()

    def inner(op, name) -> Counter:
        return count(graph._get_function(op.get_attr(name).name).graph, turns)  # there is no public way in

    for op in _needed(graph):
        if op.type in CALLS:
            found += inner(op, "f")
        elif op.type in CHOICES:
            found += max((inner(op, name) for name in ("then_branch", "else_branch")), key=Counter.total)
        elif op.type in LOOPS:
            # Input 1 of a loop that Python made is the most turns it may take, -1 where none was named.
            most = tf.get_static_value(op.inputs[1])
            most = turns if most is None or most.shape else 1 if most < 0 else int(most)
            found += Counter({name: most * number for name, number in inner(op, "body").items()})
        elif op.type in COUNTED:
            try:
                found[op.type] += 2 * COUNTED[op.type](op)
            except (TypeError, ValueError):  # a side that is not known
                found[f"uncounted {op.type}"] += 1
    return found
