import hashlib
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.data import records
from t2i_tf.errors import UserError

CLASSES = ["iris", "rose"]


def row(number):
    """A record whose every field tells its number; every third has a box and attributes."""
    special = number % 3 == 0
    return {
        "image": bytes([number]) * (100 + 37 * number),
        "height": 10 + number,
        "width": 20 + number,
        "captions": [f"caption {number}.{i} – ü" for i in range(number % 4)],
        "class_id": number % 3 - 1,
        "name": f"folder/picture {number} é",
        "box": (number, 1.5, 2.5, 3.5) if special else None,
        "attributes": {"color": "red", "number": str(number)} if special else None,
    }


def write(folder, count=20, shard_bytes=3000):
    folder.mkdir(parents=True)
    writer = records.SplitWriter(folder, "train", shard_bytes)
    for number in range(count):
        fields = row(number)
        writer.write(records.serialize(**fields), fields["class_id"], fields["captions"], fields["name"], fields["box"])
    manifest = {"format": records.FORMAT, "version": 1, "splits": {"train": writer.close(CLASSES)}}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set")


def test_tensorflow_reads_the_shards(folder):
    """TFRecordDataset checks framing and checksums; the index must point at the same bytes."""
    split = records.Dataset.open(folder, verify=True).split("train")
    entry = split.dataset.manifest["splits"]["train"]
    assert len(entry["shards"]) > 3
    assert entry["shards"][1]["file"] == f"train-00001-of-{len(entry['shards']):05d}.tfrecord"
    files = [str(folder / shard["file"]) for shard in entry["shards"]]
    streamed = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    assert split.read(np.arange(20)) == streamed == [records.serialize(**row(i)) for i in range(20)]
    assert [shard["records"] for shard in entry["shards"]] == [
        len(list(tf.data.TFRecordDataset(file))) for file in files
    ]
    assert all((folder / shard["file"]).stat().st_size <= 3000 for shard in entry["shards"])
    assert {path.name for path in folder.iterdir()} == {
        "dataset.json", "train.index.npz", *(shard["file"] for shard in entry["shards"])
    }  # fmt: skip


