"""Pictures are turned upright in graph as Pillow turns them."""

import io
import struct
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from t2i_tf.data import orientation

PICTURE = Image.fromarray(
    tf.image.resize(np.random.default_rng(0).uniform(0, 255, [4, 4, 3]), [7, 12]).numpy().astype(np.uint8)
)
FIRST, ORIENTATION = (0x010F, 2, 4, b"Nik\0"), 0x0112


def tiff(value, order=">", kind="H", entries=None, at=8):
    """A TIFF directory of a maker's name and an orientation; `entries` is how many it says there are."""
    start = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(order + "I", at) + bytes(at - 8)
    number = struct.pack(order + kind, value).ljust(4, b"\0")
    made = start + struct.pack(order + "H", 2 if entries is None else entries)
    for tag, of_kind, count, content in (FIRST, (ORIENTATION, {"H": 3, "I": 4}[kind], 1, number)):
        made += struct.pack(order + "HHI", tag, of_kind, count) + content
    return made + bytes(4)


def jpeg(*contents, marker=b"\xff\xe1"):
    """A JPEG file with segments in front of its own."""
    file = io.BytesIO()
    PICTURE.save(file, "JPEG")
    segments = b"".join(marker + struct.pack(">H", len(content) + 2) + content for content in contents)
    return file.getvalue()[:2] + segments + file.getvalue()[2:]


def png(exif):
    file = io.BytesIO()
    PICTURE.save(file, "PNG", **({"exif": exif} if exif else {}))
    return file.getvalue()


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def turned(file):
    picture = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    return orientation.orientation(file), orientation.upright(picture, file)


def check(file, expected):
    """In graph as by Pillow, and both as expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of EXIF that is cut off
        live = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    number, picture = turned(file)
    assert number == expected
    np.testing.assert_array_equal(picture, np.asarray(live))
    assert picture.shape == ((12, 7, 3) if expected > 4 else (7, 12, 3))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", range(1, 9))
def test_all_ways_up(value, order):
    check(jpeg(b"Exif\0\0" + tiff(value, order)), value)
    check(png(b"Exif\0\0" + tiff(value, order)), value)


def test_files_without_a_note_are_upright():
    for file in (jpeg(), png(None), jpeg(b"Exif\0\0" + tiff(0)), jpeg(b"Exif\0\0" + tiff(9)), jpeg(b"")):
        check(file, 1)


def test_exif_may_stand_behind_other_segments():
    note = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff(6))) + b"Exif\0\0" + tiff(6)
    plain = jpeg()
    length = 4 + int.from_bytes(plain[4:6], "big") - 2 + 2
    check(plain[:length] + note + plain[length:], 6)  # behind JFIF, as most programs write it
    check(jpeg(b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + tiff(8, at=30)), 8)
    check(plain[:2] + b"\xff\xff" + note + plain[2:], 6)


def test_exif_that_is_damaged_turns_what_pillow_turns():
    whole = tiff(6)
    for exif in (whole[:-4], tiff(6, entries=500), tiff(6, "<", kind="I")):
        check(jpeg(b"Exif\0\0" + exif), 6)
    unread = [whole[:length] for length in (0, 2, 4, 8, 9, 12, 30, len(whole) - 5)]
    unread += [b"garbage, garbage, garbage", b"II\0*" + whole[4:], whole[:4] + b"\xff\xff\xff\xff" + whole[8:]]
    for exif in (*unread, tiff(6, entries=1)):
        check(jpeg(b"Exif\0\0" + exif), 1)
    check(jpeg(b"Exi"), 1)


@pytest.mark.parametrize("make", [lambda: jpeg(b"Exif\0\0" + tiff(6)), lambda: png(b"Exif\0\0" + tiff(6))])
def test_files_that_end_anywhere_are_read_without_an_error(make):
    file = make()
    found = [int(orientation.orientation(file[:length])) for length in range(120)]
    assert found[0] == 1 and found[-1] == 6 and sorted(found) == found
