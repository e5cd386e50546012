"""t2i-prepare: see `python tools/prepare_data.py --help`."""

import sys

from t2i_tf.cli import prepare

if __name__ == "__main__":
    sys.exit(prepare())
