"""What a page shows is what the run makes; and what is wrong is told."""

import io

import numpy as np
import pytest
from PIL import Image
from random_runs import build

from t2i_tf import export, inference
from t2i_tf.config import DemoConfig, ExportConfig
from t2i_tf.errors import UserError
from t2i_tf.web import models
from t2i_tf.web.models import Piece

CAPTION = "A Zorgly red flower, with petals"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("gan_int_cls", "attngan", "stackgan_v2_without_text", "show_attend_tell", "damsm"):
        build(name).save(folder / name)
    list(export.export(ExportConfig(run_dir=str(folder / "attngan"), out=str(folder / "export"))))
    list(export.export(ExportConfig(run_dir=str(folder / "damsm"), out=str(folder / "words"), least_rows=32)))
    return folder


@pytest.fixture(scope="module")
def attngan(runs):
    return models.load(DemoConfig(run_dir=str(runs / "attngan")))


def test_a_run_and_its_export_show_the_same(runs, attngan):
    run = inference.load(runs / "attngan")
    scales, (attention,) = run.attend([CAPTION], [3], 0.5)
    exported = models.load(DemoConfig(saved_model=str(runs / "export")))
    assert attngan.about == exported.about == "attngan, step 7"
    for painter in (attngan, exported):
        assert painter.takes_text and painter.attends
        made = painter.draw(CAPTION, 3, 0.5)
        assert [picture.shape for picture in made.pictures] == [(16, 16, 3), (32, 32, 3)]
        for picture, live in zip(made.pictures, scales, strict=True):
            np.testing.assert_array_equal(picture, live[0])
        np.testing.assert_allclose(made.attention[0], attention[0], atol=1e-6)
        way = painter.between((CAPTION, "a blue flower"), 4, 3, 0.5)
        np.testing.assert_array_equal(way.pictures, run.interpolate_text(CAPTION, "a blue flower", 4, [3], 0.5)[0])


def test_words_have_the_numbers_of_their_attention(attngan):
    pieces = attngan.draw(CAPTION, 3, 1.0).pieces
    assert [piece for piece in pieces if piece.kind != "between"] == [
        Piece("A", "word", 0),
        Piece("Zorgly", "unknown"),
        Piece("red", "word", 1),
        Piece("flower", "word", 2),
        Piece("with", "word", 3),
        Piece("petals", "word", 4),
    ]
    assert "".join(piece.text for piece in pieces) == CAPTION
    made = attngan.draw("İred 花 ½ red", 0, 1.0)
    assert [piece.text for piece in made.pieces if piece.kind == "word"] == ["İred", "red"]
    for piece in made.pieces:
        assert piece.kind != "word" or piece.number < made.attention[0].shape[-1]


def test_of_characters_what_is_not_read_is_marked(runs):
    painter = models.load(DemoConfig(run_dir=str(runs / "gan_int_cls")))
    assert painter.takes_text and not painter.attends
    made = painter.draw("A flöwer 花花!" + " red" * 60, 0, 1.0)
    assert not made.attention and [picture.shape for picture in made.pictures] == [(64, 64, 3)]
    unknown = [piece.text for piece in made.pieces if piece.kind == "unknown"]
    assert unknown[:2] == ["ö", "花花"] and len(unknown) == 3
    assert len("".join(piece.text for piece in made.pieces[:-1])) == 201, "behind these nothing is read"


def test_without_text_seeds_make_pictures(runs):
    painter = models.load(DemoConfig(run_dir=str(runs / "stackgan_v2_without_text")))
    made = painter.draw("", 5, 1.0)
    live = inference.load(runs / "stackgan_v2_without_text").generate(None, [5])
    np.testing.assert_array_equal(made.pictures[-1], live[-1][0])
    assert not painter.takes_text and made.pieces == []


def test_problems_of_captions_are_told(attngan):
    with pytest.raises(UserError, match="has no word that this run was trained on"):
        attngan.draw("花 🌼 zorgly", 0, 1.0)
    with pytest.raises(UserError, match="has no word that this run was trained on"):
        attngan.between(("a red flower", "zorgly"), 3, 0, 1.0)
    with pytest.raises(UserError, match="more than 64 words"):
        attngan.draw("a " * 65, 0, 1.0)


def smooth(size, mode="RGB"):
    coarse = Image.fromarray(np.random.default_rng(3).uniform(0, 255, [4, 4, 3]).astype(np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def captioner(runs):
    return models.load(DemoConfig(run_dir=str(runs / "show_attend_tell")))


@pytest.mark.parametrize("kind, mode", [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "L"), ("JPEG", "CMYK")])
def test_pictures_of_every_kind_are_described(runs, captioner, tmp_path, kind, mode):
    path = tmp_path / "picture"
    smooth((32, 32), mode).save(path, kind)
    run, made = inference.load(runs / "show_attend_tell"), captioner.describe(path)
    live = run.describe([path])
    assert " ".join(made.words) == live.captions[0] and made.words
    np.testing.assert_allclose(made.attention, live.attention[0], atol=1e-6)
    np.testing.assert_array_equal(made.seen, run.seen(run.prepared([path]))[0])


def test_pictures_are_turned_upright(captioner, tmp_path):
    picture, turned = smooth((32, 32)), Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "upright.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    made = [captioner.describe(tmp_path / name) for name in ("upright.png", "turned.png")]
    np.testing.assert_array_equal(made[0].seen, made[1].seen)
    assert made[0].words == made[1].words


def test_what_is_no_picture_is_told(captioner, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    smooth((64, 64)).save(buffer, "JPEG")
    for content in (b"", b"<script>", buffer.getvalue()[:-200]):
        (tmp_path / "broken.jpg").write_bytes(content)
        with pytest.raises(UserError, match="this is no picture that can be read"):
            captioner.describe(tmp_path / "broken.jpg")
    monkeypatch.setattr(models, "MOST_PIXELS", 1000)
    smooth((32, 32)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="has 32 x 32 pixels, and 1,000 is the most"):
        captioner.describe(tmp_path / "large.png")


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "give one of --run_dir=R"),
        ({"run_dir": "damsm", "saved_model": "export"}, "give one of --run_dir=R"),
        ({"run_dir": "damsm"}, "is a run of damsm, which turns captions into vectors, and there is nothing to see"),
        ({"saved_model": "words"}, "turns captions into vectors, and there is nothing to see"),
        ({"saved_model": "damsm"}, "is no SavedModel: give a folder that t2i-export wrote"),
        ({"run_dir": "export"}, "is not a run folder"),
    ],
)
def test_what_has_no_page_is_refused(runs, given, message):
    with pytest.raises(UserError, match=message) as error:
        models.load(DemoConfig(**{name: str(runs / value) for name, value in given.items()}))
    assert "\n" not in str(error.value)


def test_damaged_and_foreign_models_are_refused(runs, tmp_path):
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    with pytest.raises(UserError, match="has neither generate nor caption"):
        models.load(DemoConfig(saved_model=str(tmp_path / "foreign")))
    (tmp_path / "foreign" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded") as error:
        models.load(DemoConfig(saved_model=str(tmp_path / "foreign")))
    assert "\n" not in str(error.value)
