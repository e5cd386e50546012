"""How costs grow: a step with the batch and the resolution, preparation and evaluation with the number of pictures.

    python experiments/cost_growth.py OUT [PART ...]

Steps are those of StackGAN++ at its published width; of every preset the first step, and how much faster its pictures
are read than trained on. Every measurement is a command in a process of its own, so that its peak memory is its own.
OUT gets growth.json and a plot of each part; what growth.json has is not measured again.
Needs matplotlib: pip install -e '.[plots]'.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLISHED = f"--flagfile={ROOT / 'flags' / 'stackgan_v2_cub.flags'}"
SMALL = f"--flagfile={ROOT / 'flags' / 'stackgan_v2_blossoms_unconditional.flags'}"
BATCHES = (1, 2, 4, 8, 16, 32)
SCALES = {64: 1, 128: 2, 256: 3}
"""Pixels -> scales of StackGAN++."""
BATCH_OF_RESOLUTIONS, SIZE_OF_BATCHES, BATCH_OF_PRESETS = 4, 128, 4
PREPARED = (500, 1000, 2000, 4000, 8000)
SCORED = (125, 250, 500, 1000)
REAL_PICTURES = 100
FLOWERS, STORED_SIZE = 1100, 304
"""How many are read, and the pixels of those that presets read, as pictures of CUB are stored."""
TIMED_STEPS = 5
LONGEST_WAIT, LEAST_READING = 60, 3
"""What is asked of a preset: seconds to its first step, and pictures read over pictures trained on."""


def run(verb, *flags):
    """Seconds of a command, and the largest memory of one of its processes."""
    line = [sys.executable, str(ROOT / "tools" / f"{verb}.py"), *map(str, flags)]
    began = time.monotonic()
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(line)}")
    return {"seconds": time.monotonic() - began, "megabytes": usage.ru_maxrss / 1024}


def step(out, *flags):
    """What t2i-benchmark says of a set of flags."""
    path = out / "figures.json"
    run("benchmark", *flags, f"--timed_steps={TIMED_STEPS}", "--sampling_batches=", "--seconds=0.5", f"--out={path}")
    (costs,) = json.loads(path.read_text())["measured"]
    return {
        "seconds": costs["step_seconds"]["median"],
        "megabytes": costs["peak_memory_megabytes"],
        "first_step_seconds": costs["time_to_first_step_seconds"],
        "images_per_second": costs["images_per_second"],
        "reading_images_per_second": costs["reading_images_per_second"],
    }


def batch(out, rows):
    return step(out, PUBLISHED, f"--batch_size={rows}", f"--num_scales={SCALES[SIZE_OF_BATCHES]}")


def resolution(out, size):
    return step(out, PUBLISHED, f"--batch_size={BATCH_OF_RESOLUTIONS}", f"--num_scales={SCALES[size]}")


def prepare(out, pictures):
    return run("prepare_data", "--source=blossoms", f"--num_images={pictures}", f"--data_dir={out}/drawn-{pictures}")


@functools.cache
def drawn(out):
    """The folder of 1,100 flowers of 64 pixels."""
    data = out / "blossoms-64"
    if not (data / "dataset.json").exists():
        run("prepare_data", "--source=blossoms", f"--num_images={FLOWERS}", "--image_size=64", f"--data_dir={data}")
    return data


@functools.cache
def large(out):
    """Flowers of 256 pixels, the largest that are drawn, prepared from a folder as photographs of 304."""
    from t2i_tf.data.sources import blossoms

    folder, data = out / "flowers", out / f"flowers-{STORED_SIZE}"
    if not (data / "dataset.json").exists():
        folder.mkdir(exist_ok=True)
        lines = []
        for place in range(FLOWERS):
            split = "test" if place % 11 == 0 else "train"
            flower, name = blossoms.example(0, split, place, 256), f"{place}.jpg"
            flower.image().save(folder / name, quality=95)
            lines.append({"image": name, "captions": flower.captions, "class": flower.class_name, "split": split})
        (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = (f"--image_size={STORED_SIZE}", f"--data_dir={data}")
        run("prepare_data", "--source=folder", f"--source_dir={folder}", *flags)
    return data


@functools.cache
def generator(out):
    """A small generator after two steps; real pictures have passed once and are remembered."""
    trained = out / "generator"
    run("train", SMALL, f"--data_dir={drawn(out)}", f"--run_dir={trained}", "--steps=2")
    score(trained, REAL_PICTURES)
    return trained


def score(trained, pictures):
    flags = ("--metrics=fid", "--extractor=random", f"--real_images={REAL_PICTURES}")
    return run("evaluate", f"--run_dir={trained}", *flags, f"--num_images={pictures}")


def evaluate(out, pictures):
    return score(generator(out), pictures)


def preset(out, name):
    """At the published width and a small batch."""
    flags = (f"--flagfile={ROOT / 'flags' / name}.flags", f"--batch_size={BATCH_OF_PRESETS}")
    return step(out, *flags, f"--data_dir={large(out)}")


PRESETS = sorted(path.stem for path in (ROOT / "flags").glob("*.flags") if "blossoms" not in path.stem)
PARTS = {
    "batch": (batch, BATCHES, f"pictures a batch, {SIZE_OF_BATCHES} pixels"),
    "resolution": (resolution, SCALES, f"pixels of the largest scale, batch {BATCH_OF_RESOLUTIONS}"),
    "prepare": (prepare, PREPARED, "drawn flowers prepared"),
    "evaluate": (evaluate, SCORED, "generated pictures scored"),
    "presets": (preset, PRESETS, ""),
}


def plot(part, found, path):
    from matplotlib import pyplot

    _, points, label = PARTS[part]
    names = [str(point) for point in points]
    if part == "presets":
        figure, both = pyplot.subplots(1, 2, figsize=(10, 0.25 * len(names) + 1), layout="constrained", sharey=True)
        first = [found[name]["first_step_seconds"] for name in names]
        reading = [found[name]["reading_images_per_second"] / found[name]["images_per_second"] for name in names]
        both[0].barh(names, first)
        both[0].axvline(LONGEST_WAIT, color="black", linestyle=":")
        both[0].set(xlabel="seconds from the command to the end of the first step")
        both[1].barh(names, reading)
        both[1].axvline(LEAST_READING, color="black", linestyle=":")
        both[1].set(xlabel=f"pictures read over pictures trained on, batch {BATCH_OF_PRESETS}", xscale="log")
    else:
        figure, both = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
        for axes, quantity in zip(both, ("seconds", "megabytes"), strict=True):
            values = [found[name][quantity] for name in names]
            axes.plot(list(points), values, marker="o")
            axes.set(xlabel=label, ylabel=quantity, xlim=(0, 1.05 * max(points)), ylim=(0, 1.1 * max(values)))
    figure.savefig(path, dpi=100)


def main(out, parts):
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "growth.json"
    growth = json.loads(kept.read_text()) if kept.exists() else {}
    for part in parts or PARTS:
        measure, points, _ = PARTS[part]
        found = growth.setdefault(part, {})
        for point in points:
            if str(point) not in found:
                found[str(point)] = measure(out, point)
                kept.write_text(json.dumps(growth, indent=2) + "\n")
                print(part, point, found[str(point)], flush=True)
        plot(part, found, out / f"{part}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path)
    help_of_parts = f"of {', '.join(PARTS)} (default: all)"
    parser.add_argument("parts", metavar="PART", nargs="*", choices=PARTS, help=help_of_parts)
    main(**vars(parser.parse_args()))
