import io
import pickle
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.images import StorageRules, store
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import lsun
from t2i_tf.errors import UserError

lmdb = pytest.importorskip("lmdb")


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(pixels, np.ones((16, 16, 1), np.uint8)))


def encoded(seed, kind):
    buffer = io.BytesIO()
    picture(seed).save(buffer, kind, quality=90)
    return buffer.getvalue()


def write(folder, values):
    """A database as the official tools write it: key -> content of the picture file."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return folder


def key(number):
    return f"{number * 7919 % 1000:040x}".encode()


@pytest.fixture
def church(tmp_path):
    """Ten training pictures, five of them WebP, and three to validate with."""
    values = {key(i): encoded(i, "WEBP" if i % 2 else "JPEG") for i in range(10)}
    folder = write(tmp_path / "lsun" / "church_outdoor_train_lmdb", values)
    write(tmp_path / "lsun" / "church_outdoor_val_lmdb", {key(i): encoded(i, "WEBP") for i in range(20, 23)})
    return folder


def configured(folder, **options):
    return PrepareConfig(source="lsun", source_dir=str(folder), **{"data_dir": "out", **options})


def read(folder, **options):
    return lsun.read(configured(folder, **options))


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples(church):
    source = read(church)
    assert (source.name, source.notes) == ("lsun_church_outdoor", [])
    examples = source.examples
    assert len(examples) == 13
    assert [example.split for example in examples] == ["train"] * 10 + ["test"] * 3
    keys = sorted(key(i) for i in range(10)) + sorted(key(i) for i in range(20, 23))
    assert [example.name.encode() for example in examples] == keys
    assert examples[-1] == examples[12]
    assert (examples[0].class_name, examples[0].captions, examples[0].box) == ("church_outdoor", (), None)
    for beyond in (13, -14):
        with pytest.raises(IndexError):
            examples[beyond]
    fetch = pickle.loads(pickle.dumps(examples[keys.index(key(3))].image))
    assert fetch() == encoded(3, "WEBP")


def test_reading_writes_nothing(church):
    (church / "lock.mdb").unlink()
    read(church).examples[0].image()
    assert [path.name for path in church.iterdir()] == ["data.mdb"]


@pytest.mark.parametrize("workers", [1, 2])
def test_prepared_without_saying_that_there_are_no_captions(church, tmp_path, workers):
    values = {key(i): encoded(i, "JPEG") for i in range(30, 60)}
    environment = lmdb.open(str(church), map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name, value)
    environment.close()
    options = configured(church, data_dir=str(tmp_path / "out"), image_size=64, resize="shorter_side", workers=workers)
    prepare(options, progress=lambda done, total: None)
    dataset = records.Dataset.open(tmp_path / "out", verify=True)
    manifest = dataset.manifest
    assert {name: entry["images"] for name, entry in manifest["splits"].items()} == {"train": 40, "test": 3}
    assert (manifest["name"], manifest["classes"]) == ("lsun_church_outdoor", ["church_outdoor"])
    assert manifest["options"]["captions"] == "none"
    train = dataset.split("train")
    assert train.captions() == [[]] * 40
    rows = {name.encode(): records.parse(train.read([row])[0]) for row, name in enumerate(train.names)}
    assert rows[key(30)]["image"].numpy() == values[key(30)]  # of the right size: kept as it is
    expected = Image.open(io.BytesIO(encoded(1, "WEBP"))).convert("RGB")
    stored = Image.open(io.BytesIO(rows[key(1)]["image"].numpy()))
    assert (stored.format, stored.size) == ("JPEG", (80, 64))
    assert np.abs(np.asarray(stored, int) - np.asarray(expected, int)).mean() < 3


def test_damaged_pictures_are_named(church, tmp_path):
    environment = lmdb.open(str(church), map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a_empty", b"")
        transaction.put(b"b_text", b"not found")
        transaction.put(b"c_short", encoded(0, "JPEG")[:-200])
        transaction.put(b"d_short", encoded(0, "WEBP")[:-200])
    environment.close()
    options = configured(church, data_dir=str(tmp_path / "out"), image_size=16, workers=1)
    with pytest.raises(UserError) as caught:
        prepare(options)
    for expected in ("4 pictures cannot be used", "a_empty (empty file)", "b_text (not an image)", "c_short (", "d_s"):
        assert expected in str(caught.value)
    options = configured(church, data_dir=str(tmp_path / "out"), image_size=16, workers=1, allow_missing=True)
    prepare(options)
    assert records.Dataset.open(tmp_path / "out").split("train").num_images == 10


def test_without_val_there_is_no_test_split(tmp_path):
    folder = write(tmp_path / "bedroom_train_lmdb", {key(0): encoded(0, "WEBP")})
    source = read(folder)
    assert [example.split for example in source.examples] == ["train"]
    assert source.notes == ["there is no bedroom_val_lmdb beside bedroom_train_lmdb, so no test split"]


def test_num_images_is_spread_over_both(church):
    examples = read(church, num_images=4).examples
    assert [example.split for example in examples] == ["train"] * 3 + ["test"]
    assert "too few" in refusal(church, num_images=1)


def test_without_lmdb(church, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert refusal(church) == "--source=lsun needs the package lmdb: pip install -e '.[lsun]'"


def test_folders_that_are_not_lsun(church, tmp_path):
    assert "(it holds church_outdoor_train_lmdb): give one" in refusal(church.parent)
    assert "is not a folder <category>_train_lmdb of LSUN: give one" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "tower_train_lmdb")
    (tmp_path / "tower_train_lmdb").mkdir()
    assert "holds no data.mdb: unzip tower_train_lmdb.zip there" in refusal(tmp_path / "tower_train_lmdb")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100_000])
def test_files_that_are_no_database(tmp_path, content):
    folder = tmp_path / "tower_train_lmdb"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(content)
    message = refusal(folder)
    assert f"{folder}/data.mdb cannot be read (" in message
    assert message.endswith("unzip tower_train_lmdb.zip again")


def test_an_empty_database(tmp_path, church):
    folder = write(tmp_path / "tower_train_lmdb", {})
    assert "tower_train_lmdb holds no picture: unzip tower_train_lmdb.zip again" in refusal(folder)


def test_a_database_that_was_cut_short(tmp_path):
    """Reading it would end the process with a bus error."""
    folder = write(tmp_path / "tower_train_lmdb", {key(i): bytes(10_000) for i in range(100)})
    data = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(data[: len(data) // 2])
    assert "bytes are missing at its end): unzip tower_train_lmdb.zip again" in refusal(folder)


def test_pages_that_lmdb_left_unwritten_are_no_damage(tmp_path):
    folder = write(tmp_path / "tower_train_lmdb", {key(0): encoded(0, "JPEG")})
    data = bytearray((folder / "data.mdb").read_bytes())
    for page in (0, 1):  # the last used page in both meta pages
        position = page * struct.unpack_from("<I", data, 40)[0] + 136
        struct.pack_into("<Q", data, position, struct.unpack_from("<Q", data, position)[0] + 3)
    (folder / "data.mdb").write_bytes(data)
    assert read(folder).examples[0].image() == encoded(0, "JPEG")


def test_a_worker_that_cannot_read_says_so(church):
    missing = lsun.Entry(str(church), b"gone")
    with pytest.raises(UserError, match="key b'gone' is not found again"):
        store(missing, None, StorageRules(16, "none", "square", "bilinear", 95))


def test_millions_are_not_held(tmp_path):
    """Fifty thousand keys of 40 bytes: 2.4 MB with their places; as a list of examples they take over 15 MB."""
    folder = write(tmp_path / "bedroom_train_lmdb", {f"{i:040x}".encode(): b"." for i in range(50_000)})
    tracemalloc.start()
    source = read(folder)
    splits = {example.split for example in source.examples}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert splits == {"train"}
    assert len(source.examples) == 50_000
    assert peak < 6e6
