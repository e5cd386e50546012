"""The papers' tables at small scale, on `blossoms`: see `python -m experiments.blossoms --help`."""
