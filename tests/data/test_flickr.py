import json
import os
from pathlib import Path

import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import flickr
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")
NAMES = {"train": ["30_c.jpg", "10_a.jpg", "20_b.jpg"], "val": ["40_d.jpg"], "test": ["50_e.jpg"]}
LISTS = {
    "flickr8k": {
        split: f"Flickr_8k.{name}Images.txt" for split, name in zip(NAMES, ("train", "dev", "test"), strict=True)
    },
    "flickr30k": {split: f"{split}.txt" for split in NAMES},
}
TOKENS = {"flickr8k": "Flickr8k.token.txt", "flickr30k": "results_20130124.token"}
FOLDERS = {"flickr8k": "Flicker8k_Dataset", "flickr30k": "flickr30k-images"}
SOURCES = pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])


def make(root, name, folder=None, text=""):
    """A data set of five pictures in the official layout; lists and captions are in different orders."""
    pictures, texts = root / (folder or FOLDERS[name]), root / text
    pictures.mkdir(parents=True)
    texts.mkdir(exist_ok=True)
    files = sorted(file for of_split in NAMES.values() for file in of_split)
    for file in files:
        Image.new("RGB", (8, 6), (int(file[:2]), 0, 0)).save(pictures / file)
    lines = [f"{file}#{i}\tA picture , number {i} of {file[:2]} ." for file in files for i in range(5)]
    (texts / TOKENS[name]).write_text("\n".join(lines) + "\n")
    for split, file in LISTS[name].items():
        (texts / file).write_text("\n".join(NAMES[split]) + "\n")
    return root


def make_karpathy(root, file, images):
    """images: (split, filepath or None, file name, number of captions)."""
    content = {"dataset": "d", "images": []}
    for number, (split, filepath, name, captions) in enumerate(images):
        sentences = [
            {"tokens": ["caption"], "raw": f"Caption {i} of {name}.", "imgid": number, "sentid": i}
            for i in range(captions)
        ]
        image = {"split": split, "filename": name, "imgid": number, "sentids": [], "sentences": sentences}
        content["images"].append(image | ({"filepath": filepath} if filepath else {}))
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


def read(folder, name, **options):
    return flickr.read(PrepareConfig(source=name, data_dir="out", source_dir=str(folder), **options))


def refusal(folder, name, **options):
    with pytest.raises(UserError) as caught:
        read(folder, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name, folder, text",
    [
        ("flickr8k", None, ""),
        ("flickr8k", "Flickr8k_Dataset", "Flickr8k_text"),
        ("flickr30k", None, ""),
        ("flickr30k", "flickr30k_images", ""),
    ],
)
def test_examples(tmp_path, name, folder, text):
    source = read(make(tmp_path, name, folder, text), name)
    assert (source.name, source.notes) == (name, [])
    assert [(e.split, e.name) for e in source.examples] == [
        (split, file.removesuffix(".jpg")) for split, files in NAMES.items() for file in files
    ]
    first = source.examples[0]
    assert first.captions == tuple(f"A picture , number {i} of 30 ." for i in range(5))
    assert (first.class_name, first.box) == (None, None)
    assert Path(first.image) == tmp_path / (folder or FOLDERS[name]) / "30_c.jpg"


def test_prepared(tmp_path, capsys):
    make(tmp_path / "in", "flickr8k")
    options = PrepareConfig(
        source="flickr8k", source_dir=str(tmp_path / "in"), data_dir=str(tmp_path / "out"), image_size=6, workers=1
    )
    prepare(options, progress=lambda done, total: None)
    dataset = records.Dataset.open(tmp_path / "out", verify=True)
    assert {split: entry["images"] for split, entry in dataset.manifest["splits"].items()} == {
        "train": 3,
        "val": 1,
        "test": 1,
    }
    assert dataset.manifest["vocabulary"][:4] == ["a", "number", "of", "picture"]
    assert "Next: t2i-train --paper=damsm" in capsys.readouterr().out, "without classes, what AttnGAN rests on"
    assert dataset.split("val").captions()[0][2] == "A picture , number 2 of 40 ."


def test_lists_without_the_extension(tmp_path):
    make(tmp_path, "flickr30k")
    (tmp_path / "val.txt").write_text("40_d\r\n\r\n")  # as Flickr30k Entities has them
    assert [e.name for e in read(tmp_path, "flickr30k").examples if e.split == "val"] == ["40_d"]


def test_captions_go_by_their_numbers(tmp_path):
    make(tmp_path, "flickr8k")
    path = tmp_path / TOKENS["flickr8k"]
    path.write_text("\n".join(reversed(path.read_text().splitlines())))  # and no line break at the end
    assert read(tmp_path, "flickr8k").examples[1].captions[4] == "A picture , number 4 of 10 ."


