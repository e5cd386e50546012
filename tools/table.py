"""t2i-table: see `python tools/table.py --help`."""

import sys

from t2i_tf.cli import table

if __name__ == "__main__":
    sys.exit(table())
