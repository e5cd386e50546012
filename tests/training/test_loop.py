"""The loop's own checks; what it trains is tested end to end."""

from __future__ import annotations

import pytest

from t2i_tf.errors import UserError
from t2i_tf.training import loop


@pytest.mark.parametrize("batch_size, replicas", [(7, 1), (64, 1), (8, 2), (64, 4)])
def test_batches_that_divide(batch_size, replicas):
    loop.check_batch(batch_size, replicas)


@pytest.mark.parametrize("batch_size, replicas, multiple", [(7, 2, 4), (6, 2, 4), (20, 8, 16)])
def test_batches_that_do_not_divide_name_what_does(batch_size, replicas, multiple):
    with pytest.raises(UserError, match=f"--batch_size={batch_size} .* multiple of {multiple}"):
        loop.check_batch(batch_size, replicas)


def test_unknown_device_names_the_known_ones():
    with pytest.raises(UserError, match="no GPU:7; this machine has .*CPU:0"):
        loop.strategy("GPU:7")
