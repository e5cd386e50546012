"""t2i-import-weights: see `python tools/import_weights.py --help`."""

import sys

from t2i_tf.cli import import_weights

if __name__ == "__main__":
    sys.exit(import_weights())
