import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from t2i_tf.data import pickles
from t2i_tf.errors import UserError

REAL = os.environ.get("T2I_REAL_DATA")

# As Python 2 and numpy 1 wrote class_info.pickle: protocol 0, scalars through numpy.core.
PYTHON_2_SCALARS = (
    b"(lp0\ncnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'i8'\np3\nI0\nI1\ntp4\nRp5\n"
    b"(I3\nS'<'\np6\nNNNI-1\nI-1\nI0\ntp7\nbS'\\x82\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np8\ntp9\nRp10\nag10\na."
)
PYTHON_2_ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n"
    b"(I1\n(I1\nI2\ntp6\ncnumpy\ndtype\np7\n(S'f4'\np8\nI0\nI1\ntp9\nRp10\n(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nb"
    b"I00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00\\xc0'\np13\ntp14\nb."
)
PYTHON_2_CAPTIONS = (  # protocol 2; <end> is a byte string there, the words are text
    b"\x80\x02]q\x00(]q\x01(]q\x02(K\x02K\x01e]q\x03K\x01ae]q\x04]q\x05K\x02aa}q\x06(K\x00U\x05<end>q\x07K\x01X\x03\x00\x00\x00"
    b"redq\x08K\x02X\x04\x00\x00\x00birdq\tu}q\n(h\x07K\x00h\tK\x02h\x08K\x01ue."
)


