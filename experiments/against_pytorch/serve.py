"""The loop of both sides: a line that asks for a step or for so many pictures -> a line of the seconds it took."""

import sys


def serve(step, sample):
    """step() and sample(count) -> seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        asked = line.strip()
        print(step() if asked == "step" else sample(int(asked)), flush=True)
