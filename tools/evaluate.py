"""t2i-evaluate: see `python tools/evaluate.py --help`."""

import sys

from t2i_tf.cli import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
