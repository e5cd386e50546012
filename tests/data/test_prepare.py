import dataclasses
import io
import json
import os
import pickle
import re
import resource
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records, sources
from t2i_tf.data.prepare import clean_caption, prepare
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")
COLORS = ["red", "green", "blue", "grey"]


def make(folder, count=40):
    """A folder source of noise pictures, 20 x 30, in four classes; one in four is grey."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    with open(folder / "captions.jsonl", "w") as file:
        for number in range(count):
            color = COLORS[number % 4]
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).convert("L" if color == "grey" else "RGB")
            image.save(folder / f"{number:03d}.jpg")
            line = {
                "image": f"{number:03d}.jpg",
                "captions": [f"a {color} picture", f"the {color} number {number}"][: 1 + (number > 0)],
                "class": color,
                "split": "test" if number % 5 == 4 else "train",
                "box": [10, 5, 6, 12],
            }
            file.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture
def options(tmp_path):
    folder = make(tmp_path / "in")
    return PrepareConfig(
        source="folder", source_dir=str(folder), data_dir=str(tmp_path / "out" / "set"), image_size=16, workers=1
    )


def change(options, **changes):
    return dataclasses.replace(options, **changes)


def refusal(options):
    with pytest.raises(UserError) as caught:
        prepare(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers(options):
    parent = Path(options.data_dir).parent
    return sorted(path.name for path in parent.iterdir()) if parent.exists() else []


def test_the_data_set(options, capsys):
    seen = []
    assert prepare(options, progress=lambda done, total: seen.append((done, total))) == Path(options.data_dir)
    assert seen == [(i + 1, 40) for i in range(40)]
    assert leftovers(options) == ["set"]
    dataset = records.Dataset.open(options.data_dir, verify=True)
    manifest = dataset.manifest
    assert list(manifest["splits"]) == ["train", "test"]
    assert manifest["classes"] == sorted(COLORS)
    assert [manifest["splits"][split]["images"] for split in ("train", "test")] == [32, 8]
    assert [manifest["splits"][split]["captions"] for split in ("train", "test")] == [63, 16]
    assert [manifest["splits"][split]["boxes"] for split in ("train", "test")] == [32, 8]
    assert manifest["splits"]["test"]["classes"] == sorted(COLORS)
    assert manifest["captions_per_image"] == {"min": 1, "max": 2, "mean": 79 / 40}
    assert (manifest["image_size"], manifest["image_channels"], manifest["quality"]) == (16, 3, 95)

    names = [f"{i:03d}.jpg" for i in range(40) if i % 5 == 4]
    split = dataset.split("test")
    assert split.names == names
    assert split.captions()[1] == ["a green picture", "the green number 9"]
    for name, record, class_id in zip(names, split.read(np.arange(8)), split.class_ids, strict=True):
        fields = records.parse(record)
        assert manifest["classes"][class_id] == COLORS[int(name[:3]) % 4]
        np.testing.assert_allclose(fields["box"], [10 * 16 / 30, 4, 6 * 16 / 30, 9.6], rtol=1e-6)
        picture = Image.open(io.BytesIO(fields["image"].numpy()))
        assert (picture.size, picture.mode) == ((16, 16), "RGB")
        expected = Image.open(Path(options.source_dir, name)).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).mean() < 4

    out = capsys.readouterr().out
    assert "train: 32 pictures, 63 captions, 4 classes" in out
    assert "grey to RGB: 10 pictures (003.jpg, 007.jpg, 011.jpg, 015.jpg, 023.jpg and 5 more)" in out
    assert f"Next: t2i-train --paper=char_cnn_rnn --data_dir={options.data_dir}" in out
    assert any(note.startswith("grey to RGB: 10") for note in manifest["notes"])


def test_vocabulary_is_of_training_captions(options):
    prepare(options)
    manifest = records.Dataset.open(options.data_dir).manifest
    counts = Counter(
        word
        for i in range(40)
        if i % 5 != 4
        for caption in [f"a {COLORS[i % 4]} picture", f"the {COLORS[i % 4]} number {i}"][: 1 + (i > 0)]
        for word in caption.split()
    )
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(manifest["vocabulary"], manifest["vocabulary_counts"], strict=True)) == expected
    assert manifest["vocabulary"][:3] == ["a", "picture", "number"]
    assert "4" not in manifest["vocabulary"]


def test_workers_change_nothing(options, tmp_path):
    options = change(options, shard_megabytes=1)
    prepare(options)
    again = change(options, data_dir=str(tmp_path / "again"), workers=2)
    prepare(again)
    files = {path.name for path in Path(options.data_dir).iterdir()}
    assert files == {path.name for path in Path(again.data_dir).iterdir()}
    for name in files:
        assert (Path(options.data_dir) / name).read_bytes() == (Path(again.data_dir) / name).read_bytes(), name


def test_box_crop_drops_the_box(options):
    prepare(change(options, crop="box"))
    fields = records.parse(records.Dataset.open(options.data_dir).split("train").read([0])[0])
    assert not fields["has_box"]
    assert records.Dataset.open(options.data_dir).manifest["splits"]["train"]["boxes"] == 0
    lines = Path(options.source_dir, "captions.jsonl").read_text().replace(', "box": [10, 5, 6, 12]', "", 1)
    Path(options.source_dir, "captions.jsonl").write_text(lines)
    options = change(options, crop="box", data_dir=f"{options.data_dir}2")
    assert "without a bounding box, which --crop=box needs: 1 (000.jpg)" in refusal(options)


def test_the_same_command_again(options, capsys):
    prepare(options)
    before = {path.name: path.stat().st_mtime_ns for path in Path(options.data_dir).iterdir()}
    prepare(change(options, workers=2))
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in Path(options.data_dir).iterdir()}
    message = refusal(change(options, image_size=32, seed=1))
    assert "image_size=16 (asked for: 32), seed=0 (asked for: 1)" in message
    manifest = Path(options.data_dir, "dataset.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content["stretch_contrast"] is False and not content["options"].pop("stretch_contrast")
    manifest.write_text(json.dumps(content), encoding="utf-8")  # as of a time that knew no such option
    assert "stretch_contrast=False (asked for: True)" in refusal(change(options, stretch_contrast=True))
    prepare(options)
    next(Path(options.data_dir).glob("*.tfrecord")).unlink()
    assert "is missing" in refusal(options)


def test_folders_that_are_not_data_sets(options, tmp_path):
    target = Path(options.data_dir)
    target.mkdir(parents=True)
    prepare(options)  # an empty folder is no obstacle
    (target / "dataset.json").unlink()
    assert "half-written" in refusal(options)
    assert "exists and is not a data set" in refusal(change(options, data_dir=str(tmp_path / "in" / "000.jpg")))
    assert "local folders" in refusal(change(options, data_dir="gs://bucket/set"))


def test_a_stale_partial_folder_is_no_data_set(options):
    prepare(options)
    partial = Path(f"{options.data_dir}.partial")
    Path(options.data_dir).rename(partial)
    with pytest.raises(UserError, match="unfinished"):
        records.Dataset.open(partial)
    prepare(options)
    assert leftovers(options) == ["set"]
    assert "another name" in refusal(change(options, data_dir=str(partial)))


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_pictures_are_all_named(options, workers):
    folder = Path(options.source_dir)
    data = (folder / "001.jpg").read_bytes()
    for number in range(5, 35):
        (folder / f"{number:03d}.jpg").write_bytes(data[:-9])
    (folder / "002.jpg").write_bytes(b"")
    (folder / "039.jpg").write_text("not an image")
    options = change(options, workers=workers)
    message = refusal(options)
    assert "32 pictures cannot be used" in message
    assert f"{folder}/002.jpg (empty file)" in message
    assert len(re.findall(r"\.jpg \(", message)) == 20
    assert "and 12 more" in message
    assert leftovers(options) == ["set.partial"]
    seen = []
    prepare(change(options, allow_missing=True), progress=lambda done, total: seen.append(done))
    assert seen == []  # the good ones were stored
    manifest = records.Dataset.open(options.data_dir).manifest
    assert manifest["splits"]["train"]["images"] + manifest["splits"]["test"]["images"] == 8
    assert any("left out: 32 pictures" in note for note in manifest["notes"])


def test_nothing_usable(options):
    for path in Path(options.source_dir).glob("*.jpg"):
        path.write_bytes(b"")
    assert "40 pictures" in refusal(change(options, allow_missing=True))
    assert leftovers(options) == ["set.partial"]


def test_clean_caption():
    tally = Counter()
    cases = {
        " a bird ": "a bird",
        "a\ufffd\ufffdred\ufffd\ufffdbird": "a red bird",
        "a\r\nbird\r": "a bird",
        "one\ufffd only": "one\ufffd only",
        "\t\r": "",
        "鳥": "鳥",
        "x" * 202: "x" * 202,
    }
    assert [clean_caption(raw, tally) for raw in cases] == list(cases.values())
    assert [(count, what.split(",")[0]) for what, count in sorted(tally.items())] == [
        (1, "captions are longer than 201 characters"),
        (2, "captions had line breaks (CRLF)"),
        (1, "captions had pairs of U+FFFD"),
        (1, "captions have no word of ASCII letters or digits"),
        (1, "empty captions"),
    ]


def test_pictures_without_a_caption(options):
    path = Path(options.source_dir, "captions.jsonl")
    path.write_text(path.read_text().replace('["a red picture"]', '["  "]', 1))
    assert "pictures without a caption: 1 (000.jpg)" in refusal(options)
    prepare(change(options, allow_missing=True))
    manifest = records.Dataset.open(options.data_dir).manifest
    assert "left out: pictures without a caption: 1 (000.jpg)" in manifest["notes"]
    assert "1 empty captions, dropped" in manifest["notes"]


def test_no_captions_at_all(options, capsys):
    prepare(change(options, captions="none"))
    dataset = records.Dataset.open(options.data_dir)
    assert dataset.manifest["vocabulary"] == []
    assert dataset.split("train").captions() == [[]] * 32
    out = capsys.readouterr().out
    assert f"Next: t2i-train --paper=stackgan_v2 --noconditional --color_weight=50 --data_dir={options.data_dir}" in out


def test_captions_are_dropped_on_demand(tmp_path):
    prepare(PrepareConfig(source="blossoms", data_dir=str(tmp_path / "set"), num_images=4, captions="none", workers=1))
    manifest = records.Dataset.open(tmp_path / "set").manifest
    assert [entry["captions"] for entry in manifest["splits"].values()] == [0, 0]


def test_kept_size_and_shorter_side(options):
    prepare(change(options, image_size=None))
    fields = records.parse(records.Dataset.open(options.data_dir).split("train").read([0])[0])
    assert fields["image"].numpy() == Path(options.source_dir, "000.jpg").read_bytes()
    assert (fields["height"], fields["width"]) == (20, 30)
    options = change(options, resize="shorter_side", data_dir=f"{options.data_dir}2")
    prepare(options)
    fields = records.parse(records.Dataset.open(options.data_dir).split("train").read([0])[0])
    assert (fields["height"], fields["width"]) == (16, 24)


def test_shards(options):
    """Noise of 256 pixels at quality 100 is about 100 KB a picture."""
    prepare(change(options, image_size=256, quality=100, shard_megabytes=1, resample="box"))
    shards = records.Dataset.open(options.data_dir, verify=True).manifest["splits"]["train"]["shards"]
    assert len(shards) > 1
    assert all(shard["bytes"] <= 1_000_000 for shard in shards)
    assert sum(shard["records"] for shard in shards) == 32


def test_wrong_options(options):
    for changes, message in [
        ({"source": "celeba"}, "--source=celeba: unknown; choose one of blossoms, coco, cub"),
        ({"image_size": 0}, "--image_size=0"),
        ({"quality": 101}, "--quality=101"),
        ({"workers": 0}, "--workers=0"),
        ({"shard_megabytes": 0}, "--shard_megabytes=0"),
        ({"part_images": 0}, "--part_images=0"),
        ({"part": "3/2"}, "--part=3/2"),
        ({"part": "0/2"}, "--part=0/2"),
        ({"part": "half"}, "--part=half"),
        ({"source_dir": "/nowhere"}, "--source_dir=/nowhere: no such folder"),
    ]:
        assert message in refusal(change(options, **changes))


def test_a_disk_that_refuses(options):
    """A file-size limit stands for a full disk: the write fails in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        message = refusal(change(options, image_size=64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in message
    assert "File too large" in message
    assert list(Path(f"{options.data_dir}.partial").glob("**/*.tfrecord")) == []
    prepare(change(options, image_size=64))
    assert leftovers(options) == ["set"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_is_too_small(options, small_disk):
    message = refusal(change(options, image_size=128, data_dir=str(small_disk / "set")))
    assert re.search(r"needs about 0|needs about 1 MB, its disk has 0 MB free", message)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up(options, small_disk):
    """The sampled pictures are plain and small, the others are noise: the estimate is fooled."""
    folder = Path(options.source_dir)
    for number in [i for i in range(40) if i % 5 == 0 or i % 10 == 4]:
        Image.new("RGB", (20, 30)).save(folder / f"{number:03d}.jpg")
    message = refusal(change(options, image_size=64, data_dir=str(small_disk / "set")))
    assert "No space left on device" in message
    assert [path.name for path in small_disk.iterdir()] == ["set.partial"]


def write_embeddings(folder, counts):
    for split, names in (("train", [f"{i:03d}" for i in range(39, -1, -1)]), ("test", [f"{i:03d}" for i in range(40)])):
        (folder / split).mkdir(parents=True)
        rows = [np.full((counts, 4), int(name), np.float32) + np.arange(counts)[:, None] / 10 for name in names]
        (folder / split / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(rows, 2))
        (folder / split / "filenames.pickle").write_bytes(pickle.dumps(names, 2))
    return str(folder)


def test_embeddings_are_attached_in_record_order(options, tmp_path):
    path = Path(options.source_dir, "captions.jsonl")
    path.write_text(path.read_text().replace('["a red picture"]', '["a", "b"]', 1))
    Path(options.source_dir, "010.jpg").write_bytes(b"")
    prepare(change(options, embeddings=write_embeddings(tmp_path / "embeddings", 2), allow_missing=True))
    dataset = records.Dataset.open(options.data_dir, verify=True)
    published = dataset.manifest["embeddings"]["published"]
    assert published["dimensions"] == 4
    for split in ("train", "test"):
        array = np.load(Path(options.data_dir) / published["files"][split]["file"])
        names = dataset.split(split).names
        expected = [int(name[:3]) + i / 10 for name in names for i in range(2)]
        assert array.dtype == np.float32
        np.testing.assert_allclose(array[:, 0], expected, rtol=1e-6)
    assert "010.jpg" not in dataset.split("train").names


def test_embeddings_that_do_not_fit(options, tmp_path):
    options = change(options, embeddings=write_embeddings(tmp_path / "embeddings", 2))
    assert "2 captions a picture, 1 of 32 pictures of train" in refusal(options)  # picture 0 has one
    assert leftovers(options) == ["set.partial"]
    os.remove(tmp_path / "embeddings" / "test" / "filenames.pickle")
    assert "filenames.pickle cannot be read" in refusal(options)


def test_evenly_over_the_splits():
    examples = [sources.Example("train" if i % 3 else "test", str(i), (), None, "") for i in range(30)]
    chosen = sources.evenly(examples, 7)
    assert [example.name for example in chosen] == ["0", "1", "7", "13", "15", "19", "25"]
    assert sources.evenly(examples, 30) == sources.evenly(examples, None) == examples


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_cub(tmp_path):
    prepare(
        PrepareConfig(
            source="cub", source_dir=f"{REAL}/cub", data_dir=str(tmp_path / "cub"), image_size=76, crop="box", workers=2
        )
    )
    dataset = records.Dataset.open(tmp_path / "cub", verify=True)
    assert dataset.split("train").num_images == 215
    assert dataset.split("test").num_images == 209
    assert "3 captions had pairs of U+FFFD, replaced by a blank" in dataset.manifest["notes"]
    assert not any("\ufffd" in caption for row in dataset.split("train").captions() for caption in row)