def test_the_name_that_is_no_picture(tmp_path):
    make(tmp_path, "flickr8k")
    with open(tmp_path / TOKENS["flickr8k"], "a") as file:
        file.writelines(f"2258277193_586949ec62.jpg.1#{i}\tpeople waiting\n" for i in range(5))
        file.write("60_f.jpg#0\tin no list\n")
    source = read(tmp_path, "flickr8k")
    assert len(source.examples) == 5
    assert source.notes == [
        "5 captions of Flickr8k.token.txt are of names that are no picture (2258277193_586949ec62.jpg.1)",
        "1 pictures are in no list and were not read (60_f.jpg)",
    ]


@SOURCES
def test_missing_pictures_and_captions_are_named(tmp_path, name):
    make(tmp_path, name)
    (tmp_path / FOLDERS[name] / "20_b.jpg").unlink()
    path = tmp_path / TOKENS[name]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("40_d")))
    lacking = [
        f"pictures of the lists that are not in {FOLDERS[name]}/: 1 (20_b.jpg)",
        f"pictures of the lists without a caption in {TOKENS[name]}: 1 (40_d.jpg)",
    ]
    message = refusal(tmp_path, name)
    assert all(line in message for line in lacking) and "--allow_missing" in message
    source = read(tmp_path, name, allow_missing=True)
    assert [e.name for e in source.examples] == ["30_c", "10_a", "50_e"]
    assert source.notes == [f"left out: {line}" for line in lacking]
    without = read(tmp_path, name, allow_missing=True, captions="none").examples
    assert len(without) == 4 and {e.captions for e in without} == {()}


@SOURCES
def test_files_and_folders_that_are_missing(tmp_path, name):
    assert f"has no folder {FOLDERS[name]} or " in refusal(tmp_path, name)
    make(tmp_path, name)
    (tmp_path / LISTS[name]["val"]).unlink()
    message = refusal(tmp_path, name)
    assert f"lacks {LISTS[name]['val']}: put the lists there" in message and "--split=karpathy" in message
    (tmp_path / TOKENS[name]).unlink()
    assert f"{TOKENS[name]} is missing: put it there" in refusal(tmp_path, name)
    assert f"dataset_{name}.json is missing: unpack it from Karpathy's" in refusal(tmp_path, name, split="karpathy")
    assert "has no restval; choose --split=karpathy" in refusal(tmp_path, name, split="karpathy_restval")


def test_damaged_files(tmp_path):
    make(tmp_path, "flickr8k")
    path = tmp_path / TOKENS["flickr8k"]
    whole = path.read_text()
    for line, message in [
        ("no tab#0 here", "line 26: not `picture.jpg#0`, a tab and a caption"),
        ("10_a.jpg\tno number", "line 26: not `picture.jpg#0`"),
        ("10_a.jpg#x\tno number", "line 26: not `picture.jpg#0`"),
        ("10_a.jpg#4\tagain", "line 26: 10_a.jpg#4 is there twice"),
    ]:
        path.write_text(whole + line)
        assert message in refusal(tmp_path, "flickr8k")
    path.write_bytes(b"\xff")
    assert "is not UTF-8 (byte 0)" in refusal(tmp_path, "flickr8k")
    path.write_text(whole)
    with open(tmp_path / LISTS["flickr8k"]["test"], "a") as file:
        file.write("10_a.jpg\n")
    assert "10_a.jpg is there twice, or also in Flickr_8k.trainImages.txt" in refusal(tmp_path, "flickr8k")


def test_num_images_keeps_all_splits(tmp_path):
    examples = read(make(tmp_path, "flickr8k"), "flickr8k", num_images=3).examples
    assert [e.split for e in examples] == ["train", "val", "test"]


# Karpathy's splits.


@SOURCES
def test_karpathy_splits(tmp_path, name):
    make(tmp_path, name)
    images = [("test", None, "10_a.jpg", 5), ("train", None, "50_e.jpg", 6), ("val", None, "20_b.jpg", 1)]
    make_karpathy(tmp_path, f"dataset_{name}.json", images)
    source = read(tmp_path, name, split="karpathy")
    assert [(e.split, e.name) for e in source.examples] == [("test", "10_a"), ("train", "50_e"), ("val", "20_b")]
    assert source.examples[1].captions == tuple(f"Caption {i} of 50_e.jpg." for i in range(5))
    assert source.notes == [
        f"1 captions of dataset_{name}.json beyond the fifth of a picture, dropped as the papers do"
    ]
    assert source.info["split"] == f"Karpathy's, dataset_{name}.json"
    assert {e.captions for e in read(tmp_path, name, split="karpathy", captions="none").examples} == {()}


