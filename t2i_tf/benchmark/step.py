"""What a preset costs: its first step, its steps, their arithmetic, memory, reading and sampling; or two in turn."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from pathlib import Path

import keras
import tensorflow as tf

from t2i_tf.benchmark import clock, operations, peak, profile, reading, sampling
from t2i_tf.benchmark.subject import Subject
from t2i_tf.config import BenchmarkConfig
from t2i_tf.errors import UserError
from t2i_tf.training.callbacks import peak_memory_megabytes
from t2i_tf.training.dry_run import count_values

WARM_UP = 1
"""Steps after the first that are not timed."""


def measure(options: BenchmarkConfig, given: dict, beside: tuple[BenchmarkConfig, dict] | None) -> dict:
    """Everything that is measured of a preset, and of a second one beside it.

    Returns "machine", "convolution_peak" (type -> FLOP/s), "measured", a dict for each set of flags (see `_costs`),
        with a second one "ratio", the second's median step over the first's, and maybe "profile".

    Raises UserError for settings or data that do not fit, and when memory is short.
    """
    imports = clock.process_seconds()
    try:
        subjects, found = [], []
        for flags, settings in [("as given", (options, given)), *([(options.compare, beside)] if beside else [])]:
            if subjects:
                _check_room(subjects[0])
            subjects.append(Subject(*settings))
            found.append({"flags": flags, **_start(subjects[-1], imports)})
        return _measured(options, subjects, found)
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"memory is short ({error.message.splitlines()[0]}): give a smaller --batch_size") from None


def _start(subject: Subject, imports: float) -> dict:
    """Takes the first step."""
    began = time.perf_counter()
    subject.step()
    first = time.perf_counter() - began
    hyperparameters, recipe = subject.hyperparameters, subject.recipe
    return {
        "paper": subject.options.paper,
        "data": subject.data,
        "batch_size": hyperparameters.batch_size,
        "image_sizes": list(subject.request.image_sizes),
        "parameters": {name: count_values(network.trainable_variables) for name, network in recipe.networks.items()},
        "time_to_first_step_seconds": imports + subject.build_seconds + first,
        "import_seconds": imports,
        "build_seconds": subject.build_seconds,
        "first_step_seconds": first,
    }


def _check_room(first: Subject) -> None:
    """A second set of flags, as large as the first, must fit beside it. Only where all memory is the host's."""
    if tf.config.list_physical_devices("GPU"):
        return

    def kilobytes(path, name):
        return int(next(line for line in Path(path).read_text().splitlines() if line.startswith(name)).split()[1])

    kept = 4 * sum(count_values(network.variables) for network in first.recipe.networks.values())
    kept += 4 * sum(count_values(optimizer.variables) for optimizer in first.trainer.optimizers.values())
    resident = kilobytes("/proc/self/status", "VmRSS:") / 1024  # what a step freed is there for the next
    free = kilobytes("/proc/meminfo", "MemAvailable:") / 1024 + resident - kept / 2**20
    if free < peak_memory_megabytes():
        raise UserError(
            f"--compare: the first set of flags took {peak_memory_megabytes():.0f} MB, and {free:.0f} MB are there for "
            "the second beside it: measure each in a process of its own"
        )


def _measured(options: BenchmarkConfig, subjects: list[Subject], found: list[dict]) -> dict:
    for subject in subjects:
        for _ in range(WARM_UP):
            subject.step()
    times = clock.alternate([subject.step for subject in subjects], options.timed_steps)
    memory = peak_memory_megabytes()
    rates = [reading.speed(subject, options.seconds) if subject.split else None for subject in subjects]
    drawn = [sampling.speed(subject, options.sampling_batches, options.seconds) for subject in subjects]
    best = peak.convolution_peak(options.seconds)
    for subject, costs, seconds, read, drew in zip(subjects, found, times, rates, drawn, strict=True):
        costs |= _costs(subject, seconds, best)
        costs |= {"peak_memory_megabytes": memory, "reading_images_per_second": read, "sampling": drew}
    result = {"machine": machine(), "convolution_peak": best, "measured": found}
    if len(times) > 1:
        result["ratio"] = statistics.median(times[1]) / statistics.median(times[0])
    if options.profile:
        result["profile"] = profile.trace(subjects[0].step, options.profile)
    return result


def _costs(subject: Subject, seconds: list[float], best: dict[str, float]) -> dict:
    """Of the timed steps: their seconds, images a second, hours of the whole training, FLOPs of a step of all devices,
    and FLOP/s as a share of what so many devices would do at the peak of each type. "uncounted" are operations whose
    arithmetic is not in the sum."""
    counted = operations.count(subject.graph, subject.longest_caption)
    uncounted = {name: number for name, number in counted.items() if name.startswith("uncounted")}
    counted = Counter({name: number for name, number in counted.items() if name not in uncounted})
    median = statistics.median(seconds)
    achieved = counted.total() / median
    return {
        "step_seconds": clock.spread(seconds),
        "images_per_second": subject.batch_size / median,
        "steps": subject.steps,
        "hours": None if subject.steps is None else subject.steps * median / 3600,
        "flops_per_step": counted.total(),
        "flops_by_operation": dict(counted),
        "uncounted": uncounted,
        "flops_per_second": achieved,
        "share_of_peak": {kind: achieved / (subject.replicas * number) for kind, number in best.items()},
    }


def machine() -> dict:
    """The devices and the programs that were measured."""
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    details = tf.config.experimental.get_device_details(devices[0])
    return {
        "device": details.get("device_name", devices[0].device_type),
        "devices": len(devices),
        "cpu_threads": len(os.sched_getaffinity(0)),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
