import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf.data.images import (
    BadImage,
    StorageRules,
    box_window,
    centre_corner,
    margin_size,
    middle_square,
    opened,
    store,
    stored_size,
    stretched,
)


def rules(image_size=None, crop="none", resize="square", resample="bilinear", quality=95, stretch_contrast=False):
    return StorageRules(image_size, crop, resize, resample, quality, stretch_contrast)


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return str(path)


def pixels(stored):
    return np.asarray(Image.open(io.BytesIO(stored.jpeg)))


def test_contrast_is_stretched_by_hand():
    """Of values 10 to 110 a step is 2.55; a flat picture becomes black, as SciPy has it."""
    picture = np.array([[[10, 20, 30], [58, 110, 50]]], np.uint8)
    np.testing.assert_array_equal(stretched(Image.fromarray(picture)), [[[0, 26, 51], [122, 255, 102]]])
    assert not np.asarray(stretched(Image.new("RGB", (3, 2), (9, 9, 9)))).any()


def test_contrast_is_stretched_between_crop_and_resize(tmp_path):
    """The window of the box leaves the first and last rows out, which are darker and brighter than the others."""
    picture = noise(16, 16) // 4 + 60
    picture[0], picture[-1] = 0, 255
    path, box = save(tmp_path / "a.png", picture), (3.0, 3.0, 9.0, 9.0)
    left, top, right, bottom = box_window(box, 16, 16)
    inside = picture[top:bottom, left:right].astype(float)
    by_hand = np.floor((inside - inside.min()) * 255 / (inside.max() - inside.min()) + 0.5).astype(np.uint8)
    wanted = store(save(tmp_path / "b.png", by_hand), None, rules(8))
    assert inside.min() > 0 and inside.max() < 255
    assert store(path, box, rules(8, crop="box", stretch_contrast=True)).jpeg == wanted.jpeg
    assert store(path, box, rules(8, crop="box")).jpeg != wanted.jpeg


def test_what_needs_no_stretching_keeps_its_bytes(tmp_path):
    picture = np.full((8, 8, 3), 128, np.uint8)
    picture[:4], picture[4:] = 0, 255
    path = save(tmp_path / "a.jpg", picture, quality=100)
    assert store(path, None, rules(stretch_contrast=True)).jpeg == (tmp_path / "a.jpg").read_bytes()


def test_box_window_by_hand():
    # The first picture of CUB: 500x335, box 60 27 325 304; r = int(243.75), centre (222, 179).
    assert box_window((60.0, 27.0, 325.0, 304.0), 500, 335) == (0, 0, 465, 335)
    # Inside the picture: r = int(7.5) = 7 around (int(205/2), int(210/2)).
    assert box_window((100.9, 100.0, 5.0, 10.0), 500, 335) == (95, 98, 109, 112)


def test_stored_size():
    assert stored_size(500, 333, rules(304)) == (304, 304)
    assert stored_size(500, 333, rules(304, resize="shorter_side")) == (456, 304)  # int(456.46)
    assert stored_size(333, 500, rules(304, resize="shorter_side")) == (304, 456)
    assert stored_size(500, 333, rules()) == (500, 333)


