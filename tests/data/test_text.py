import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.data import text
from t2i_tf.errors import UserError

PARITY = Path(os.environ.get("T2I_PARITY", Path(__file__).parents[1] / "parity" / "data"))
PARITY_FILES = sorted(PARITY.glob("char_cnn_rnn_*/config-*.npz"))

NASTY = [
    "",
    "   ",
    "The RED-winged bird's beak.",
    "café-coloured naïve red—blue, x×y",
    "İstanbul \u212aelvin ǅ ẞ ΣΑΣ",
    "鳥 bird鳥bird 2½ ④ ª snake_case __ _",
    "tabs\tand\nlines\r\nand\x0bmore\x00zero",
    "🐦🐦 emoji🐦bird",
    "e\u0301 combining",
    "\ufffd\ufffdreplacement",
    "x" * 500,
]


def test_alphabet():
    assert len(text.ALPHABET) == 70
    assert text.ALPHABET[36] == text.ALPHABET[59] == "-"
    ids = text.character_ids(tf.constant(["az09- "])).numpy()[0]
    np.testing.assert_array_equal(ids[:7], [1, 26, 27, 36, 60, 70, 0])


@pytest.mark.skipif(not PARITY_FILES, reason="no parity arrays: set T2I_PARITY")
@pytest.mark.parametrize("file", PARITY_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_character_ids_of_published_code(file):
    arrays = np.load(file, allow_pickle=False)
    if "in/text" not in arrays:
        pytest.skip("holds no texts")
    assert json.loads(str(arrays["config"]))["alphabet"] == text.ALPHABET
    captions = tf.constant([str(caption).encode() for caption in arrays["in/text"]])
    rules = [key.split("/")[1] for key in arrays.files if re.fullmatch(r"out/\w+/index", key)]
    assert rules
    for rule in rules:
        expected = arrays[f"out/{rule}/index"]
        np.testing.assert_array_equal(text.character_ids(captions, rule, expected.shape[1]), expected, rule)


def expected_ids(caption, rule, length=201):
    """The rules again, in plain Python."""
    index = {symbol: i + 1 for i, symbol in enumerate(text.ALPHABET)}
    ids = []
    for character in caption if rule == "demo" else caption.lower():
        if character not in index and rule == "file_stop":
            break
        ids.append(index.get(character, 70 if rule == "port" else 0))
    return (ids + [0] * length)[:length]


@pytest.mark.parametrize("rule", text.RULES)
def test_character_ids_of_nasty_captions(rule):
    got = text.character_ids(tf.constant([caption.encode() for caption in NASTY]), rule)
    assert got.dtype == tf.int32
    np.testing.assert_array_equal(got, [expected_ids(caption, rule) for caption in NASTY])


def test_character_ids_of_every_code_point():
    """Wherever a character stands alone between two known ones, all three come out as Python's lower() says."""
    codes = [code for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]
    captions = [f"a{chr(code)}z" for code in codes]
    got = text.character_ids(tf.constant([caption.encode() for caption in captions]), length=5).numpy()
    expected = np.zeros_like(got)
    index = {symbol: i + 1 for i, symbol in enumerate(text.ALPHABET)}
    for row, caption in zip(expected, captions, strict=True):
        for position, character in enumerate(caption.lower()):
            row[position] = index.get(character, 0)
    np.testing.assert_array_equal(got, expected)


def test_unknown_rule_and_empty_batch():
    with pytest.raises(ValueError, match="lower_zero, demo, port, file_stop"):
        text.character_ids(tf.constant(["a"]), "upper")
    assert text.character_ids(tf.constant([], tf.string)).shape == (0, 201)


def test_words_by_hand():
    assert text.words("The RED-winged bird's beak.") == ["the", "red", "winged", "bird", "s", "beak"]
    assert text.words("café red—blue 鳥 x_1") == ["caf", "red", "blue", "x_1"]
    assert text.words("naïve") == ["nave"]
    assert text.words("!?") == text.words("") == []


def test_graph_and_python_find_the_same_words():
    got = text.tokenize(tf.constant([caption.encode() for caption in NASTY])).to_list()
    assert [[word.decode() for word in row] for row in got] == [text.words(caption) for caption in NASTY]


def test_graph_and_python_agree_on_every_old_code_point():
    """Those of Unicode 3.2: later additions are not in the tables of every Python and TensorFlow."""
    codes = [
        code
        for code in range(1, 0x110000)
        if not 0xD800 <= code <= 0xDFFF and unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Co")
    ]
    captions = [f"a{chr(code)}B" for code in codes]
    got = text.tokenize(tf.constant([caption.encode() for caption in captions])).to_list()
    wrong = [
        hex(code)
        for code, caption, row in zip(codes, captions, got, strict=True)
        if [word.decode() for word in row] != text.words(caption)
    ]
    assert wrong == []


def test_invalid_utf8_is_a_separator():
    assert text.tokenize(tf.constant([b"red\xff\xfebird"])).to_list() == [[b"red", b"bird"]]
    np.testing.assert_array_equal(text.character_ids(tf.constant([b"a\xffb"])).numpy()[0, :4], [1, 0, 2, 0])


def test_word_tokenizer():
    tokenizer = text.WordTokenizer(["red", "bird", "the"])
    ids, lengths, unknown = tokenizer(tf.constant(["the RED, small bird!", "", "nothing known", "bird"]))
    np.testing.assert_array_equal(ids, [[3, 1, 2], [0, 0, 0], [0, 0, 0], [2, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 0, 0, 1])
    np.testing.assert_array_equal(unknown, [1, 0, 2, 0])
    assert ids.dtype == lengths.dtype == unknown.dtype == tf.int32
    assert tokenizer(tf.constant(["", "?"])).ids.shape == (2, 0)
    with pytest.raises(ValueError, match="twice"):
        text.WordTokenizer(["red", "red"])


def test_unknown_words_that_are_kept():
    tokenizer = text.WordTokenizer(["red", "bird", "the"], keep_unknown=True)
    ids, lengths, unknown = tokenizer(tf.constant(["the RED, small bird!", "", "nothing known", "bird"]))
    np.testing.assert_array_equal(ids, [[4, 2, 1, 3], [0, 0, 0, 0], [1, 1, 0, 0], [3, 0, 0, 0]])
    np.testing.assert_array_equal(lengths, [4, 0, 2, 1])
    np.testing.assert_array_equal(unknown, [0, 0, 0, 0])
    assert tokenizer.size == 5


def test_in_saved_models_and_tf_data(tmp_path):
    class Model(tf.Module):
        def __init__(self):
            self.tokenizer = text.WordTokenizer(["red", "bird"])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def read(self, captions):
            return {**self.tokenizer(captions)._asdict(), "characters": text.character_ids(captions)}

    model, captions = Model(), ["a RED bird", "bird"]
    tf.saved_model.save(model, str(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved")).read(tf.constant(captions))
    np.testing.assert_array_equal(loaded["ids"], [[1, 2], [2, 0]])
    np.testing.assert_array_equal(loaded["characters"], text.character_ids(tf.constant(captions)))
    batch = next(iter(tf.data.Dataset.from_tensor_slices(captions).batch(2).map(model.tokenizer)))
    np.testing.assert_array_equal(batch.ids, loaded["ids"])


def test_the_locale_does_not_matter():
    code = (
        "import tensorflow as tf; from t2i_tf.data import text; c = tf.constant(['IRIS I']);"
        "assert text.tokenize(c).to_list() == [[b'iris', b'i']];"
        "assert text.character_ids(c).numpy()[0, :6].tolist() == [9, 18, 9, 19, 70, 9]"
    )
    turkish = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
    subprocess.run([sys.executable, "-c", code], check=True, env=turkish, capture_output=True)


def test_of_long_captions_words_are_drawn_and_stay_in_order():
    """Captions of 0, 2, 4 and 9 words, of which 4 are read."""
    vocabulary = [f"w{i}" for i in range(9)]
    tokenizer = text.WordTokenizer(vocabulary)
    found = tokenizer(tf.constant(["", "w3 w1", "w0 w1 w2 w3", " ".join(vocabulary)]))
    picked = set()
    for step in range(40):
        ids, lengths = map(np.array, text.drawn_words(found, 4, tf.constant([5, step])))
        assert ids.shape == (4, 4) and ids.dtype == np.int32
        np.testing.assert_array_equal(lengths, [0, 2, 4, 4])
        np.testing.assert_array_equal(ids[:3], [[0, 0, 0, 0], [4, 2, 0, 0], [1, 2, 3, 4]])
        assert (np.diff(ids[3]) > 0).all() and ids[3].min() >= 1
        picked |= set(ids[3].tolist())
        again, _ = text.drawn_words(found, 4, tf.constant([5, step]))
        np.testing.assert_array_equal(ids, again)
    assert picked == set(range(1, 10))


def test_captions_shorter_than_what_is_read_are_padded():
    ids, lengths = text.drawn_words(text.WordTokenizer(["a"])(tf.constant(["a"])), 3, tf.constant([0, 0]))
    np.testing.assert_array_equal(ids, [[1, 0, 0]])
    np.testing.assert_array_equal(lengths, [1])


@pytest.mark.parametrize(
    "caption, rule, message",
    [
        (" ", "lower_zero", "the caption is empty"),
        ("花花", "lower_zero", "no character the text encoder knows"),
        ("ÄÖ ", "port", "no character the text encoder knows"),
        ("A BIRD", "demo", "no character the text encoder knows"),
        ("“a red bird”", "file_stop", "no character .* first 201 characters, up to the first other one"),
        (" " * 201 + "a red bird", "lower_zero", "no character .* its first 201 characters: write"),
    ],
)
def test_captions_of_which_no_character_is_read(caption, rule, message):
    with pytest.raises(UserError, match=message):
        text.check(["a bird", caption], rule)


@pytest.mark.parametrize("rule", ["lower_zero", "demo", "port"])
def test_quotation_marks_do_not_end_a_caption_but_where_files_stop(rule):
    text.check(["“a red bird”", " " * 200 + "a red bird"], rule)
    text.check([], rule)


@pytest.mark.parametrize("caption, message", [("  ", "empty"), ("zorg -", "no word that this run was trained on")])
def test_captions_that_say_nothing_to_a_reader_of_words(caption, message):
    with pytest.raises(UserError, match=message):
        text.check_words(caption, {"red"})


def test_unknown_words_are_named(caplog):
    text.check_words("A red, zorgly flower", {"a", "red"})
    assert "zorgly, flower" in caplog.text
