import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data.sources import cub
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")
CLASSES = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross", 4: "004.Groove_billed_Ani"}
IMAGES = {
    11: "001.Black_footed_Albatross/A_1.jpg",
    12: "001.Black_footed_Albatross/A_2.jpg",
    21: "002.Laysan_Albatross/B_1.jpg",
    22: "002.Laysan_Albatross/B_2.jpg",
    41: "004.Groove_billed_Ani/C_1.jpg",
}


def make(folder, captions="text_c10", end="\n"):
    """A CUB of five pictures whose lists agree. Official split: even ids are for training."""
    root = folder / "CUB_200_2011"
    tables = {
        "classes": CLASSES,
        "images": IMAGES,
        "image_class_labels": {number: number // 10 for number in IMAGES},
        "train_test_split": {number: int(number % 2 == 0) for number in IMAGES},
        "bounding_boxes": {number: f"{number}.0 2.0 3.0 4.0" for number in IMAGES},
    }
    for number, image in IMAGES.items():
        path = root / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
        text = folder / captions / Path(image).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_bytes(f"first of {number}{end}second of {number}{end}".encode())
    for name, table in tables.items():
        (root / f"{name}.txt").write_bytes("".join(f"{key} {value}{end}" for key, value in table.items()).encode())
    return folder


def read(folder, **options):
    return cub.read(PrepareConfig(source="cub", data_dir="out", source_dir=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_examples(tmp_path, end):
    source = read(make(tmp_path, end=end))
    assert source.notes == []
    assert [example.name for example in source.examples] == [name.removesuffix(".jpg") for name in IMAGES.values()]
    first = source.examples[0]
    assert first.class_name == "001.Black_footed_Albatross"
    assert first.box == (11.0, 2.0, 3.0, 4.0)
    assert [caption.strip() for caption in first.captions] == ["first of 11", "second of 11"]
    assert Path(first.image).is_file()


def test_splits(tmp_path):
    make(tmp_path)
    assert [example.split for example in read(tmp_path).examples] == ["test", "test", "train", "train", "test"]
    official = [example.split for example in read(tmp_path, split="official").examples]
    assert official == ["test", "train", "test", "train", "test"]
    assert len(cub.TEST_CLASSES) == 50
    assert set(range(1, 201)) > cub.TEST_CLASSES


@pytest.mark.parametrize("captions", ["text_c10", "text", "CUB_200_2011/text_c10", "CUB_200_2011/text"])
@pytest.mark.parametrize("given", ["", "CUB_200_2011"])
def test_layouts(tmp_path, captions, given):
    assert len(read(make(tmp_path, captions) / given).examples) == 5


def test_the_layout_of_attngan(tmp_path):
    make(tmp_path / "birds", "text")
    assert len(read(tmp_path).examples) == len(read(tmp_path / "birds").examples) == 5


def test_missing_files_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "CUB_200_2011" / "images" / IMAGES[12]).unlink()
    (tmp_path / "text_c10" / "002.Laysan_Albatross" / "B_1.txt").unlink()
    (tmp_path / "text_c10" / "002.Laysan_Albatross" / "B_2.txt").write_bytes(b"\n \n")
    (tmp_path / "text_c10" / "004.Groove_billed_Ani" / "C_1.txt").write_bytes(b"caf\xe9\n")
    message = refusal(tmp_path)
    assert f"pictures of images.txt that are not in images/: 1 ({IMAGES[12]})" in message
    for kind, file in [("missing", "B_1"), ("without a caption", "B_2"), ("that are not UTF-8", "C_1")]:
        assert f"caption files {kind}: 1 (" in message
        assert f"{file}.txt)" in message
    source = read(tmp_path, allow_missing=True)
    assert [example.name for example in source.examples] == ["001.Black_footed_Albatross/A_1"]
    assert len(source.notes) == 4
    assert all(note.startswith("left out: ") for note in source.notes)


def test_many_missing_files_are_counted(tmp_path):
    make(tmp_path)
    with open(tmp_path / "CUB_200_2011" / "images.txt", "a") as file:
        file.writelines(f"{number} 001.Black_footed_Albatross/X_{number}.jpg\n" for number in range(100, 130))
    assert "X_104.jpg and 25 more" in refusal(tmp_path)
    assert "ids of images.txt that image_class_labels lacks.txt" not in refusal(tmp_path)
    assert "ids of images.txt that image_class_labels.txt lacks: 30 (100, 101" in refusal(tmp_path)
    assert len(read(tmp_path, allow_missing=True).examples) == 5


def test_lists_of_different_length(tmp_path):
    """As in a repository that trimmed images.txt and left the other lists whole."""
    make(tmp_path)
    root = tmp_path / "CUB_200_2011"
    for name, value in (("image_class_labels", 2), ("train_test_split", 1)):
        with open(root / f"{name}.txt", "a") as file:
            file.write(f"23 {value}\n")
    with open(root / "classes.txt", "a") as file:
        file.write("5 005.Crested_Auklet\n")
    message = refusal(tmp_path)
    assert "ids of image_class_labels.txt that images.txt lacks: 1 (23)" in message
    assert "ids of train_test_split.txt that images.txt lacks: 1 (23)" in message
    assert "classes of classes.txt without a picture: 1 (005.Crested_Auklet)" in message
    assert len(read(tmp_path, allow_missing=True).examples) == 5


def test_class_lists_that_disagree(tmp_path):
    make(tmp_path)
    root = tmp_path / "CUB_200_2011"
    edit(root / "image_class_labels.txt", "12 1", "12 2")
    message = refusal(tmp_path)
    assert f"pictures whose folder is not the class of image_class_labels.txt: 1 ({IMAGES[12]})" in message
    assert len(read(tmp_path, allow_missing=True).examples) == 4
    edit(root / "classes.txt", "4 004.Groove_billed_Ani\n", "")
    assert "classes of image_class_labels.txt that classes.txt lacks: 1 (4)" in refusal(tmp_path)
    assert len(read(tmp_path, allow_missing=True).examples) == 3


def test_damaged_lists(tmp_path):
    make(tmp_path)
    root = tmp_path / "CUB_200_2011"
    edit(root / "bounding_boxes.txt", "21 21.0 2.0 3.0 4.0", "21 21.0 2.0 3.0")
    assert "bounding_boxes.txt, line 3: 4 columns instead of 5" in refusal(tmp_path)
    edit(root / "bounding_boxes.txt", "21 21.0 2.0 3.0", "21 21.0 2.0 3.0 x")
    assert "bounding_boxes.txt is damaged" in refusal(tmp_path)
    edit(root / "bounding_boxes.txt", "21 21.0 2.0 3.0 x", "11 21.0 2.0 3.0 4.0")
    assert "1 ids twice" in refusal(tmp_path)
    (root / "train_test_split.txt").unlink()
    assert "train_test_split.txt is missing" in refusal(tmp_path)


def test_folders_that_are_not_cub(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "images.txt" in refusal(tmp_path)
    make(tmp_path)
    (tmp_path / "text_c10").rename(tmp_path / "captions")
    assert "no captions beside" in refusal(tmp_path)
    assert all(example.captions == () for example in read(tmp_path, captions="none").examples)
    with pytest.raises(UserError, match="--source_dir is missing"):
        cub.read(PrepareConfig(source="cub", data_dir="out"))


def test_unlisted_pictures_are_noted(tmp_path):
    make(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "CUB_200_2011" / "images" / "001.Black_footed_Albatross" / "Z.jpg")
    assert read(tmp_path).notes == ["1 pictures in images/ are in no list and were not read"]


def test_num_images_keeps_both_splits(tmp_path):
    examples = read(make(tmp_path), num_images=2).examples
    assert [example.split for example in examples] == ["test", "train"]
    assert len(read(tmp_path, num_images=4).examples) == 4
    assert "too few" in refusal(tmp_path, num_images=1)


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_cub():
    source = read(Path(REAL, "cub"))
    assert len(source.examples) == 424
    assert source.notes == []
    assert all(len(example.captions) == 10 for example in source.examples)
    lists = Path(REAL, "cub_full_lists")
    test_classes = (lists / "reed_split" / "testclasses.txt").read_text().split()
    assert {int(name.split(".")[0]) for name in test_classes} == cub.TEST_CLASSES
    names = pickle.loads((lists / "attngan_birds" / "test" / "filenames.pickle").read_bytes())
    here = {example.class_name for example in source.examples}
    expected = {name for name in names if name.split("/")[0] in here}
    assert {example.name for example in source.examples if example.split == "test"} == expected
    sizes = [Image.open(example.image).size for example in source.examples]
    boxes = np.array([example.box for example in source.examples])
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array(sizes) + 1).all()
