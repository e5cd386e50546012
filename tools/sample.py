"""t2i-sample: see `python tools/sample.py --help`."""

import sys

from t2i_tf.cli import sample

if __name__ == "__main__":
    sys.exit(sample())
