"""The measurements of `t2i_tf.benchmark.step` on one screen."""

from __future__ import annotations

SHOWN_NAME = 68
"""Characters of an operation's name; its end says most."""


def lines(found: dict) -> list[str]:
    """A column for each set of flags."""
    machine, measured, peaks = found["machine"], found["measured"], found["convolution_peak"]
    rows = {title: [value(costs) for costs in measured] for title, value in _ROWS.items()}
    for kind in peaks:
        rows[f"  of the {kind} peak"] = [f"{costs['share_of_peak'][kind]:.1%}" for costs in measured]
    rows["peak memory, of both" if len(measured) > 1 else "peak memory"] = [_memory(measured[0])]
    rows["reading alone"] = [_reading(costs) for costs in measured]
    for batch in measured[0]["sampling"]:
        rows[f"sampling, {batch} at once"] = [_sampling(costs, batch) for costs in measured]
    titles, column = max(map(len, rows)), max(len(cells[0]) for cells in rows.values())
    shown = [f"{title:<{titles}}  " + "  ".join(f"{cell:<{column}}" for cell in cells) for title, cells in rows.items()]
    best = ", ".join(f"{kind} {_si(number)}FLOP/s" for kind, number in peaks.items())
    head = f"{machine['devices']} x {machine['device']}, {machine['cpu_threads']} CPU threads; convolutions: {best}"
    ratio = [f"step: second / first = {found['ratio']:.3f}"] if "ratio" in found else []
    return [head, *(line.rstrip() for line in shown), *ratio, *_profile(found.get("profile"))]


def _si(number: float) -> str:
    for power, letter in ((12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return f"{number:.3g} "


def _model(costs: dict) -> str:
    sizes = ", ".join(map(str, costs["image_sizes"]))
    return f"{costs['paper']}, batch {costs['batch_size']}, {sizes} pixels"


def _first(costs: dict) -> str:
    parts = (f"{name} {costs[f'{name}_seconds']:.1f}" for name in ("import", "build", "first_step"))
    return f"{costs['time_to_first_step_seconds']:.1f} s ({', '.join(parts).replace('first_step', 'step')})"


def _step(costs: dict) -> str:
    seconds = costs["step_seconds"]
    low, high = seconds["quartiles"]
    return f"{seconds['median']:.4g} s, quartiles {low:.4g} to {high:.4g}, of {len(seconds['all'])}"


def _whole(costs: dict) -> str:
    steps, hours = costs["steps"], costs["hours"]
    return "not known: give --data_dir or --steps" if steps is None else f"{steps:,} steps, {hours:.3g} hours"


def _flops(costs: dict) -> str:
    left_out = " (some not counted)" if costs["uncounted"] else ""
    return f"{_si(costs['flops_per_step'])}FLOP a step{left_out}, {_si(costs['flops_per_second'])}FLOP/s"


def _memory(costs: dict) -> str:
    return f"{costs['peak_memory_megabytes']:.0f} MB"


def _reading(costs: dict) -> str:
    read = costs["reading_images_per_second"]
    return "not measured: give --data_dir" if read is None else f"{read:.4g} images/s"


def _sampling(costs: dict, batch: str) -> str:
    if batch not in costs["sampling"]:
        return ""
    seen = costs["sampling"][batch]
    return f"p50 {seen['p50_ms']:.4g} ms, p99 {seen['p99_ms']:.4g} ms, {seen['rows_per_second']:.4g}/s"


_ROWS = {
    "flags": lambda costs: costs["flags"],
    "model": _model,
    "trained weights": lambda costs: f"{sum(costs['parameters'].values()):,}, fresh",
    "data": lambda costs: costs["data"],
    "time to first step": _first,
    "step": _step,
    "training": lambda costs: f"{costs['images_per_second']:.4g} images/s",
    "whole training": _whole,
    "arithmetic": _flops,
}


def _profile(found: dict | None) -> list[str]:
    if found is None:
        return []
    shown = [f"trace for TensorBoard: {found['trace']}"]
    for title, listed in (("kinds of operation", found["types"]), ("operations", found["names"])):
        shown.append(f"the most expensive {title}, ms a step and share of all:")
        shown += [f"  {op['milliseconds']:>9.2f}  {op['share']:>6.1%}  {op['name'][-SHOWN_NAME:]}" for op in listed]
    return shown