def test_manifest_entry(folder):
    entry = json.loads((folder / "dataset.json").read_text())["splits"]["train"]
    assert (entry["images"], entry["captions"], entry["boxes"], entry["classes"]) == (20, 30, 7, CLASSES)
    for file in [*entry["shards"], entry["index"]]:
        content = (folder / file["file"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)


def test_index(folder):
    split = records.Dataset.open(folder).split("train")
    assert split.num_images == 20
    assert split.names == [row(i)["name"] for i in range(20)]
    np.testing.assert_array_equal(split.class_ids, [row(i)["class_id"] for i in range(20)])
    assert split.class_ids.dtype == split.caption_counts.dtype == np.int32
    np.testing.assert_array_equal(split.caption_counts, np.arange(20) % 4)
    np.testing.assert_array_equal(split.caption_offsets[:6], [0, 0, 1, 3, 6, 6])
    assert split.caption_offsets.dtype == np.int64
    assert split.captions() == [row(i)["captions"] for i in range(20)]
    assert split.attributes() == [row(i)["attributes"] for i in range(20)]


def test_parse(folder):
    split = records.Dataset.open(folder).split("train")
    dataset = tf.data.Dataset.from_tensor_slices(split.read([6, 5])).map(records.parse)
    for number, fields in zip((6, 5), dataset.as_numpy_iterator(), strict=True):
        expected = row(number)
        assert fields["image"] == expected["image"]
        assert (fields["height"], fields["width"]) == (expected["height"], expected["width"])
        assert [caption.decode() for caption in fields["captions"]] == expected["captions"]
        assert fields["class"] == expected["class_id"]
        assert fields["name"].decode() == expected["name"]
        assert fields["has_box"] == (number == 6)
        np.testing.assert_array_equal(fields["box"], expected["box"] or np.zeros(4))


def test_random_access_from_threads(folder):
    split = records.Dataset.open(folder).split("train")
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, 20, 50) for _ in range(40)]
    expected = [records.serialize(**row(i)) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        for order, got in zip(orders, pool.map(split.read, orders), strict=True):
            assert got == [expected[i] for i in order]
    assert split.read([]) == []


def open_shards(folder):
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sum(target.startswith(str(folder)) and target.endswith(".tfrecord") for target in targets)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
def test_few_of_many_shards_are_open(tmp_path):
    folder = write(tmp_path / "set", count=records.OPEN_SHARDS + 20, shard_bytes=1)
    split = records.Dataset.open(folder).split("train")
    assert open_shards(folder) == 0
    split.read([3, 5, 3])
    assert open_shards(folder) == 2
    split.read(np.arange(split.num_images))
    assert open_shards(folder) == records.OPEN_SHARDS
    del split
    assert open_shards(folder) == 0


def test_shards_are_closed_under_no_reader(tmp_path, monkeypatch):
    """With two shards open and eight threads, nearly every read pushes out a shard that another thread reads."""
    monkeypatch.setattr(records, "OPEN_SHARDS", 2)
    split = records.Dataset.open(write(tmp_path / "set", shard_bytes=1)).split("train")
    expected = [records.serialize(**row(i)) for i in range(20)]
    orders = np.random.default_rng(0).integers(0, 20, (40, 50))
    with ThreadPoolExecutor(8) as pool:
        for order, got in zip(orders, pool.map(split.read, orders), strict=True):
            assert got == [expected[i] for i in order]


def test_other_file_systems(folder):
    remote = "ram://set"
    tf.io.gfile.makedirs(remote)
    for path in folder.iterdir():
        tf.io.gfile.copy(str(path), f"{remote}/{path.name}", overwrite=True)
    split = records.Dataset.open(remote, verify=True).split("train")
    assert split.read([19, 0, 7]) == [records.serialize(**row(i)) for i in (19, 0, 7)]
    assert split.captions() == [row(i)["captions"] for i in range(20)]


@pytest.mark.parametrize("bounds", [(0, 20), (0, 7, 20), (0, 1, 2, 5, 20), (0, 0, 20)])
def test_pieces_are_joined(tmp_path, bounds):
    """Record 0 has no caption, so a piece may have none; an empty piece has no shard."""
    pieces = []
    for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        path = tmp_path / f"piece {number}"
        path.mkdir()
        with records.SplitWriter(path, "train", 3000) as writer:
            for fields in map(row, range(start, end)):
                arguments = fields["class_id"], fields["captions"], fields["name"], fields["box"]
                writer.write(records.serialize(**fields), *arguments)
            pieces.append((path, writer.close(CLASSES)))
    folder = tmp_path / "set"
    folder.mkdir()
    entry = records.join(folder, "train", pieces)
    assert (entry["images"], entry["captions"], entry["boxes"], entry["classes"]) == (20, 30, 7, CLASSES)
    sources = [path / shard["file"] for path, of_piece in pieces for shard in of_piece["shards"]]
    for source, shard in zip(sources, entry["shards"], strict=True):
        source.rename(folder / shard["file"])
    manifest = {"format": records.FORMAT, "version": 1, "splits": {"train": entry}}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    split = records.Dataset.open(folder, verify=True).split("train")
    whole = records.Dataset.open(write(tmp_path / "whole")).split("train")
    assert split.read(np.arange(20)) == whole.read(np.arange(20))
    assert (split.names, split.captions()) == (whole.names, whole.captions())
    for key in ("class", "captions", "name", "text"):
        assert split._index[key].dtype == whole._index[key].dtype
        np.testing.assert_array_equal(split._index[key], whole._index[key])


def test_no_captions_and_one_record(tmp_path):
    folder = write(tmp_path / "set", count=1)
    split = records.Dataset.open(folder).split("train")
    assert split.captions() == [[]]
    assert len(split.read([0])) == 1


def test_same_input_same_bytes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_closing_does_not_go_over_all_records_for_every_shard(tmp_path):
    with records.SplitWriter(tmp_path, "train", 1) as writer:
        for number in range(200):
            writer.write(b"a record", 0, [], str(number))
        calls = Counter()
        sys.setprofile(lambda frame, event, argument: calls.update([event]))
        try:
            writer.close(CLASSES)
        finally:
            sys.setprofile(None)
    assert calls["call"] < 200 * 200


def test_captions_of_two_lines_are_refused(tmp_path):
    with records.SplitWriter(tmp_path, "train", 1000) as writer, pytest.raises(ValueError, match="more than one line"):
        writer.write(b"", 0, ["one\ntwo"], "a")


def test_what_cannot_be_opened(folder, tmp_path):
    def refusal(path, **options):
        with pytest.raises(UserError) as caught:
            records.Dataset.open(path, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such data set folder" in refusal(tmp_path / "nothing")
    partial = folder.rename(tmp_path / "set.partial")
    assert "unfinished" in refusal(partial)
    folder = partial.rename(folder)

    manifest = (folder / "dataset.json").read_text()
    (folder / "dataset.json").unlink()
    assert "half-written" in refusal(folder)
    (folder / "dataset.json").write_text(manifest[:-5])
    assert "damaged" in refusal(folder)
    (folder / "dataset.json").write_text("[]")
    assert "does not describe" in refusal(folder)
    (folder / "dataset.json").write_text(manifest.replace('"version": 1', '"version": 7'))
    assert "version 7" in refusal(folder)
    (folder / "dataset.json").write_text(manifest)

    shard = folder / json.loads(manifest)["splits"]["train"]["shards"][1]["file"]
    content = shard.read_bytes()
    shard.write_bytes(content[:50] + b"x" + content[51:])
    records.Dataset.open(folder)
    assert "SHA-256" in refusal(folder, verify=True)
    shard.write_bytes(content[:-1])
    assert f"{len(content) - 1:,} bytes instead of {len(content):,}" in refusal(folder)
    shard.unlink()
    assert f"{shard.name} is missing" in refusal(folder)


def test_unknown_split(folder):
    with pytest.raises(UserError, match="no split 'test': it has train"):
        records.Dataset.open(folder).split("test")
