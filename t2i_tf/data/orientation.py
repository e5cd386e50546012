"""Which way up a picture was taken, and turning it so, in graph: for servers that have TensorFlow alone.

Cameras store pixels as the sensor lay, and note in EXIF (CIPA DC-008, tag 0x0112) how to turn them; TensorFlow's
decoders pass over the note. It is an entry of a TIFF directory, which is in segment APP1 of a JPEG file, in chunk eXIf
of a PNG file, before the pixels. XMP, where some programs repeat it, is not read.
"""

from __future__ import annotations

import tensorflow as tf

_ORIENTATION = 0x0112
_ENTRY_BYTES = 12
_APP1, _START_OF_SCAN, _EXIF = 0xFFE1, 0xFFDA, int.from_bytes(b"Exif\0\0", "big")
_PNG, _CHUNK_EXIF, _CHUNK_PIXELS = 0x89504E47, int.from_bytes(b"eXIf", "big"), int.from_bytes(b"IDAT", "big")


def upright(picture: tf.Tensor, file: tf.Tensor) -> tf.Tensor:
    """The pixels [H,W,C] that were decoded from the bytes of a file, string [] -> upright, [H,W,C] or [W,H,C]."""
    turned, transposed = tf.image.rot90(picture, 2), tf.transpose(picture, [1, 0, 2])
    ways = [
        lambda: picture,
        lambda: tf.image.flip_left_right(picture),
        lambda: turned,
        lambda: tf.image.flip_up_down(picture),
        lambda: transposed,
        lambda: tf.image.flip_left_right(transposed),
        lambda: tf.transpose(turned, [1, 0, 2]),
        lambda: tf.image.flip_up_down(transposed),
    ]
    return tf.switch_case(orientation(file) - 1, ways)


def orientation(file: tf.Tensor) -> tf.Tensor:
    """The bytes of a JPEG or PNG file, string [] -> what EXIF notes, int32 [], 1 to 8; 1, upright, where nothing."""
    tiff = tf.io.decode_raw(_tiff(file), tf.uint8)
    header = _number(tiff, 0, 4)
    little, big = header == 0x49492A00, header == 0x4D4D002A

    def read(at, width):
        return tf.where(little, _number(tiff, at, width, little=True), _number(tiff, at, width))

    directory = read(4, 4)
    whole = tf.maximum(tf.size(tiff, tf.int64) - directory - 2, 0) // _ENTRY_BYTES
    entries = directory + 2 + _ENTRY_BYTES * tf.range(tf.minimum(read(directory, 2), whole))
    values = tf.boolean_mask(read(entries + 8, 2), read(entries, 2) == _ORIENTATION)
    noted = tf.reduce_max(tf.concat([values, [1]], 0))
    return tf.cast(tf.where((little | big) & (noted <= 8), noted, 1), tf.int32)


def _tiff(file):
    """The TIFF structure in the bytes of a file; empty where there is none."""
    data = tf.io.decode_raw(file, tf.uint8)
    size = tf.size(data, tf.int64)

    # Both: where the content begins, its length, where the next one is, whether it is EXIF, whether to end here.
    def segment(at):
        marker, length = _number(data, at, 2), _number(data, at + 2, 2)
        following = at + tf.where(marker != 0xFFFF, 2 + length, 1)  # a marker may be filled up
        is_exif, ends = (marker == _APP1) & (_number(data, at + 4, 6) == _EXIF), marker == _START_OF_SCAN
        return tf.minimum(at + 10, size), tf.maximum(length - 8, 0), following, is_exif, ends | (marker < 0xFF00)

    def chunk(at):
        length, kind = _number(data, at, 4), _number(data, at + 4, 4)
        return tf.minimum(at + 8, size), length, at + 12 + length, kind == _CHUNK_EXIF, kind == _CHUNK_PIXELS

    def found(block, start):
        def goes_on(begin, length, following, is_exif, ends):
            return ~is_exif & ~ends & (following < size)

        start = block(tf.constant(start, tf.int64))
        begin, length, _, is_exif, _ = tf.while_loop(goes_on, lambda *last: block(last[2]), start)
        return tf.strings.substr(file, begin, tf.where(is_exif, length, 0))

    return tf.cond(_number(data, 0, 4) == _PNG, lambda: found(chunk, 8), lambda: found(segment, 2))


def _number(data, at, width, little=False):
    """Numbers of `width` bytes at places int64 [...] of bytes uint8 [N] -> int64 [...]; behind the end are zeros."""
    places = tf.cast(at, tf.int64)[..., None] + tf.range(width, dtype=tf.int64)
    end = tf.size(data, tf.int64)
    digits = tf.cast(tf.gather(tf.pad(data, [[0, 1]]), tf.minimum(places, end)), tf.int64)
    powers = [256**place for place in range(width)]
    return tf.reduce_sum(digits * tf.constant(powers if little else powers[::-1], tf.int64), -1)