def test_pictures_that_karpathy_lists_and_that_are_missing(tmp_path):
    make(tmp_path, "flickr8k")
    images = [("test", None, "10_a.jpg", 5), ("train", None, "99_z.jpg", 5)]
    make_karpathy(tmp_path, "dataset_flickr8k.json", images)
    expected = "pictures of dataset_flickr8k.json that are not in Flicker8k_Dataset/: 1 (99_z.jpg)"
    assert expected in refusal(tmp_path, "flickr8k", split="karpathy")
    source = read(tmp_path, "flickr8k", split="karpathy", allow_missing=True)
    assert [e.name for e in source.examples] == ["10_a"] and source.notes == [f"left out: {expected}"]


def test_damaged_karpathy_files(tmp_path):
    make(tmp_path, "flickr8k")
    path = tmp_path / "dataset_flickr8k.json"
    picture = {"split": "train", "filename": "10_a.jpg", "sentences": [{"raw": "a"}]}
    for content, message in [
        ('{"images": [', "is damaged or cut short ("),
        ("[]", "has no splits of Karpathy ("),
        ("{}", "(no 'images')"),
        ('{"images": ["a"]}', "has no splits of Karpathy ("),
        (json.dumps({"images": [picture | {"filename": 3}]}), "(3 is no text)"),
        (json.dumps({"images": [{k: v for k, v in picture.items() if k != "sentences"}]}), "(no 'sentences')"),
        (json.dumps({"images": [picture | {"split": "dev"}]}), "has unknown splits dev: it should have train, val"),
        (json.dumps({"images": [picture, picture]}), "lists 1 pictures twice"),
    ]:
        path.write_text(content)
        found = refusal(tmp_path, "flickr8k", split="karpathy")
        assert found.startswith(str(path)) and message in found


def test_only_these_sources_have_karpathy_splits(tmp_path):
    options = PrepareConfig(source="cub", data_dir=str(tmp_path / "out"), source_dir=str(tmp_path), split="karpathy")
    with pytest.raises(UserError, match="--split=karpathy: only coco, flickr30k, flickr8k have these splits"):
        prepare(options)


# The official files.


@SOURCES
def test_a_name_that_is_not_utf8(tmp_path, name):
    make(tmp_path, name)
    Image.new("RGB", (8, 6)).save(os.fsdecode(os.fsencode(tmp_path / FOLDERS[name]) + b"/caf\xe9.jpg"))
    assert read(tmp_path, name).notes == [r"1 pictures are in no list and were not read (caf\xe9.jpg)"]


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_flickr8k(tmp_path):
    source = read(Path(REAL, "flickr8k"), "flickr8k")
    assert source.notes == []
    splits = [e.split for e in source.examples]
    assert [splits.count(split) for split in ("train", "val", "test")] == [140, 22, 22]
    assert {len(e.captions) for e in source.examples} == {5}
    options = PrepareConfig(
        source="flickr8k", source_dir=f"{REAL}/flickr8k", data_dir=str(tmp_path / "out"), num_images=12, image_size=64,
        resize="shorter_side", workers=2,
    )  # fmt: skip
    prepare(options, progress=lambda done, total: None)
    manifest = records.Dataset.open(tmp_path / "out", verify=True).manifest
    assert sum(entry["captions"] for entry in manifest["splits"].values()) == 60


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_texts_of_flickr8k(tmp_path):
    """All of them, without the pictures: whose names are all that is read of them here."""
    for path in Path(REAL, "flickr8k_full_text").glob("Flickr*.txt"):
        (tmp_path / path.name).symlink_to(path)
    pictures = tmp_path / "Flickr8k_Dataset"
    pictures.mkdir()
    names = {line.split("#")[0] for line in (tmp_path / "Flickr8k.token.txt").read_text().splitlines()}
    for name in names - {"2258277193_586949ec62.jpg.1"}:
        (pictures / name).touch()
    source = read(tmp_path, "flickr8k")
    splits = [e.split for e in source.examples]
    assert [splits.count(split) for split in ("train", "val", "test")] == [6000, 1000, 1000]
    assert {len(e.captions) for e in source.examples} == {5}
    assert source.notes[0] == (
        "5 captions of Flickr8k.token.txt are of names that are no picture (2258277193_586949ec62.jpg.1)"
    )
    assert source.notes[1].startswith("91 pictures are in no list and were not read (")
