"""t2i-benchmark: see `python tools/benchmark.py --help`."""

import sys

from t2i_tf.cli import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
