import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data.sources import oxford102
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")


def element(kind, payload, order="<"):
    return struct.pack(order + "II", kind, len(payload)) + payload + bytes(-len(payload) % 8)


def mat(matrices, order="<", compressed=False):
    """A level-5 file by the format's document: doubles stored as the narrowest unsigned type."""
    body = b""
    for name, values in matrices.items():
        values = np.atleast_2d(values)
        small = struct.pack(order + "I", len(name) << 16 | 1) + name.encode().ljust(4, b"\0")
        inner = (
            element(6, struct.pack(order + "II", 6, 0), order)
            + element(5, struct.pack(order + "ii", *values.shape), order)
            + (small if len(name) <= 4 else element(1, name.encode(), order))
            + element(4, values.astype(order + "u2").tobytes(order="F"), order)
        )
        whole = element(14, inner, order)
        if compressed:
            data = zlib.compress(whole)
            whole = struct.pack(order + "II", 15, len(data)) + data
        body += whole
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    return header + body


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
def test_mat_by_hand(tmp_path, order, compressed):
    expected = {"labels": np.array([[3, 1, 300]]), "id": np.arange(6).reshape(2, 3)}
    path = tmp_path / "a.mat"
    path.write_bytes(mat(expected, order, compressed))
    got = oxford102.read_mat(path)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_of_scipy(tmp_path, compressed):
    scipy_io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    types = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
    expected = {f"matrix_{kind}": (rng.random((3, 5)) * 100).astype(kind) for kind in types}
    others = {"text": "abc", "struct": {"a": 1}, "cell": np.array(["a", 1], object), "complex": np.array([1j])}
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, {**expected, **others, "one": 7.0, "none": np.zeros((0, 3))}, do_compression=compressed)
    got = oxford102.read_mat(path)
    assert got.keys() == {*expected, "one", "none"}
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)
    assert got["one"].item() == 7
    assert got["none"].shape == (0, 3)


def test_damaged_mat(tmp_path):
    path = tmp_path / "a.mat"
    whole = mat({"labels": np.arange(50)}, compressed=True)
    with pytest.raises(UserError, match="a.mat is missing"):
        oxford102.read_mat(path)
    for content in (b"", b"hello", b"MATLAB 7.3 MAT-file".ljust(512)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a MATLAB 5 file"):
            oxford102.read_mat(path)
    for content in (whole[:-20], whole[:140], whole[:150] + b"xxxx" + whole[154:], mat({"labels": [1]})[:-16]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            oxford102.read_mat(path)


def make(folder, labels=(2, 1, 2, 1, 3, 3)):
    """Six flowers of three classes."""
    (folder / "jpg").mkdir(parents=True)
    for number, label in enumerate(labels, 1):
        Image.new("RGB", (8, 8)).save(folder / "jpg" / f"image_{number:05d}.jpg")
        text = folder / "text_c10" / f"class_{label:05d}" / f"image_{number:05d}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"flower {number}\nof class {label}\n")
    (folder / "imagelabels.mat").write_bytes(mat({"labels": labels}, compressed=True))
    (folder / "setid.mat").write_bytes(mat({"trnid": [1, 2], "valid": [3], "tstid": [4, 5, 6]}, compressed=True))
    (folder / "trainvalclasses.txt").write_text("class_00001\nclass_00003\n")
    (folder / "testclasses.txt").write_bytes(b"2\r\n")
    return folder


def read(folder, **options):
    return oxford102.read(PrepareConfig(source="oxford102", data_dir="out", source_dir=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples_and_splits(tmp_path):
    source = read(make(tmp_path))
    assert source.notes == []
    assert [example.split for example in source.examples] == ["test", "train", "test", "train", "train", "train"]
    first = source.examples[0]
    assert (first.name, first.class_name, first.box) == ("image_00001", "class_00002", None)
    assert first.captions == ("flower 1", "of class 2")
    official = read(tmp_path, split="official").examples
    assert [example.split for example in official] == ["train", "train", "val", "test", "test", "test"]


def test_class_lists_are_asked_for(tmp_path):
    make(tmp_path)
    (tmp_path / "testclasses.txt").write_text("class_00001\nclass_00002\n")
    assert "testclasses.txt, line 1: class_00001 is also in trainvalclasses.txt" in refusal(tmp_path)
    (tmp_path / "testclasses.txt").write_text("class_00009\n")
    assert "testclasses.txt, line 1: 'class_00009' is no class" in refusal(tmp_path)
    (tmp_path / "testclasses.txt").write_text("\n")
    assert "1 classes are in neither list (class_00002)" in refusal(tmp_path)
    (tmp_path / "testclasses.txt").unlink()
    message = refusal(tmp_path)
    assert "lacks testclasses.txt" in message
    assert "--split=official" in message


def test_missing_files_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "jpg" / "image_00002.jpg").unlink()
    (tmp_path / "text_c10" / "class_00002" / "image_00003.txt").unlink()
    (tmp_path / "text_c10" / "class_00001" / "image_00004.txt").write_text("")
    wrong = tmp_path / "text_c10" / "class_00003" / "image_00005.txt"
    wrong.rename(tmp_path / "text_c10" / "class_00001" / "image_00005.txt")
    message = refusal(tmp_path)
    assert "not in jpg/: 1 (image_00002)" in message
    assert "caption files missing: 1 (" in message
    assert "image_00003.txt)" in message
    assert "caption files without a caption: 1 (" in message
    assert "caption files not in the folder of their label: 1 (" in message
    source = read(tmp_path, allow_missing=True)
    assert [example.name for example in source.examples] == ["image_00001", "image_00006"]
    assert len(source.notes) == 4


def test_wrong_sets(tmp_path):
    make(tmp_path)
    for sets, message in [
        ({"trnid": [1, 2], "valid": [2], "tstid": [3]}, "picture 2 is in train and val"),
        ({"trnid": [1, 7], "valid": [2], "tstid": [3]}, "picture 7 of trnid has no label"),
        ({"trnid": [1], "tstid": [3]}, "has no matrix 'valid'"),
        ({"trnid": [1], "valid": [2], "tstid": [3]}, "pictures in no split: 3 (image_00004"),
    ]:
        (tmp_path / "setid.mat").write_bytes(mat(sets))
        assert message in refusal(tmp_path, split="official")


def test_no_captions(tmp_path):
    make(tmp_path)
    (tmp_path / "text_c10").rename(tmp_path / "elsewhere")
    assert "--captions=none" in refusal(tmp_path)
    assert [example.captions for example in read(tmp_path, captions="none").examples] == [()] * 6


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_flowers():
    source = read(Path(REAL, "flowers64"), split="official", captions="none")
    splits = [example.split for example in source.examples]
    assert {split: splits.count(split) for split in set(splits)} == {"train": 1020, "val": 1020, "test": 6149}
    assert len({example.class_name for example in source.examples}) == 102
    scipy_io = pytest.importorskip("scipy.io")
    for file in ("imagelabels.mat", "setid.mat"):
        expected = scipy_io.loadmat(Path(REAL, "flowers64", file))
        for name, values in oxford102.read_mat(Path(REAL, "flowers64", file)).items():
            np.testing.assert_array_equal(values, expected[name])