@pytest.fixture
def write(tmp_path):
    def write(content, name="file.pickle"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_of_every_protocol(write, protocol):
    plain = {"a": [1, -2.5, None, True], "é": (b"\x00\xff", b"", {1, 2}, frozenset("x")), 2**70: [[], {}]}
    assert pickles.load(write(pickle.dumps(plain, protocol))) == plain
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], ">i2"),
        np.array([True, False]),
        np.array([b"ab", b"c"]),
        np.array(["ab", "é"]),
        np.zeros((0, 4), np.int64),
        np.float32(1.5),
        np.int64(-3),
        np.array(7, np.uint8),
    ]
    content = pickle.dumps(arrays, protocol)
    for got, expected in zip(pickles.load(write(content)), pickle.loads(content), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


def test_python_2_files(write):
    assert pickles.class_info(write(PYTHON_2_SCALARS)).tolist() == [130, 130]
    np.testing.assert_array_equal(pickles.load(write(PYTHON_2_ARRAY)), np.array([[1, -2]], np.float32))
    assert pickles.load(write(b"S'caf\\xe9'\np0\n.")) == "café"  # a byte string, as latin-1


class Payload:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def hostile(marker):
    """Pickles that would make the file `marker` when run, or forge numpy objects, by name."""
    command = f"open({str(marker)!r}, 'w')"
    numpy_dtype = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt%sI00\nS'%s'\ntb."
    pointer = rb"\x10\x00\x00\x00\x00\x00\x00\x00"
    return {
        "system": pickle.dumps(Payload(os.system, (f"touch {marker}",))),
        "eval": pickle.dumps(Payload(eval, (command,))),
        "exec": pickle.dumps([1, {"deep": Payload(exec, (command,))}], 0),
        "getattr": b"cbuiltins\ngetattr\n.",
        "popen": pickle.dumps(Payload(subprocess.Popen, (["touch", str(marker)],))),
        "inst": b"(S'touch %s'\nios\nsystem\n." % str(marker).encode(),
        "obj": b"(cos\nsystem\nS'touch %s'\no." % str(marker).encode(),
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
        "python 2 module": b"c__builtin__\neval\n(S'%s'\ntR." % command.replace("'", "\\'").encode(),
        "numpy loader": b"cnumpy\nload\n.",
        "numpy.core through _core": b"cnumpy._core.multiarray\nfromfile\n.",
        "persistent id": b"P1\n.",
        "extension": b"\x82\x01.",
        "other encoding": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        "array of objects": array % (numpy_dtype % b"O8", pointer),
        "forged array of objects": array % (numpy_dtype % b"O8" + b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb", pointer),
        "object scalar": b"cnumpy.core.multiarray\nscalar\n(" + numpy_dtype % b"O8" + b"S'%s'\ntR." % pointer,
        "structured type": array % (numpy_dtype % b"V8", pointer),
        "type by state": array % (numpy_dtype % b"i8" + b"(I3\nS'|'\nN(Vx\ntN(I8\ntI8\nI1\nI63\ntb", pointer),
        "text type of two sizes": array % (numpy_dtype % b"S8" + b"(I3\nS'|'\nNNNI800\nI1\nI0\ntb", pointer),
        "too few bytes": array.replace(b"(I1\nt%s", b"(I9\nt%s") % (numpy_dtype % b"i8", pointer),
        "array class called": b"cnumpy\nndarray\n((I9\ntS'O'\ntR.",
        "array subclass": b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nset\n(I0\ntS'b'\ntR.",
        "changed door": b"c_codecs\nencode\n}S'__code__'\nI1\nsb.",
        "changed door by slots": b"c_codecs\nencode\n(N}S'_call'\nI1\nstb.",
        "buffer of any size": b"cnumpy.core.numeric\n_frombuffer\n(I9999999999999\n"
        + numpy_dtype % b"i8"
        + b"(I1\ntS'C'\ntR.",
        "bytes of any size": b"cbuiltins\nbytes\n(I1000000000000\ntR.",
    }


@pytest.mark.parametrize("name", hostile(""))
def test_hostile_pickles_are_refused_and_run_nothing(write, tmp_path, name):
    marker = tmp_path / "marker"
    path = write(hostile(marker)[name])
    with pytest.raises(UserError) as caught:
        pickles.load(path)
    assert str(path) in str(caught.value)
    assert not marker.exists()


def test_the_payloads_are_real(tmp_path):
    """The same bytes do harm in Python's own unpickler."""
    for name in ("system", "eval", "exec", "inst", "obj"):
        marker = tmp_path / name
        pickle.loads(hostile(marker)[name])
        assert marker.exists(), name


def test_refusal_names_the_global(write):
    with pytest.raises(UserError, match="asks for posix.system"):
        pickles.load(write(pickle.dumps(Payload(os.system, ("true",)))))


def test_a_hostile_pickle_leaves_no_trace(write, tmp_path):
    for content in hostile(tmp_path / "marker").values():
        with pytest.raises(UserError):
            pickles.load(write(content))
    assert pickles.load(write(pickle.dumps([b"x", np.arange(3)], 2)))[0] == b"x"
    assert np.dtype("i8").names is None


def test_damaged_files(write, tmp_path):
    with pytest.raises(UserError, match="nothing.pickle cannot be read"):
        pickles.load(tmp_path / "nothing.pickle")
    for content in (b"", b"hello", pickle.dumps(list(range(1000)))[:-40]):
        with pytest.raises(UserError, match="not a readable pickle"):
            pickles.load(write(content))
    with pytest.raises(UserError, match="changed to CRLF"):
        pickles.load(write(PYTHON_2_SCALARS.replace(b"\n", b"\r\n")))


def test_authors_files(write):
    assert pickles.filenames(write(pickle.dumps(["a/1", "b/2"], 0))) == ["a/1", "b/2"]
    assert pickles.class_info(write(pickle.dumps([2, 2, 3]))).dtype == np.int64
    rows = [np.full((10, 4), i, np.float32) for i in range(3)]
    for content in (rows, np.stack(rows).astype(np.float64), [row.tolist() for row in rows]):
        loaded = pickles.embeddings(write(pickle.dumps(content, 2)))
        assert loaded.shape == (3, 10, 4)
        assert loaded.dtype == np.float32
        assert type(loaded) is np.ndarray
    tables = {0: "<end>", 1: "red"}, {"<end>": 0, "red": 1}
    read = pickles.captions(write(pickle.dumps([[[1, 1]], [[1]], *tables], 2)))
    assert (read.train, read.test, read.ixtoword[1], read.wordtoix["red"]) == ([[1, 1]], [[1]], "red", 1)
    assert pickles.captions(write(PYTHON_2_CAPTIONS)).train == [[2, 1], [1]]
    assert pickles.vocabulary(write(PYTHON_2_CAPTIONS)) == ["red", "bird"]


def test_wrong_content(write):
    for reader, content in [
        (pickles.filenames, {"a": 1}),
        (pickles.filenames, [1]),
        (pickles.class_info, ["a"]),
        (pickles.embeddings, [1, 2]),
        (pickles.embeddings, [[[1.0], [2.0]], [[1.0]]]),
        (pickles.captions, [[], []]),
        (pickles.captions, [[[1]], [], {0: "a", 1: "b"}, {"a": 0}]),
        (pickles.captions, [[[7]], [], {0: "a"}, {"a": 0}]),
        (pickles.captions, [3, [], {0: "a"}, {"a": 0}]),
    ]:
        with pytest.raises(UserError, match="file.pickle"):
            reader(write(pickle.dumps(content)))


def make_embeddings(folder, names, captions=2, dimensions=3):
    """row i holds 100 * i + caption."""
    folder.mkdir(parents=True)
    array = np.zeros((len(names), captions, dimensions), np.float32)
    array += 100 * np.arange(len(names))[:, None, None] + np.arange(captions)[:, None]
    (folder / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(list(array), 2))
    (folder / "filenames.pickle").write_bytes(pickle.dumps(names, 2))


def test_published_embeddings_are_matched_by_name(tmp_path):
    make_embeddings(tmp_path / "train", ["jpg/c", "jpg/a", "jpg/b"])
    for names in (["jpg/a", "jpg/c"], ["a.jpg", "c.JPG"], ["other/a", "other/c"]):
        got = pickles.published_embeddings(tmp_path, "train", names, [2, 2])
        np.testing.assert_array_equal(got[:, 0], [100, 101, 0, 1])
        assert got.dtype == np.float32


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(write, number):
    array = np.ones((4, 2, 3), np.float32)
    array[2, 1, 0] = number
    with pytest.raises(UserError, match=r"file\.pickle: row 2 of 4, counted from 0, holds numbers that are not finite"):
        pickles.embeddings(write(pickle.dumps(array, 2)))


def test_published_embeddings_that_do_not_fit(tmp_path):
    make_embeddings(tmp_path / "train", ["a", "b", "x/c", "y/c"])

    def refusal(split, names, counts):
        with pytest.raises(UserError) as caught:
            pickles.published_embeddings(tmp_path, split, names, counts)
        return str(caught.value)

    assert "0 files" in refusal("test", ["a"], [2])
    assert "2 of the 3 pictures" in refusal("train", ["a", "d", "e"], [2, 2, 2])
    assert "2 captions a picture, 1 of 2 pictures of train" in refusal("train", ["a", "b"], [2, 3])
    assert "twice" in refusal("train", ["z/c"], [2])
    (tmp_path / "train" / "filenames.pickle").write_bytes(pickle.dumps([*"abcdefg"]))
    assert "4 rows, fewer" in refusal("train", ["g"], [2])


@pytest.mark.skipif(not REAL, reason="T2I_REAL_DATA names no folder")
def test_real_files():
    birds = Path(REAL, "cub_full_lists", "attngan_birds")
    for split, count in (("train", 8855), ("test", 2933)):
        assert len(pickles.filenames(birds / split / "filenames.pickle")) == count
        assert pickles.class_info(birds / split / "class_info.pickle").shape == (count,)
    read = pickles.captions(Path(REAL, "attngan_captions_pickle", "captions_fixed.pickle"))
    assert (len(read.train), len(read.test), len(read.ixtoword)) == (39798, 4422, 4043)
    assert pickles.vocabulary(Path(REAL, "attngan_captions_pickle", "captions_fixed.pickle"))[0] == read.ixtoword[1]
