import pytest
import tensorflow as tf

from t2i_tf.benchmark import profile


def made_trace(plane_name, line_name, events, stats=()):
    """events: (title, start, length) in picoseconds; stats: of each event the operation that it tells, or None."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name=plane_name)
    plane.stat_metadata[1].name = "tf_op"
    line = plane.lines.add(name=line_name)
    for number, (title, start, length) in enumerate(events, 1):
        plane.event_metadata[number].name = title
        event = line.events.add(metadata_id=number, offset_ps=start, duration_ps=length)
        if stats and stats[number - 1]:
            plane.stat_metadata[number + 1].name = stats[number - 1]
            event.stats.add(metadata_id=1, ref_value=number + 1)
    return space.SerializeToString()


def picoseconds(times):
    return {name: round(seconds * 1e12) for name, seconds in times.items()}


def test_what_ran_inside_is_taken_off_and_what_is_no_operation_left_out():
    events = [
        ("ExecutorState::Process", 0, 1000),
        ("EagerLocalExecute: __inference_f_1", 0, 900),
        ("StatefulPartitionedCall/a/while:While", 100, 500),
        ("a/MatMul:MatMul", 150, 100),
        ("b/MatMul:MatMul", 300, 50),
        ("a/MatMul:MatMul", 700, 10),
    ]
    types, names = profile.operation_times(made_trace("/host:CPU", "tf_Compute/1", events))
    assert picoseconds(types) == {"While": 350, "MatMul": 160}
    assert picoseconds(names) == {"a/while": 350, "a/MatMul": 110, "b/MatMul": 50}


def test_kernels_of_a_gpu_stand_for_their_operation_or_for_themselves():
    events = [("volta_sgemm", 0, 30), ("winograd", 30, 20), ("Memset", 60, 5)]
    trace = made_trace("/device:GPU:0", "Stream #7", events, ["a/MatMul:MatMul", "b/Conv2D:Conv2D", None])
    types, names = profile.operation_times(trace)
    assert picoseconds(types) == {"MatMul": 30, "Conv2D": 20, "Memset": 5}
    assert picoseconds(names) == {"a/MatMul": 30, "b/Conv2D": 20, "Memset": 5}


def test_a_real_step_is_traced(tmp_path):
    maps, kernel = tf.random.normal([1, 32, 32, 16]), tf.random.normal([3, 3, 16, 16])
    step = tf.function(lambda: tf.reduce_sum(tf.nn.conv2d(maps, kernel, 1, "SAME", name="the_convolution")))
    step()
    found = profile.trace(lambda: step().numpy(), tmp_path)
    assert found["trace"].startswith(str(tmp_path / "plugins" / "profile")) and len(found["types"]) <= profile.SHOWN
    assert any("Conv2D" in listed["name"] for listed in found["types"])
    assert any("the_convolution" in listed["name"] for listed in found["names"])
    assert sum(listed["share"] for listed in found["types"]) == pytest.approx(1.0)
