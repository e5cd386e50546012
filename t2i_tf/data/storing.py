"""Examples of a source -> pictures as they are stored, by one process or many; the order stays."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from t2i_tf.data.images import BadImage, StorageRules, StoredImage, start_worker, store, store_all
from t2i_tf.data.sources import Example
from t2i_tf.errors import UserError

_CHUNK = 16  # pictures sent to a worker at once

Stored = Iterator[tuple[Example, StoredImage | BadImage]]


@contextmanager
def storing(rules: StorageRules, count: int | None, pictures: int) -> Iterator[Callable[[Iterator[Example]], Stored]]:
    """`store` for the examples of an iterator, in order, by processes for so many pictures: one a core unless `count`
    says how many, none where one would do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(count or cores, -(-pictures // _CHUNK))
    if count <= 1:
        yield lambda examples: ((example, store(example.image, example.box, rules)) for example in examples)
        return
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=start_worker)
    try:
        yield lambda examples: _in_processes(examples, rules, executor, ahead=4 * count)
    except BrokenProcessPool:
        raise UserError("a worker process was killed, perhaps for memory: try again with --workers=1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _in_processes(
    examples: Iterator[Example], rules: StorageRules, executor: ProcessPoolExecutor, ahead: int
) -> Stored:
    """So many chunks ahead of who takes them."""
    waiting: deque = deque()
    while chunk := list(itertools.islice(examples, _CHUNK)):
        pictures = [(example.image, example.box) for example in chunk]
        waiting.append((chunk, executor.submit(store_all, pictures, rules)))
        if len(waiting) > ahead:
            yield from _results(*waiting.popleft())
    while waiting:
        yield from _results(*waiting.popleft())


def _results(chunk: Sequence[Example], future: Future[list[StoredImage | BadImage]]) -> Stored:
    return zip(chunk, future.result(), strict=True)
