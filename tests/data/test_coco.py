import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import coco
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")
PREFIX = {2014: "COCO_{part}2014_", 2017: ""}


def file_name(year, part, number):
    return f"{PREFIX[year].format(part=part)}{number:012d}.jpg"


def make(root, year=2014, train=(9, 25, 30), val=(42, 73), captions=5, inner=""):
    """A COCO of few pictures, its lists in no order; captions of a picture lie apart, as in the official files."""
    for part, numbers in (("train", train), ("val", val)):
        folder = root / inner / f"{part}{year}"
        folder.mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / file_name(year, part, number))
        content = {
            "info": {"year": year},
            "licenses": [],
            "images": [{"id": n, "file_name": file_name(year, part, n), "width": 8} for n in reversed(numbers)],
            "annotations": [
                {"id": 10 * n + c, "image_id": n, "caption": f"Caption {c} of {n}."}
                for c in range(captions)
                for n in numbers
            ],
        }
        write(root, part, year, content)
    return root


def write(root, part, year, content):
    path = root / "annotations" / f"captions_{part}{year}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit(root, part, change, year=2014):
    content = json.loads((root / "annotations" / f"captions_{part}{year}.json").read_text())
    change(content)
    write(root, part, year, content)


def read(folder, **options):
    return coco.read(PrepareConfig(source="coco", data_dir="out", source_dir=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("inner", ["", "images"])
def test_examples(tmp_path, year, inner):
    source = read(make(tmp_path, year, inner=inner))
    assert source.notes == []
    assert (source.name, source.info["data_set"]) == ("coco", f"MS-COCO {year}")
    prefix = PREFIX[year].format(part="train")
    train = [example for example in source.examples if example.split == "train"]
    assert [example.name for example in train] == [f"{prefix}{number:012d}" for number in (9, 25, 30)]
    assert [example.split for example in source.examples] == ["train"] * 3 + ["test"] * 2
    assert train[0].captions == tuple(f"Caption {c} of 9." for c in range(5))
    assert (train[0].class_name, train[0].box) == (None, None)
    assert Path(train[0].image) == tmp_path / inner / f"train{year}" / f"{prefix}000000000009.jpg"


def test_prepared(tmp_path):
    make(tmp_path / "in")

    def change(content):
        content["annotations"][0]["caption"] = "  A tall man\r\nwith a \ufffd\ufffdhat. \n"

    edit(tmp_path / "in", "train", change)
    options = PrepareConfig(
        source="coco", source_dir=str(tmp_path / "in"), data_dir=str(tmp_path / "out"), image_size=8, workers=1
    )
    prepare(options, progress=lambda done, total: None)
    dataset = records.Dataset.open(tmp_path / "out", verify=True)
    assert dataset.manifest["classes"] == []
    assert {name: entry["images"] for name, entry in dataset.manifest["splits"].items()} == {"train": 3, "test": 2}
    train = dataset.split("train")
    assert train.class_ids.tolist() == [-1] * 3
    assert train.captions()[0][0] == "A tall man with a  hat."
    assert "1 captions had line breaks (CRLF), replaced by a blank" in dataset.manifest["notes"]
    assert train.names == ["COCO_train2014_000000000009", "COCO_train2014_000000000025", "COCO_train2014_000000000030"]


def test_the_papers_year_when_both_are_there(tmp_path):
    make(tmp_path, 2017)
    assert read(tmp_path).info["data_set"] == "MS-COCO 2017"
    make(tmp_path, 2014)
    assert read(tmp_path).info["data_set"] == "MS-COCO 2014"


def test_the_year_of_which_more_is_there(tmp_path):
    make(tmp_path, 2014, train=(), val=())
    for folder in ("train2014", "val2014"):
        (tmp_path / folder).rmdir()
    make(tmp_path, 2017)
    assert len(read(tmp_path).examples) == 5


def test_five_captions_a_picture(tmp_path):
    source = read(make(tmp_path, captions=7))
    assert {len(example.captions) for example in source.examples} == {5}
    assert source.examples[0].captions[-1] == "Caption 4 of 9."
    assert source.notes == [
        "6 captions of captions_train2014.json beyond the fifth of a picture, dropped as the papers do",
        "4 captions of captions_val2014.json beyond the fifth of a picture, dropped as the papers do",
    ]


def test_missing_pictures_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "train2014" / file_name(2014, "train", 25)).unlink()
    expected = "pictures of captions_train2014.json that are not in train2014/: 1 (COCO_train2014_000000000025.jpg)"
    assert expected in refusal(tmp_path)
    source = read(tmp_path, allow_missing=True)
    assert len(source.examples) == 4
    assert source.notes == [f"left out: {expected}"]


def test_captions_of_pictures_that_are_not_listed(tmp_path):
    make(tmp_path)
    edit(tmp_path, "val", lambda content: content["images"].pop())
    assert "captions of captions_val2014.json of picture ids it does not list: 1 (42)" in refusal(tmp_path)
    source = read(tmp_path, allow_missing=True)
    assert len(source.examples) == 4
    assert source.notes[-1] == (
        "1 files in val2014/ are not in captions_val2014.json and were not read (COCO_val2014_000000000042.jpg)"
    )


def test_pictures_without_captions(tmp_path):
    make(tmp_path)
    edit(
        tmp_path,
        "train",
        lambda content: content.update(annotations=[a for a in content["annotations"] if a["image_id"] == 30]),
    )
    assert "pictures of captions_train2014.json without a caption: 2 (COCO_train2014_000000000009" in refusal(tmp_path)
    assert len(read(tmp_path, allow_missing=True).examples) == 3
    examples = read(tmp_path, captions="none").examples
    assert len(examples) == 5
    assert {example.captions for example in examples} == {()}


def test_files_and_folders_that_are_missing(tmp_path):
    assert "holds no MS-COCO: put annotations/captions_train2014.json" in refusal(tmp_path)
    make(tmp_path)
    (tmp_path / "annotations" / "captions_val2014.json").unlink()
    assert "annotation files missing: 1 (" in refusal(tmp_path)
    assert [example.split for example in read(tmp_path, allow_missing=True).examples] == ["train"] * 3
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    assert f"picture folders missing: 1 ({tmp_path / 'train2014'})" in refusal(tmp_path)


def test_damaged_annotations(tmp_path):
    make(tmp_path)
    path = tmp_path / "annotations" / "captions_train2014.json"
    whole = path.read_bytes()
    for content, message in [
        (whole[:-40], "is damaged or cut short ("),
        (b"", "is damaged or cut short (Expecting value: line 1 column 1 (char 0))"),
        (b"\xff" + whole, "is not UTF-8 (byte 0)"),
        (b"[]", "is not a caption file of MS-COCO (list indices"),
        (b'{"images": []}', "(no 'annotations')"),
        (b'{"images": [{"id": 1}], "annotations": []}', "(no 'file_name')"),
        (b'{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}', "(no 'caption')"),
        (b'{"images": [], "annotations": [{"image_id": "1", "caption": "a"}]}', "('1' is no picture id)"),
        (b'{"images": [], "annotations": [{"image_id": 1, "caption": null}]}', "(None is no text)"),
    ]:
        path.write_bytes(content)
        message_found = refusal(tmp_path)
        assert message_found.startswith(f"{path} is ")
        assert message in message_found
    path.write_bytes(whole)
    edit(tmp_path, "train", lambda content: content["images"].append(content["images"][0]))
    assert "lists 1 pictures twice" in refusal(tmp_path)


def test_num_images_keeps_both_splits(tmp_path):
    examples = read(make(tmp_path), num_images=2).examples
    assert [example.split for example in examples] == ["train", "test"]


@pytest.mark.parametrize("inner, place", [("", ""), ("images", "annotations")])
def test_karpathy_splits(tmp_path, inner, place):
    """Pictures of train are of train2014, all others of val2014; restval is left out, or trained on."""
    make(tmp_path, inner=inner)
    parts = [("train", "train", 9), ("restval", "val", 42), ("test", "val", 73), ("train", "train", 25)]
    images = [
        {
            "split": split,
            "filepath": f"{part}2014",
            "filename": file_name(2014, part, number),
            "sentences": [{"raw": f"Caption {c} of {number}."} for c in range(6)],
        }
        for split, part, number in parts
    ]
    (tmp_path / place / "dataset_coco.json").write_text(json.dumps({"images": images}))
    source = read(tmp_path, split="karpathy")
    assert [(e.split, int(e.name[-2:])) for e in source.examples] == [("train", 9), ("test", 73), ("train", 25)]
    assert source.examples[0].captions == tuple(f"Caption {c} of 9." for c in range(5))
    assert Path(source.examples[1].image) == tmp_path / inner / "val2014" / file_name(2014, "val", 73)
    assert source.notes == [
        "1 pictures of restval were left out: --split=karpathy_restval trains on them too",
        "3 captions of dataset_coco.json beyond the fifth of a picture, dropped as the papers do",
    ]
    source = read(tmp_path, split="karpathy_restval")
    assert [e.split for e in source.examples] == ["train", "train", "test", "train"]
    assert source.info["split"] == "Karpathy's, dataset_coco.json, restval in train"


def test_karpathy_splits_that_are_missing(tmp_path):
    make(tmp_path)
    assert f"{tmp_path / 'dataset_coco.json'} is missing: unpack it from Karpathy's" in refusal(
        tmp_path, split="karpathy"
    )
    images = [{"split": "val", "filepath": "val2015", "filename": "a.jpg", "sentences": []}]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    message = refusal(tmp_path, split="karpathy")
    assert "picture folders missing: 1 (" in message and "that are not in val2015/: 1 (a.jpg)" in message


@pytest.mark.parametrize("split", ["official", "karpathy"])
def test_names_that_are_not_utf8(tmp_path, split):
    """Listed, as JSON can, and not."""
    make(tmp_path)
    for name in (b"caf\xe9.jpg", b"th\xe9.jpg"):
        Image.new("RGB", (8, 6)).save(os.fsdecode(os.fsencode(tmp_path / "train2014") + b"/" + name))
    listed = os.fsdecode(b"caf\xe9.jpg")
    edit(tmp_path, "train", lambda content: content["images"].append({"id": 7, "file_name": listed}))
    images = [
        {"split": "train", "filepath": "train2014", "filename": name, "sentences": [{"raw": "A caption."}]}
        for name in (listed, file_name(2014, "train", 9))
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    problem = r"pictures whose names are not UTF-8, which a data set cannot hold: 1 (caf\xe9.jpg)"
    assert problem in refusal(tmp_path, split=split)
    source = read(tmp_path, split=split, allow_missing=True)
    assert f"left out: {problem}" in source.notes and len(source.examples) == (1 if split == "karpathy" else 5)
    if split == "official":
        unlisted = r"1 files in train2014/ are not in captions_train2014.json and were not read (th\xe9.jpg)"
        assert unlisted in source.notes


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_coco(tmp_path):
    source = read(Path(REAL, "coco"))
    assert source.notes == []
    assert [sum(e.split == split for e in source.examples) for split in ("train", "test")] == [80, 159]
    assert all(len(example.captions) == 5 for example in source.examples)
    options = PrepareConfig(
        source="coco",
        source_dir=f"{REAL}/coco",
        data_dir=str(tmp_path / "coco"),
        image_size=76,
        resize="shorter_side",
        workers=2,
    )
    prepare(options, progress=lambda done, total: None)
    dataset = records.Dataset.open(tmp_path / "coco", verify=True)
    assert "grey to RGB: 1 pictures (000000431848)" in dataset.manifest["notes"]
    content = json.loads(Path(REAL, "coco/annotations/captions_val2017.json").read_text())
    shapes = {image["file_name"]: (image["height"], image["width"]) for image in content["images"]}
    split = dataset.split("test")
    for name, record in zip(split.names, split.read(np.arange(split.num_images)), strict=True):
        fields = records.parse(record)
        height, width = shapes[f"{name}.jpg"]
        short = min(height, width)
        assert (int(fields["height"]), int(fields["width"])) == (76 * height // short, 76 * width // short)
