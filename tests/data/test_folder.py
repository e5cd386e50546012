import json
import os
from dataclasses import replace

import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import folder as folder_source
from t2i_tf.errors import UserError


def make(folder, lines, pictures=None):
    for name in pictures or {line["image"] for line in lines if isinstance(line, dict) and "image" in line}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


def read(folder, **options):
    return folder_source.read(PrepareConfig(source="folder", data_dir="out", source_dir=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbered(count, **more):
    return [{"image": f"{i:03d}.png", "caption": f"picture {i}", **more} for i in range(count)]


def test_everything_given(tmp_path):
    lines = [
        {"image": "b/2.png", "captions": ["two", "zwei"], "class": "even", "split": "test", "box": [1, 2, 3.5, 4]},
        "",
        {"image": "./a/1.png", "caption": "one", "class": "odd", "split": "train"},
        {"image": "b/2.png", "caption": "deux – ü", "class": "even", "split": "test", "box": [1, 2, 3.5, 4]},
    ]
    source = read(make(tmp_path, lines))
    assert source.notes == []
    one, two = source.examples
    assert (one.name, one.split, one.class_name, one.captions, one.box) == ("a/1.png", "train", "odd", ("one",), None)
    assert (two.name, two.split, two.captions) == ("b/2.png", "test", ("two", "zwei", "deux – ü"))
    assert two.box == (1.0, 2.0, 3.5, 4.0)


def test_a_tenth_of_the_pictures_is_held_out(tmp_path):
    source = read(make(tmp_path, numbered(40)))
    held_out = [example.name for example in source.examples if example.split == "test"]
    assert len(held_out) == 4
    assert "4 of 40 pictures" in source.notes[0]
    again = read(make(tmp_path, numbered(40)[::-1]))  # the order of the lines does not matter
    assert [example.name for example in again.examples if example.split == "test"] == held_out


def test_whole_classes_are_held_out(tmp_path):
    lines = [{**line, "class": f"class {i % 20}"} for i, line in enumerate(numbered(60))]
    source = read(make(tmp_path, lines))
    classes = {split: {e.class_name for e in source.examples if e.split == split} for split in ("train", "test")}
    assert len(classes["test"]) == 2
    assert not classes["train"] & classes["test"]
    assert "2 of 20 classes" in source.notes[0]
    few = [{**line, "class": f"class {i % 9}"} for i, line in enumerate(numbered(60))]
    assert "6 of 60 pictures" in read(make(tmp_path, few)).notes[0]


def test_one_picture_is_for_training(tmp_path):
    assert [example.split for example in read(make(tmp_path, numbered(1))).examples] == ["train"]


def test_malformed_lines_are_numbered(tmp_path):
    wrong = {
        '{"image": "a.png", ': "line 2: ",
        '["a.png"]': "line 2: not a JSON object",
        '{"caption": "x"}': 'line 2: no "image"',
        '{"image": 3, "caption": "x"}': 'line 2: "image" is not a text',
        '{"image": "/etc/a.png", "caption": "x"}': "line 2: \"image\" '/etc/a.png' is not a path below",
        '{"image": "../a.png", "caption": "x"}': "is not a path below",
        '{"image": "a.png", "captions": "x"}': 'line 2: "captions" is not a list',
        '{"image": "a.png", "captions": [1]}': 'line 2: "captions" is not a list',
        '{"image": "a.png", "caption": ["x"]}': 'line 2: "caption" is not a text',
        '{"image": "a.png", "caption": "\\ud800"}': "line 2: 'utf-8' codec",
        '{"image": "a.png", "caption": "x", "class": 3}': 'line 2: "class" is not a text',
        '{"image": "a.png", "caption": "x", "split": "dev"}': "line 2: \"split\" 'dev' is none of train, val, test",
        '{"image": "a.png", "caption": "x", "box": [1, 2, 3]}': 'line 2: "box" is not',
        '{"image": "a.png", "caption": "x", "box": [1, 2, 0, 4]}': 'line 2: "box" is not',
        '{"image": "a.png", "caption": "x", "box": [NaN, 2, 3, 4]}': 'line 2: "box" is not',
        '{"image": "000.png", "caption": "x", "class": "y"}': "line 2: class, split or box differ from line 1",
    }
    for line, message in wrong.items():
        assert message in refusal(make(tmp_path, [*numbered(1), line])), line


def test_many_malformed_lines_are_counted(tmp_path):
    message = refusal(make(tmp_path, numbered(3) + ["{"] * 9))
    assert "line 4: " in message
    assert "line 8: " in message
    assert "line 9: " not in message
    assert "9 malformed lines in all" in message


def test_missing_pictures(tmp_path):
    make(tmp_path, numbered(12))
    (tmp_path / "003.png").unlink()
    assert "pictures missing: 1 (003.png, line 4)" in refusal(tmp_path)
    source = read(tmp_path, allow_missing=True)
    assert len(source.examples) == 11
    assert source.notes[0] == "left out: pictures missing: 1 (003.png, line 4)"


def test_split_in_some_lines_only(tmp_path):
    assert "1 have none (line 2)" in refusal(make(tmp_path, [{**numbered(1)[0], "split": "train"}, numbered(2)[1]]))
    assert "--split=official" in refusal(make(tmp_path, numbered(2)), split="official")


def test_what_is_not_read_is_noted(tmp_path):
    make(tmp_path, numbered(2, license="x"), pictures=["000.png", "001.png", "sub/other.JPG"])
    notes = read(tmp_path).notes
    assert notes[0] == "keys of captions.jsonl that were ignored: license"
    assert notes[1] == "1 pictures are not in captions.jsonl and were not read (sub/other.JPG)"


def test_files(tmp_path):
    (tmp_path / "a.txt").touch()
    assert "captions.jsonl is missing" in refusal(tmp_path)
    (tmp_path / "captions.jsonl").write_bytes(b"\xff\xfe{")
    assert "captions.jsonl is not UTF-8" in refusal(tmp_path)
    (tmp_path / "captions.jsonl").write_text("\n")
    assert "holds no picture" in refusal(tmp_path)


def test_byte_order_mark_and_crlf(tmp_path):
    make(tmp_path, numbered(2))
    text = (tmp_path / "captions.jsonl").read_bytes()
    (tmp_path / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert len(read(tmp_path).examples) == 2


def test_pictures_without_captions(tmp_path):
    make(tmp_path, numbered(12))
    (tmp_path / "captions.jsonl").unlink()
    examples = read(tmp_path, captions="none").examples
    assert len(examples) == 12
    assert {example.captions for example in examples} == {()}


def test_names_that_are_not_utf8(tmp_path):
    """One that no line lists is noted; one that would be read is a problem, and can be left out."""
    make(tmp_path / "in", numbered(2))
    (tmp_path / "in" / "000.png").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "000.png")
    options = PrepareConfig(source="folder", source_dir=str(tmp_path / "in"), data_dir=str(tmp_path / "out"), workers=1)
    prepare(options, progress=lambda done, total: None)
    unlisted = r"1 pictures are not in captions.jsonl and were not read (caf\xe9.png)"
    assert unlisted in records.Dataset.open(tmp_path / "out").manifest["notes"]

    (tmp_path / "in" / "captions.jsonl").unlink()
    problem = r"pictures whose names are not UTF-8, which a data set cannot hold: 1 (caf\xe9.png)"
    assert problem in refusal(tmp_path / "in", captions="none")
    options = replace(options, captions="none", allow_missing=True, data_dir=str(tmp_path / "without"))
    prepare(options, progress=lambda done, total: None)
    manifest = records.Dataset.open(tmp_path / "without").manifest
    assert f"left out: {problem}" in manifest["notes"]
    assert sum(split["images"] for split in manifest["splits"].values()) == 2


def test_a_source_dir_that_is_not_utf8(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    with pytest.raises(UserError, match=r"caf\\xe9: the path is not UTF-8"):
        read(folder, captions="none")
