"""One source picture -> the JPEG that is stored.

The worker processes of `prepare` import this module and nothing heavier than Pillow: they start in a fraction of a
second. All arithmetic of crop and resize that the specifications give is here.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; x and y of the upper left corner."""

CROP_RATIO = 76 / 64
"""The published loaders resize to 76/64 of the size they train on and cut a random square out of it."""

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, 2 to 8 are turned or mirrored


@dataclass(frozen=True)
class StorageRules:
    """How pictures are stored; the fields are those of `t2i_tf.config.PrepareConfig`."""

    image_size: int | None
    crop: str
    resize: str
    resample: str
    quality: int
    stretch_contrast: bool = False


@dataclass(frozen=True)
class StoredImage:
    """RGB JPEG bytes, their size, the box in stored pixels (None when there is none or it was cropped to) and what
    was changed on the way, in words."""

    jpeg: bytes
    height: int
    width: int
    box: Box | None
    changes: tuple[str, ...]


@dataclass(frozen=True)
class BadImage:
    """A picture that cannot be stored."""

    reason: str


def start_worker() -> None:
    """What a worker process does first: leaves Ctrl-C to its parent, and ends when that does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def store_all(
    pictures: Sequence[tuple[str | Callable[[], bytes | Image.Image], Box | None]], rules: StorageRules
) -> list[StoredImage | BadImage]:
    """`store` for each (image, box)."""
    return [store(image, box, rules) for image, box in pictures]


def store(
    image: str | Callable[[], bytes | Image.Image], box: Box | None, rules: StorageRules
) -> StoredImage | BadImage:
    """Reads (a path) or fetches or draws (a callable) one picture and encodes it for storage.

    Converted to RGB (grey replicated, alpha dropped, as the published loaders do), turned upright by its EXIF tag,
    cropped, its contrast stretched where asked for, resized. JPEG bytes that needed none of this are kept as they are.
    Encoding is 4:4:4, since halved colour resolution costs 3 dB on small pictures.
    """
    content = image() if callable(image) else None
    if isinstance(content, Image.Image):
        data, picture = None, content
    else:
        try:
            data = Path(image).read_bytes() if content is None else content
            if not data:
                return BadImage("empty file")
            picture = Image.open(io.BytesIO(data))
            picture.load()
        except Exception as error:  # a decoder may raise anything on damaged bytes; every one means "bad image"
            return BadImage(reason(error))
    keep_bytes = data is not None and picture.format == "JPEG" and picture.mode == "RGB"
    changes = []

    try:
        if picture.getexif().get(_ORIENTATION, 1) in range(2, 9):
            picture, keep_bytes = ImageOps.exif_transpose(picture), False
            changes.append("turned upright by EXIF")
    except Exception as error:  # whatever Pillow stumbles over in damaged tags
        return BadImage(f"damaged EXIF tags ({reason(error)})")
    try:
        picture, conversion = to_rgb(picture)
    except ValueError as error:
        return BadImage(str(error))
    if conversion:
        changes.append(conversion)

    if rules.crop == "box":
        window = box_window(box, *picture.size)
        if window[0] >= window[2] or window[1] >= window[3]:
            return BadImage(f"bounding box {box} outside the picture of {picture.width}x{picture.height} pixels")
        if window != (0, 0, *picture.size):
            picture, keep_bytes = picture.crop(window), False
        box = None

    if rules.stretch_contrast:
        before, picture = picture, stretched(picture)
        keep_bytes &= picture is before

    width, height = stored_size(*picture.size, rules)
    if box is not None:
        scale_x, scale_y = width / picture.width, height / picture.height
        box = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
    if (width, height) != picture.size:
        if width > picture.width or height > picture.height:
            changes.append("enlarged")
        picture, keep_bytes = picture.resize((width, height), FILTERS[rules.resample]), False

    jpeg = data if keep_bytes else _encode(picture, rules.quality)
    return StoredImage(jpeg, height, width, box, tuple(changes))


def to_rgb(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """-> (RGB picture, what was converted or None). Raises ValueError for 32-bit grey, which has no agreed range."""
    mode = picture.mode
    if mode == "RGB":
        return picture, None
    if mode in ("I", "F"):
        raise ValueError(f"{mode}-mode picture (32 bits a pixel): save it as 8-bit RGB")
    if mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB"), "16-bit grey to RGB"
    if mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        return picture.convert("RGBA").convert("RGB"), "alpha dropped"
    names = {"1": "grey to RGB", "L": "grey to RGB", "P": "palette to RGB", "CMYK": "CMYK to RGB"}
    return picture.convert("RGB"), names.get(mode, f"{mode} to RGB")


def box_window(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The crop of StackGAN and AttnGAN: 1.5 times the longer box side around the box centre, clipped to the picture.

    -> (left, top, right, bottom), integers truncated as in the published code.
    """
    x, y, w, h = (int(value) for value in box)
    radius = int(max(w, h) * 0.75)
    center_x, center_y = int((2 * x + w) / 2), int((2 * y + h) / 2)
    return (
        max(0, center_x - radius),
        max(0, center_y - radius),
        min(width, center_x + radius),
        min(height, center_y + radius),
    )