def test_the_cut_in_the_middle():
    assert (margin_size(64, 64), margin_size(64, 76), margin_size(64, 200), margin_size(64, 64, True)) == (
        64,
        76,
        76,
        76,
    )
    assert (margin_size(64, 76, augmentation=False), margin_size(64, 76, True, augmentation=False)) == (64, 64)
    assert (centre_corner(76, 64), centre_corner(65, 64), centre_corner(64, 64)) == (6, 1, 0)
    picture = noise(20, 31)
    np.testing.assert_array_equal(middle_square(Image.fromarray(picture), 16, 20), picture[2:18, 8:24])
    np.testing.assert_array_equal(middle_square(Image.fromarray(picture), 20), picture[:, 6:26])
    shrunk = np.asarray(Image.fromarray(picture).resize((15, 10), Image.Resampling.BILINEAR))  # int(31 * 10 / 20)
    np.testing.assert_array_equal(middle_square(Image.fromarray(picture), 8, 10), shrunk[1:9, 4:12])
    squashed = np.asarray(Image.fromarray(picture).resize((10, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(middle_square(Image.fromarray(picture), 8, 10, squashed=True), squashed[1:9, 1:9])


def test_opened_pictures_are_upright_and_rgb(tmp_path):
    picture = noise(6, 9)
    upright = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = save(tmp_path / "a.png", upright.rotate(90, expand=True), exif=exif)
    np.testing.assert_array_equal(np.asarray(opened(turned)), picture)
    grey = opened(save(tmp_path / "grey.png", noise(5, 4, 1)))
    assert (grey.mode, grey.size) == ("RGB", (4, 5))
    for path, reason in ((tmp_path, "a folder"), (tmp_path / "none.png", "no such file"), (__file__, "not an image")):
        assert opened(path).reason == reason


def test_unchanged_jpeg_bytes_are_kept(tmp_path):
    path = save(tmp_path / "a.jpg", noise(64, 64), quality=80)
    stored = store(path, None, rules(64))
    assert stored.jpeg == Path(path).read_bytes()
    assert (stored.height, stored.width, stored.changes) == (64, 64, ())
    assert store(path, None, rules(63)).jpeg != stored.jpeg


@pytest.mark.parametrize("resample", ["box", "bilinear", "bicubic", "lanczos"])
def test_crop_and_resize_are_pillows(tmp_path, resample):
    picture = noise(41, 60)
    path = save(tmp_path / "a.png", picture)
    stored = store(path, (20.0, 10.0, 12.0, 8.0), rules(16, "box", resample=resample, quality=100))
    window = Image.fromarray(picture).crop((17, 5, 35, 23))  # r = 9 around (26, 14)
    expected = np.asarray(window.resize((16, 16), Image.Resampling[resample.upper()]), int)
    assert np.abs(pixels(stored) - expected).max() <= 8  # JPEG of noise at quality 100, 4:4:4
    assert stored.box is None


def test_box_in_stored_pixels(tmp_path):
    path = save(tmp_path / "a.png", noise(50, 100))
    assert store(path, (10.0, 10.0, 20.0, 30.0), rules(25)).box == (2.5, 5.0, 5.0, 15.0)
    assert store(path, (10.0, 10.0, 20.0, 30.0), rules()).box == (10.0, 10.0, 20.0, 30.0)


def test_box_outside_is_bad(tmp_path):
    path = save(tmp_path / "a.png", noise(50, 100))
    assert "outside" in store(path, (500.0, 10.0, 20.0, 30.0), rules(25, "box")).reason


def test_conversions_are_named_and_right(tmp_path):
    grey, color = noise(8, 8, 1), noise(8, 8)
    with_alpha = np.dstack([color, noise(8, 8, 1)])
    cases = {
        "grey to RGB": (save(tmp_path / "l.png", grey), np.dstack([grey] * 3)),
        "alpha dropped": (save(tmp_path / "rgba.png", with_alpha), color),
        "CMYK to RGB": (save(tmp_path / "cmyk.tif", Image.fromarray(color).convert("CMYK")), color),
        "16-bit grey to RGB": (save(tmp_path / "16.png", grey.astype(np.uint16) * 256 + 17), np.dstack([grey] * 3)),
    }
    for change, (path, expected) in cases.items():
        stored = store(path, None, rules(quality=100))
        assert stored.changes == (change,), change
        assert np.abs(pixels(stored).astype(int) - expected).max() <= 6, change
    palette = Image.fromarray(color).quantize(4)
    stored = store(save(tmp_path / "p.png", palette), None, rules(quality=100))
    assert stored.changes == ("palette to RGB",)
    assert np.abs(pixels(stored).astype(int) - np.asarray(palette.convert("RGB"))).max() <= 6


def test_turned_by_exif(tmp_path):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, :8] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the left becomes the top
    path = save(tmp_path / "a.jpg", picture, exif=exif, quality=100)
    stored = store(path, None, rules())
    assert (stored.height, stored.width, stored.changes) == (16, 8, ("turned upright by EXIF",))
    assert pixels(stored)[:7].min() > 250
    assert pixels(stored)[9:].max() < 5
    exif[0x0112] = 0  # written by some programs, CUB has it: not a turn
    assert store(save(tmp_path / "b.jpg", picture, exif=exif), None, rules()).changes == ()


def test_damaged_exif_is_a_bad_image(tmp_path):
    """To be turned, and its date two numbers where a text should be."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x0132, 11, 2, 8)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(44)
    path = save(tmp_path / "a.jpg", noise(8, 8), exif=exif)
    assert "damaged EXIF tags" in store(path, None, rules()).reason


def test_enlarging_is_named(tmp_path):
    assert store(save(tmp_path / "a.png", noise(10, 200)), None, rules(64)).changes == ("enlarged",)


def test_bad_images(tmp_path):
    good = save(tmp_path / "good.jpg", noise(64, 64))
    data = Path(good).read_bytes()
    contents = {"cut": data[:-1], "half": data[: len(data) // 2], "empty": b"", "text": b"hello" * 50}
    for name, content in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    reasons = {
        name: store(str(tmp_path / f"{name}.jpg"), None, rules(64)) for name in ("cut", "half", "empty", "text", "none")
    }
    assert all(isinstance(result, BadImage) for result in reasons.values())
    assert "truncated" in reasons["cut"].reason
    assert "truncated" in reasons["half"].reason
    assert reasons["empty"].reason == "empty file"
    assert reasons["text"].reason == "not an image"
    assert reasons["none"].reason == "no such file"
    save(tmp_path / "f.tif", np.zeros((4, 4), np.float32))
    assert "32 bits" in store(str(tmp_path / "f.tif"), None, rules(64)).reason


def test_whatever_is_stored_tensorflow_decodes_alike(tmp_path):
    for name, picture in {"a.jpg": noise(33, 47), "b.png": noise(9, 5, 1), "c.gif": noise(5, 9, 1)}.items():
        stored = store(save(tmp_path / name, picture), None, rules())
        decoded = tf.io.decode_jpeg(stored.jpeg, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(decoded, pixels(stored))


def test_drawn_pictures():
    stored = store(lambda: Image.new("RGB", (32, 32), (200, 10, 10)), None, rules(32))
    assert np.abs(pixels(stored).astype(int) - [200, 10, 10]).max() <= 3


def test_fetched_pictures(tmp_path):
    path = save(tmp_path / "a.jpg", noise(8, 8))
    data = Path(path).read_bytes()
    assert store(lambda: data, None, rules()).jpeg == data
    assert store(lambda: b"", None, rules()) == BadImage("empty file")
    assert store(lambda: b"text", None, rules()) == BadImage("not an image")


def test_workers_do_not_load_tensorflow():
    code = "import sys, t2i_tf.data.images, t2i_tf.data.sources; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
