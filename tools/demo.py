"""t2i-demo: see `python tools/demo.py --help`."""

import sys

from t2i_tf.cli import demo

if __name__ == "__main__":
    sys.exit(demo())