def stretched(picture: Image.Image) -> Image.Image:
    """The least value of all channels becomes 0, the greatest 255; the picture itself where they are.

    What SciPy's imresize did to pictures of floats, and so to those that StackGAN was published with.
    """
    values = np.asarray(picture, np.float64)
    least, greatest = values.min(), values.max()
    if (least, greatest) == (0.0, 255.0):
        return picture
    scaled = (values - least) * (255.0 / max(greatest - least, 1.0))
    return Image.fromarray((scaled + 0.5).astype(np.uint8))


def stored_size(width: int, height: int, rules: StorageRules) -> tuple[int, int]:
    """-> (width, height) after resizing; the longer side is truncated as torchvision does."""
    size = rules.image_size
    if size is None:
        return width, height
    if rules.resize == "square":
        return size, size
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def margin_size(size: int, stored_size: int, use_box: bool = False, augmentation: bool = True) -> int:
    """The shorter side that a picture is brought to before the square of `size` pixels is cut out of it.

    Pictures stored at the training size, and all without augmentation, are used whole; others are brought to 76/64 of
    it and cropped.
    """
    return int(size * CROP_RATIO) if augmentation and (use_box or stored_size != size) else size


def centre_corner(side: int, size: int) -> int:
    """Where the cut of `size` pixels begins in the middle of `side` pixels."""
    return (side - size + 1) // 2


def opened(path: str | Path) -> Image.Image | BadImage:
    """The picture in a file, turned upright, RGB."""
    try:
        with Image.open(path) as picture:
            return to_rgb(ImageOps.exif_transpose(picture))[0]
    except IsADirectoryError:
        return BadImage("a folder")
    except Exception as error:  # a decoder may raise anything on damaged bytes; every one means "bad image"
        return BadImage(reason(error))


def middle_square(
    picture: Image.Image, size: int, margin: int | None = None, squashed: bool = False, resample: str = "bilinear"
) -> np.ndarray:
    """A picture of any size as networks take it: uint8 [size,size,3].

    Its shorter side, or with `squashed` both, becomes `margin` pixels (`size` when None), and the middle is cut out.
    """
    margin = size if margin is None else margin
    short = min(picture.size)
    shape = (margin, margin) if squashed else tuple(side * margin // short for side in picture.size)
    if shape != picture.size:
        picture = picture.resize(shape, FILTERS[resample])
    left, top = (centre_corner(side, size) for side in picture.size)
    return np.asarray(picture)[top : top + size, left : left + size]


def _encode(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def reason(error: Exception) -> str:
    """Why a picture could not be read, in words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error) or type(error).__name__
