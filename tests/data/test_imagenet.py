import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import imagenet
from t2i_tf.errors import UserError


def make(folder, synsets, pictures=2, name="{synset}_{number}.JPEG"):
    for synset in synsets:
        (folder / synset).mkdir(parents=True)
        for number in range(pictures):
            Image.new("RGB", (12, 9)).save(folder / synset / name.format(synset=synset, number=number), "JPEG")
    return folder


def make_val(folder, synsets):
    return make(folder, synsets, 1, "ILSVRC2012_val_{synset}{number}.JPEG")


def read(folder, **options):
    return imagenet.read(PrepareConfig(source="imagenet", data_dir="out", source_dir=str(folder), **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_lists():
    """Anchors are class numbers of networks trained on ILSVRC-2012, whose outputs follow the sorted synsets."""
    assert (len(imagenet.DOG), len(imagenet.CAT)) == (118, 5)
    for synsets in imagenet.SUBSETS.values():
        assert list(synsets) == sorted(set(synsets))
        assert all(re.fullmatch(r"n02\d{6}", synset) for synset in synsets)
    assert (imagenet.DOG[0], imagenet.DOG[-1]) == ("n02085620", "n02113978")
    anchors = {
        151: "n02085620",  # Chihuahua
        152: "n02085782",  # Japanese spaniel
        207: "n02099601",  # golden retriever
        208: "n02099712",  # Labrador retriever
        235: "n02106662",  # German shepherd
        251: "n02110341",  # dalmatian
        266: "n02113712",  # miniature poodle
        268: "n02113978",  # Mexican hairless
    }
    assert {number: imagenet.DOG[number - 151] for number in anchors} == anchors
    wild = ["n02114367", "n02114548", "n02115641", "n02115913", "n02116738", "n02119022"]  # wolves to red fox
    kinds = ["n02084071", "n02121808"]  # dog and domestic cat are no classes themselves
    assert not {*wild, *kinds} & {*imagenet.DOG, *imagenet.CAT}


@pytest.mark.parametrize("inner", ["train", "."])
def test_examples(tmp_path, inner):
    make(tmp_path / inner, [*imagenet.CAT, imagenet.DOG[0], "n01440764"])
    make_val(tmp_path / "val", [*imagenet.CAT, "n01440764"])
    source = read(tmp_path, subset="cat")
    assert source.notes == []
    assert (source.name, source.info["subset"]) == ("imagenet_cat", "cat")
    train = [example for example in source.examples if example.split == "train"]
    assert [example.class_name for example in train] == [synset for synset in imagenet.CAT for _ in range(2)]
    assert train[0].name == "n02123045/n02123045_0"
    assert Path(train[0].image).is_file()
    assert {example.captions for example in source.examples} == {()}
    test = [example for example in source.examples if example.split == "test"]
    assert [example.name for example in test] == [f"{s}/ILSVRC2012_val_{s}0" for s in imagenet.CAT]


def test_all_takes_what_is_there(tmp_path):
    make(tmp_path / "train", ["n01440764", "n02085620"])
    make(tmp_path / "train", ["not_a_synset"])
    source = read(tmp_path, subset="all")
    assert {example.class_name for example in source.examples} == {"n01440764", "n02085620"}
    assert source.notes == [f"there are no synset folders in {tmp_path}/val, so no test split"]


def test_all_dogs(tmp_path):
    make(tmp_path, imagenet.DOG, 1)
    make(tmp_path, ["n02114367", *imagenet.CAT], 1)
    assert [example.class_name for example in read(tmp_path, subset="dog").examples] == list(imagenet.DOG)


def test_a_subset_must_be_chosen(tmp_path):
    make(tmp_path, imagenet.CAT)
    assert refusal(tmp_path) == "--subset is missing: say which classes of ImageNet, dog, cat or all"
    options = PrepareConfig(source="folder", source_dir=str(tmp_path), data_dir=str(tmp_path / "out"), subset="dog")
    with pytest.raises(UserError, match="--subset=dog: only --source=imagenet has subsets"):
        prepare(options)


def test_missing_synsets_are_named(tmp_path):
    make(tmp_path / "train", imagenet.CAT[1:])
    for picture in (tmp_path / "train" / imagenet.CAT[2]).iterdir():
        picture.unlink()
    make_val(tmp_path / "val", imagenet.CAT[:4])
    message = refusal(tmp_path, subset="cat")
    assert f"synset folders missing in {tmp_path}/train: 1 (n02123045)" in message
    assert f"synset folders without a picture: 1 ({tmp_path}/train/n02123394)" in message
    assert f"synset folders missing in {tmp_path}/val: 1 (n02124075)" in message
    source = read(tmp_path, subset="cat", allow_missing=True)
    assert [example.class_name for example in source.examples if example.split == "train"] == [
        synset for synset in (imagenet.CAT[1], imagenet.CAT[3], imagenet.CAT[4]) for _ in range(2)
    ]
    assert sum(note.startswith("left out: ") for note in source.notes) == 3


def test_folders_that_are_not_imagenet(tmp_path):
    assert "holds no synset folders such as n02085620/: --source_dir is" in refusal(tmp_path, subset="dog")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "n02085620.tar").touch()
    assert "/train holds no synset folders such as n02085620/: unpack each n*.tar" in refusal(tmp_path, subset="dog")
    assert "no such folder" in refusal(tmp_path / "nowhere", subset="dog")


def test_flat_val_and_other_files_are_noted(tmp_path):
    make(tmp_path / "train", imagenet.CAT)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    (tmp_path / "train" / imagenet.CAT[0] / "images.csv").touch()
    assert read(tmp_path, subset="cat").notes == [
        f"1 files of {tmp_path}/train/n02123045 are no pictures by name (images.csv)",
        f"there are no synset folders in {tmp_path}/val, so no test split",
    ]


def test_prepared_without_saying_that_there_are_no_captions(tmp_path, capsys):
    """Grey, CMYK, and a PNG under another name, as the official files have them."""
    folder = make(tmp_path / "in", imagenet.CAT)
    cat = folder / imagenet.CAT[0]
    rng = np.random.default_rng(0)
    for name, mode, kind in [("cmyk", "CMYK", "JPEG"), ("grey", "L", "JPEG"), ("png", "RGB", "PNG")]:
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).convert(mode).save(cat / f"{name}.JPEG", kind)
    options = PrepareConfig(
        source="imagenet",
        source_dir=str(folder),
        data_dir=str(tmp_path / "out"),
        subset="cat",
        image_size=32,
        workers=1,
    )
    prepare(options, progress=lambda done, total: None)
    dataset = records.Dataset.open(tmp_path / "out", verify=True)
    manifest = dataset.manifest
    assert manifest["options"]["captions"] == "none"
    assert manifest["options"]["subset"] == "cat"
    assert manifest["captions_per_image"] == {"min": 0, "max": 0, "mean": 0.0}
    assert manifest["classes"] == list(imagenet.CAT)
    assert list(manifest["splits"]) == ["train"]
    assert "CMYK to RGB: 1 pictures (n02123045/cmyk)" in manifest["notes"]
    assert "grey to RGB: 1 pictures (n02123045/grey)" in manifest["notes"]
    split = dataset.split("train")
    for name in ("cmyk", "grey", "png"):
        record = records.parse(split.read([split.names.index(f"n02123045/{name}")])[0])
        source = Image.open(cat / f"{name}.JPEG").convert("RGB")
        stored = Image.open(io.BytesIO(record["image"].numpy()))
        assert np.abs(np.asarray(stored, int) - np.asarray(source, int)).mean() < 4
    prepare(options)
    assert "nothing to do" in capsys.readouterr().out


def test_names_that_are_not_utf8(tmp_path):
    make(tmp_path, imagenet.CAT)
    Image.new("RGB", (8, 8)).save(os.fsdecode(os.fsencode(tmp_path / "n02123045") + b"/caf\xe9.JPEG"), "JPEG")
    Path(os.fsdecode(os.fsencode(tmp_path / "n02123045") + b"/th\xe9.txt")).touch()
    problem = r"pictures whose names are not UTF-8, which a data set cannot hold: 1 (n02123045/caf\xe9.JPEG)"
    assert problem in refusal(tmp_path, subset="cat")
    source = read(tmp_path, subset="cat", allow_missing=True)
    assert len(source.examples) == 10 and all(example.name.encode() for example in source.examples)
    assert f"left out: {problem}" in source.notes and r"are no pictures by name (th\xe9.txt)" in " ".join(source.notes)
