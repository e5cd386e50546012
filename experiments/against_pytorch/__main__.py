"""Our training steps and sampling against PyTorch, alternately in one run, on the same machine with the same threads.

    python -m experiments.against_pytorch attngan --code=AttnGAN/code --torch_python=TORCH/bin/python
    python -m experiments.against_pytorch stackgan_v2 --code=StackGAN-v2/code --torch_python=TORCH/bin/python
    python -m experiments.against_pytorch gan_int_cls --torch_python=TORCH/bin/python
    python -m experiments.against_pytorch show_attend_tell --torch_python=TORCH/bin/python

AttnGAN and StackGAN++ are the authors' networks and losses, from a clone of their repository (CODE is its folder
`code`); TORCH is an environment with torch, torchvision and easydict. GAN-INT-CLS was published for Torch7 and Show,
Attend and Tell for Theano: these race with plain PyTorch models of the same layers (plain.py). All are of published
width, with random weights and data; text encoders take part in steps, not in sampling, and of the captioner steps alone
are timed, since random weights end captions anywhere. Each side is a process of its own, which waits while the other
computes. Leave the machine alone meanwhile. Both sides take a GPU where there is one, in their own defaults: of
float32, TensorFlow rounds to TF32 in convolutions and products there, PyTorch in convolutions alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PUBLISHED = ("attngan", "stackgan_v2")
BATCHES = {"attngan": 4, "stackgan_v2": 4, "gan_int_cls": 64, "show_attend_tell": 64}
ROUNDS = {"step": 3, "1": 10, "8": 4}
"""What is asked for -> how often in each round."""


def start(*command):
    """A process that answers what it is asked for with seconds."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:  # the authors' code has things to say before
        if line.strip() == "ready":
            return process
    sys.exit(f"failed: {' '.join(command)}")


def ask(process, what):
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.against_pytorch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paper", choices=(*PUBLISHED, "gan_int_cls", "show_attend_tell"))
    parser.add_argument("--code", help="the folder `code` of the authors' repository")
    parser.add_argument("--torch_python", required=True, help="Python of an environment with torch")
    parser.add_argument("--batch_size", type=int, help="rows of a step (default: 4, or 64 of papers without code)")
    parser.add_argument("--precision", default="float32", help="of our side, as of t2i-train")
    parser.add_argument("--jit", default="attention", choices=("attention", "step"), help="of our side")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--measured", nargs="+", choices=ROUNDS, help="step, or pictures drawn at once (default: all)")
    options = parser.parse_args(argv)
    if (options.code is None) == (options.paper in PUBLISHED):
        parser.error(f"--code: {'needed for' if options.code is None else 'there is none of'} {options.paper}")
    rows = str(options.batch_size or BATCHES[options.paper])
    theirs = ["published.py", options.paper, options.code] if options.code else ["plain.py", options.paper]
    sides = {
        "PyTorch": start(options.torch_python, str(HERE / theirs[0]), *theirs[1:], rows),
        "ours": start(sys.executable, str(HERE / "ours.py"), options.paper, rows, options.precision, options.jit),
    }
    measured = options.measured or (["step"] if options.paper == "show_attend_tell" else [*ROUNDS])
    rounds = {what: ROUNDS[what] for what in measured}
    for process in sides.values():  # compilation, and the library's own trials
        for what in rounds:
            for _ in range(3):
                ask(process, what)
    times = {}
    for _ in range(options.rounds):
        for what, count in rounds.items():
            for side, process in sides.items():
                times.setdefault((side, what), []).extend(ask(process, what) for _ in range(count))
    for what in rounds:
        told = {side: (statistics.median(times[side, what]), min(times[side, what])) for side in sides}
        ratios = [one / other for one, other in zip(told["PyTorch"], told["ours"], strict=True)]
        figures = [f"{side} {1e3 * median:.1f} ms (least {1e3 * least:.1f})" for side, (median, least) in told.items()]
        name = "step" if what == "step" else f"sampling, {what} at once"
        print(f"{options.paper} {name}: {', '.join(figures)}; ratio {ratios[0]:.2f} (of the least {ratios[1]:.2f})")
    for process in sides.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
