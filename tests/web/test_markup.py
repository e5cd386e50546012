"""Results as HTML: text of visitors shows as text, pictures are whole."""

import base64
import html.parser
import io

import numpy as np
import pytest
from PIL import Image

from t2i_tf.web import markup
from t2i_tf.web.models import Described, Drawn, Piece, Way

NASTY = """<script>alert("1")</script> <img src=x onerror='alert(2)'> ${alert(3)} {{value}} `x` & "quoted" 🌼"""
RNG = np.random.default_rng(0)


class Reader(html.parser.HTMLParser):
    """Collects elements with their attributes, and text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag, kind=""):
        return [found for name, found in self.elements if name == tag and kind in (found.get("class") or "")]


def picture(size):
    return RNG.integers(0, 256, [size, size, 3], np.uint8)


def drawn(caption, pieces, attention=()):
    made = Drawn(caption, 3, 1.0, pieces, [picture(16), picture(32)], list(attention))
    return made, markup.drawn(made, f"t2i-sample --caption='{caption}'", True)


def decoded(source):
    kind, data = source.split(",")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("kind", ["between", "unknown", "word"])
def test_text_of_visitors_is_text(kind):
    attention = [np.full([4, 4, 1], 1.0, np.float32)]
    sources = [
        drawn(NASTY, [Piece(NASTY, kind, 0)], attention)[1],
        markup.between(Way((NASTY, NASTY), 3, 1.0, np.stack([picture(16)] * 2)), NASTY),
        markup.described(Described(picture(16), [NASTY], None), NASTY),
        markup.gallery([{"title": NASTY, "thumbnail": "data:image/webp;base64,"}]),
        markup.examples([NASTY]),
        markup.message(NASTY),
        markup.title(NASTY, NASTY),
    ]
    for source in sources:
        read = Reader(source)
        assert NASTY in read.text or any(NASTY in found.values() for _, found in read.elements)
        assert not read.of("script") and not any(name.startswith("on") for _, found in read.elements for name in found)
        assert all(found["src"].startswith("data:image/") for found in read.of("img"))
        assert not set("$`{}") & set(source), "no sign of a template is left"


def test_scales_maps_and_download():
    attention = RNG.dirichlet(np.ones(2), [8, 8]).astype(np.float32)
    pieces = [Piece("red", "word", 0), Piece(" ", "between"), Piece("zorgly", "unknown"), Piece("flower", "word", 1)]
    made, source = drawn("red zorglyflower", pieces, [attention])
    read = Reader(source)
    shown = [decoded(found["src"])[1] for found in read.of("img", "t2i-picture")]
    for one, other in zip(shown, [made.pictures[1], made.pictures[0], made.pictures[1]], strict=True):
        np.testing.assert_array_equal(one, other)
    assert [found["data-word"] for found in read.of("button", "t2i-word")] == ["0", "1"]
    assert len(read.of("img", "t2i-map")) == 4, "of the large picture, and of the scale that the stage made"
    assert len(read.of("s", "t2i-unknown")) == 1 and "not read" in read.text
    (link,) = read.of("a")
    assert link["download"] == "red-zorglyflower-seed3.png"
    np.testing.assert_array_equal(decoded(link["href"])[1], made.pictures[1])


def test_maps_leave_bright_what_was_looked_at():
    weights = np.zeros([4, 4, 2], np.float32)
    weights[..., 1] = 1.0
    weights[0, 0] = [1.0, 0.0]
    light = markup._lights(weights)[0]
    kind, values = decoded(markup.shade(light))
    assert kind == "data:image/png;base64" and values.shape == (markup.MAP_SIZE, markup.MAP_SIZE, 2)
    assert not values[..., 0].any(), "black"
    quarter = markup.MAP_SIZE // 4
    assert values[:quarter, :quarter, 1].min() == 0 and values[2 * quarter :, 2 * quarter :, 1].min() > 200


def test_a_way_shows_its_first_picture_and_has_all():
    made = Way(("a red flower", "a blue flower"), 3, 1.0, np.stack([picture(16) for _ in range(5)]))
    read = Reader(markup.between(made, "command"))
    frames = read.of("img", "t2i-picture")
    assert [found["data-step"] for found in frames if "t2i-on" in found["class"]] == ["0"]
    for found, one in zip(frames, made.pictures, strict=True):
        np.testing.assert_array_equal(decoded(found["src"])[1], one)
    (slider,) = read.of("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "4", "0")


def test_a_caption_has_a_panel_for_each_word():
    attention = RNG.dirichlet(np.ones(16), 2).reshape(2, 4, 4)
    read = Reader(markup.described(Described(picture(32), ["red", "flower"], attention), "command"))
    assert len(read.of("button", "t2i-word")) == len(read.of("button", "t2i-panel")) == 2
    assert len(read.of("img", "t2i-map")) == 2 and read.of("button", "t2i-play")
    without = Reader(markup.described(Described(picture(32), ["red", "flower"], None), "command"))
    assert not without.of("button", "t2i-panel") and not without.of("button", "t2i-play")
