"""Floating-point operations against numbers worked by hand."""

import tensorflow as tf

from t2i_tf.benchmark import operations


def count(function, *inputs, turns=1):
    traced = tf.function(function).get_concrete_function(*inputs)
    return dict(operations.count(traced.graph, turns))


def test_a_convolution_and_its_two_gradients():
    """Each of 2 x 8 x 8 x 5 numbers sums 3 x 3 x 3 products: 2 x 640 x 27 operations, and as many for each gradient."""
    kernel = tf.Variable(tf.zeros([3, 3, 3, 5]))

    def step(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = tf.reduce_sum(tf.square(tf.nn.conv2d(maps, kernel, 1, "SAME")))
        return tape.gradient(loss, [maps, kernel])

    assert count(step, tf.zeros([2, 8, 8, 3])) == {
        "Conv2D": 34560,
        "Conv2DBackpropInput": 34560,
        "Conv2DBackpropFilter": 34560,
    }


def test_a_gradient_that_nobody_asks_for_is_not_run_and_not_counted():
    kernel = tf.Variable(tf.zeros([3, 3, 3, 5]))

    def step(maps, of_kernel):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = tf.reduce_sum(tf.square(tf.nn.conv2d(maps, kernel, 1, "SAME")))
        return tape.gradient(loss, kernel if of_kernel else maps)

    for of_kernel, kind in ((True, "Conv2DBackpropFilter"), (False, "Conv2DBackpropInput")):
        found = count(lambda maps, of_kernel=of_kernel: step(maps, of_kernel), tf.zeros([2, 8, 8, 3]))
        assert found == {"Conv2D": 34560, kind: 34560}


def test_what_happens_beside_the_result_counts():
    seen = tf.Variable(tf.zeros([3, 3]))
    assert count(lambda x: seen.assign(tf.matmul(x, x)) is None, tf.zeros([3, 3])) == {"MatMul": 54}


def test_strides_leave_fewer_numbers_and_their_gradients():
    """4x4 and stride 2 on 8x8: 1 x 4 x 4 x 7 numbers of 4 x 4 x 2 products."""
    kernel = tf.Variable(tf.zeros([4, 4, 2, 7]))

    def step(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            made = tf.nn.conv2d(maps, kernel, 2, "SAME")
        return tape.gradient(made, [maps, kernel])

    assert set(count(step, tf.zeros([1, 8, 8, 2])).values()) == {2 * 112 * 32}


def test_a_transposed_convolution_is_the_gradient_of_one():
    """From [1,4,4,6] to [1,8,8,3] by 4x4: each of 96 numbers goes into 4 x 4 x 3."""
    found = count(
        lambda x: tf.nn.conv2d_transpose(x, tf.zeros([4, 4, 3, 6]), [1, 8, 8, 3], 2, "SAME"), tf.zeros([1, 4, 4, 6])
    )
    assert found == {"Conv2DBackpropInput": 2 * 96 * 48}


def test_depthwise_convolutions():
    found = count(
        lambda x: tf.nn.depthwise_conv2d(x, tf.zeros([3, 3, 5, 2]), [1, 1, 1, 1], "SAME"), tf.zeros([1, 4, 4, 5])
    )
    assert found == {"DepthwiseConv2dNative": 2 * (4 * 4 * 10) * 9}


def test_products_of_matrices_however_they_are_turned():
    a, b = tf.zeros([4, 7]), tf.zeros([7, 3])
    for first, second, turned in (
        (a, b, {}),
        (tf.transpose(a), b, {"transpose_a": True}),
        (a, tf.transpose(b), {"transpose_b": True}),
    ):
        assert count(lambda x, y, turned=turned: tf.matmul(x, y, **turned), first, second) == {"MatMul": 2 * 4 * 7 * 3}
    many = count(lambda x, y: tf.matmul(x, y, transpose_a=True), tf.zeros([5, 7, 4]), tf.zeros([5, 7, 3]))
    assert sum(many.values()) == 2 * 5 * 4 * 7 * 3


def test_einsum_goes_over_all_letters():
    found = count(lambda x, y: tf.einsum("bl,bld->bd", x, y), tf.zeros([2, 3]), tf.zeros([2, 3, 4]))
    assert found == {"Einsum": 2 * 2 * 3 * 4}


def test_the_dearer_branch_counts():
    def choose(x):
        return tf.cond(x[0, 0] > 0, lambda: tf.matmul(x, x), lambda: tf.matmul(tf.matmul(x, x), x))

    assert count(choose, tf.zeros([3, 3])) == {"MatMul": 2 * 2 * 27}


def test_calls_are_followed():
    inner = tf.function(lambda x: tf.matmul(x, x))
    assert count(lambda x: inner(inner(x)), tf.zeros([3, 3])) == {"MatMul": 2 * 2 * 27}


def test_loops_count_every_turn_and_their_gradients_too():
    weights = tf.Variable(tf.zeros([3, 3]))

    def step(rows):
        with tf.GradientTape() as tape:
            last = tf.scan(lambda state, row: tf.matmul(state, weights) + row, rows, tf.zeros([2, 3]))
        return tape.gradient(last, weights)

    # Forward one product a turn, backward two: of the state and of the weights.
    assert count(step, tf.zeros([6, 2, 3])) == {"MatMul": 3 * 6 * 2 * (2 * 3 * 3)}


def test_turns_that_follow_from_the_data_are_told():
    def step(rows, most):
        return tf.while_loop(lambda x: True, lambda x: (tf.matmul(x, x),), (rows,), maximum_iterations=most)

    assert count(step, tf.zeros([3, 3]), tf.constant(4), turns=5) == {"MatMul": 5 * 54}
    assert count(lambda rows: step(rows, 4), tf.zeros([3, 3]), turns=5) == {"MatMul": 4 * 54}
    assert count(lambda rows: step(rows, None), tf.zeros([3, 3]), turns=5) == {"MatMul": 54}


def test_what_has_no_shape_is_named():
    unknown = tf.TensorSpec([None, 3])
    assert count(lambda x: tf.matmul(x, tf.zeros([3, 2])), unknown) == {"uncounted MatMul": 1}
