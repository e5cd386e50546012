"""t2i-export: see `python tools/export.py --help`."""

import sys

from t2i_tf.cli import export

if __name__ == "__main__":
    sys.exit(export())
