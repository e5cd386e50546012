"""What frozen networks say of the data, computed once and kept in the data set folder, or beside a bucket in ~/.cache.

A cache is found under a hash of the network's weights, so a stale one cannot be used. It is written beside and renamed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from t2i_tf import files
from t2i_tf.checkpoints import fingerprint
from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.inference import Run


def _contents(split: records.Split) -> str:
    return split.dataset.manifest["splits"][split.name]["index"]["sha256"]


def published_embeddings(split: records.Split) -> np.ndarray | None:
    """The authors' own sentence vectors float32 [all captions, D], where the data set was prepared with them."""
    if "embeddings" not in split.dataset.manifest:
        return None
    entry = split.dataset.manifest["embeddings"]["published"]["files"][split.name]
    return np.load(split.dataset.local(entry), mmap_mode="r")


def _kept(path: Path, shape: tuple[int, ...], parts: Iterator[np.ndarray], what: str, kind=np.float32) -> np.ndarray:
    """Opens the cache, or fills it from parts of rows first; its size is told before."""
    if not path.is_file():
        megabytes = np.dtype(kind).itemsize * np.prod(shape, dtype=np.int64) / 2**20
        logging.info("computing %s once: %s values, %.0f MB in %s", what, "x".join(map(str, shape)), megabytes, path)
        files.remove_left_behind(path)
        try:
            # Written, not mapped: a full disk is then an error that can be told, not a signal that ends the process.
            with files.written_beside(path) as beside, open(beside, "wb") as file:
                header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts:
                    file.write(np.ascontiguousarray(part, kind).tobytes())
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); it takes {megabytes:.0f} MB: make room, or make "
                "the data set folder writable"
            ) from None
    return np.load(path, mmap_mode="r")


def _path(kind: str, key: str, split: records.Split) -> Path:
    return split.dataset.cache / f"{kind}-{key[:16]}" / f"{split.name}.npy"


def caption_embeddings(run: Run, split: records.Split) -> np.ndarray:
    """Sentence vectors float32 [all captions, D] of a frozen text encoder, in the order of the split's captions."""
    key = fingerprint(run.recipe.text_encoder.get_weights(), run.reading_rule, _contents(split))
    captions = split.all_captions()
    path = _path("captions", key, split)

    def parts():
        for start in range(0, len(captions), 2048):
            yield run.encode(captions[start : start + 2048])

    width = run.recipe.hyperparameters.embedding_dim
    return _kept(path, (len(captions), width), parts(), f"embeddings of {len(captions)} captions")


def image_features(network, split: records.Split, image_size: int, views: int, box_crop: bool) -> np.ndarray:
    """Features float32 [N, views, F] of a frozen image network, for each of the fixed views of every picture."""
    key = fingerprint(network.weights(), image_size, views, box_crop, _contents(split))
    path = _path("images", key, split)

    def parts():
        streams = [pipeline.views(split, image_size, 32, view, box_crop=box_crop) for view in range(views)]
        for pictures in zip(*streams, strict=True):
            yield np.stack([network(picture).numpy() for picture in pictures], axis=1)

    return _kept(
        path,
        (split.num_images, views, network.width),
        parts(),
        f"{views} views of {split.num_images} pictures through {network.source}",
    )


def image_annotations(network, split: records.Split, image_size: int, box_crop: bool) -> np.ndarray:
    """Annotations float16 [N,L,D] that a frozen network gives of the middle square of every picture.

    Half as large as float32: 200,704 bytes a picture for VGG-19. What float16 cannot hold is cut to its largest number.
    """
    key = fingerprint(network.weights(), image_size, "no augmentation", box_crop, _contents(split))
    path = _path("annotations", key, split)
    largest = np.finfo(np.float16).max

    def parts():
        for pictures in pipeline.views(split, image_size, 32, box_crop=box_crop, augmentation=False):
            yield np.clip(network(pictures).numpy(), -largest, largest)

    what = f"annotations of {split.num_images} pictures by {network.source}"
    return _kept(path, (split.num_images, *network.shape), parts(), what, np.float16)
