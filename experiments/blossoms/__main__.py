"""Reruns the small-scale version of each table of the papers on `blossoms`, and writes docs/results.md.

    python -m experiments.blossoms                             # about three hours alone on 2 CPU cores
    python -m experiments.blossoms --tables=variants,lambda    # some of them
    python -m experiments.blossoms --only_page                 # the page anew from the scores that there are
    python -m experiments.blossoms --smoke                     # does each command work? two steps each, in runs/smoke

It drives t2i-prepare, t2i-train, t2i-evaluate and t2i-sample. What is done is not done again: a run at its last step, a
score in its scores.jsonl. So the same command goes on where it was stopped, and finished run folders are taken over
when they lie at OUT/<table>/<name>. METEOR and the Penn Treebank tokens need Java and `.[captions]`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from experiments.blossoms.jobs import Workshop, call, run_all
from experiments.blossoms.page import Page
from experiments.blossoms.tables import TABLES

SMOKE = {"most_steps": 2, "most_images": 120, "most_data": 6600}
"""Enough that R-precision finds 100 other captions, and the classifier has pictures of each class to hold out."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.blossoms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", default=",".join(TABLES), help="which to run, with commas between [%(default)s]")
    parser.add_argument("--out", type=Path, help="folder of data and runs [runs/results]")
    parser.add_argument("--page", type=Path, help="page to write [docs/results.md]")
    parser.add_argument("--only_page", action="store_true", help="run nothing")
    parser.add_argument("--smoke", action="store_true", help="two steps of everything: does each command work?")
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores", help="for the page [%(default)s]")
    options = parser.parse_args(argv)
    names = options.tables.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"--tables={unknown[0]}: must be one of {', '.join(TABLES)}")
    tables = [TABLES[name] for name in TABLES if name in names]
    out = options.out or Path("runs/smoke" if options.smoke else "runs/results")
    path = options.page or (out if options.smoke else Path("docs")) / "results.md"
    workshop = Workshop(out, **(SMOKE if options.smoke else {}))
    status = 0
    if not options.only_page:
        try:
            status = run_all(workshop.jobs(tables), call, lambda line: print(line, flush=True))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here")
            return 130
    if status == 0:
        Page(workshop, path, options.machine).write(list(TABLES.values()))
        print(f"written: {path}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
