"""Where the time of a step goes: a trace for TensorBoard, and its most expensive operations.

TensorBoard shows the trace with its profile plugin (`pip install tensorboard-plugin-profile`); what is named here is
read from the same file and needs nothing more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

OPERATION = re.compile(r"(?:StatefulPartitionedCall/)*([^\s:]+):(\w+)")
"""How an operation is titled: its name in the graph, and its kind."""
SHOWN = 10
TRACED_STEPS = 3


def trace(step: Callable[[], object], folder: str | Path) -> dict:
    """Traces TRACED_STEPS steps into folder/plugins/profile, and reads which operations took longest.

    Returns "trace", the file; "types" and "names", the SHOWN most expensive kinds of operation and single ones: dicts
        of "name", "milliseconds" a step and "share" of the time of all operations. Operations run side by side, so
        that their milliseconds may sum to more than a step takes.
    """
    tf.profiler.experimental.start(str(folder))
    try:
        for number in range(TRACED_STEPS):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                step()
    finally:
        tf.profiler.experimental.stop()
    path = max(Path(folder).glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    types, names = operation_times(path.read_bytes())

    def dearest(times: Counter) -> list[dict]:
        total = times.total()
        return [
            {"name": name, "milliseconds": 1e3 * seconds / TRACED_STEPS, "share": seconds / total}
            for name, seconds in times.most_common(SHOWN)
        ]

    return {"trace": str(path), "types": dearest(types), "names": dearest(names)}


def operation_times(trace_bytes: bytes) -> tuple[Counter, Counter]:
    """A trace (XSpace) -> seconds of each kind of operation, and of each single one, less what ran inside of it.

    On GPUs those of the kernels that an operation started, else those of the threads of the host.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # TensorFlow has no public door to it

    space = xplane_pb2.XSpace.FromString(trace_bytes)
    devices = [plane for plane in space.planes if plane.name.startswith("/device:GPU")]
    types: Counter = Counter()
    names: Counter = Counter()
    for plane in devices or [plane for plane in space.planes if plane.name.startswith("/host:CPU")]:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):
                continue
            for (name, kind), seconds in _own_times(_operations(plane, line, bool(devices))):
                types[kind] += seconds
                names[name] += seconds
    return types, names


def _operations(plane, line, on_device: bool) -> Iterator[tuple[int, int, tuple[str, str]]]:
    """(start, end, (name, kind)) of the events of a thread or stream that are operations, in picoseconds.

    The host also notes what is none. A kernel tells its operation, or stands for itself.
    """
    for event in line.events:
        title = plane.event_metadata[event.metadata_id].name
        if on_device:
            told = [stat for stat in event.stats if plane.stat_metadata[stat.metadata_id].name == "tf_op"]
            title = (told[0].str_value or plane.stat_metadata[told[0].ref_value].name) if told else title
        named = OPERATION.fullmatch(title)
        if named or on_device:
            yield event.offset_ps, event.offset_ps + event.duration_ps, named.groups() if named else (title, title)


def _own_times(events: Iterator[tuple[int, int, tuple]]) -> Iterator[tuple[tuple, float]]:
    """Seconds of each event without those of the events inside of it."""
    surrounding: list[list] = []  # [end, what, own picoseconds], each inside the one before
    over = []
    for start, end, what in sorted(events, key=lambda event: (event[0], -event[1])):
        while surrounding and surrounding[-1][0] <= start:
            over.append(surrounding.pop())
        if surrounding:
            surrounding[-1][2] -= end - start
        surrounding.append([end, what, end - start])
    return ((what, own * 1e-12) for _, what, own in over + surrounding)
