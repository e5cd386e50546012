"""t2i-human-rank: see `python tools/human_rank.py --help`."""

import sys

from t2i_tf.cli import human_rank

if __name__ == "__main__":
    sys.exit(human_rank())
