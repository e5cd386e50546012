"""t2i-train: see `python tools/train.py --help`."""

import sys

from t2i_tf.cli import train

if __name__ == "__main__":
    sys.exit(train())
