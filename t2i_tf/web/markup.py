"""Results as HTML. page.css gives them their looks, page.js lets words be hovered and ways be walked.

Text of visitors goes through `escaped` and nowhere else; pictures are inside, as data.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from t2i_tf import attention_pictures, caption_pictures, pictures
from t2i_tf.web.models import Described, Drawn, Piece, Way

MAP_SIZE = 96
"""Pixels of a map of attention; browsers smooth it further."""

THUMBNAIL = 96

_SPECIAL = {ord(sign): f"&#{ord(sign)};" for sign in "$`{}"}
"""Gradio's HTML blocks are templates, in which these mean something."""


def escaped(text: str) -> str:
    """Text as HTML that shows it: in an element and in a quoted attribute."""
    return html.escape(text).translate(_SPECIAL)


def _source(image: Image.Image, kind: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png(picture: np.ndarray) -> str:
    """uint8 [H,W,3] -> a PNG of every pixel, as the source of an image."""
    return _source(Image.fromarray(picture), "PNG")


def thumbnail(picture: np.ndarray) -> str:
    """uint8 [S,S,3] -> a small WebP."""
    image = Image.fromarray(picture)
    return _source(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS), "WEBP", quality=85)


def shade(light: np.ndarray) -> str:
    """A map [H,W] in [0, 1] -> a PNG that leaves a picture below it as it is where that is 1, and darkens it at 0."""
    opacity = np.round(215 * (1.0 - light)).astype(np.uint8)
    return _source(Image.fromarray(np.stack([np.zeros_like(opacity), opacity], axis=-1), "LA"), "PNG")


def _shades(lights: Sequence[np.ndarray]) -> str:
    return "".join(
        f'<img class="t2i-map" data-word="{number}" src="{shade(light)}" alt="">' for number, light in enumerate(lights)
    )


def _figure(picture: np.ndarray, lights: Sequence[np.ndarray], alt: str, note: str = "", kind: str = "") -> str:
    """A picture below the maps of its words; lights: [words][H,W] in [0, 1]."""
    below = f"<figcaption>{note}</figcaption>" if note else ""
    shown = f'<img class="t2i-picture" src="{png(picture)}" alt="{escaped(alt)}">{_shades(lights)}'
    return f'<figure class="t2i-figure {kind}"><div class="t2i-frame">{shown}</div>{below}</figure>'


def _caption(pieces: Sequence[Piece], hover: bool) -> str:
    """Words that can be hovered are buttons; what is not read is struck."""

    def one(piece):
        if piece.kind == "unknown":
            return f'<s class="t2i-unknown" title="not read: the run does not know it">{escaped(piece.text)}</s>'
        if piece.kind == "word" and hover:
            return f'<button type="button" class="t2i-word" data-word="{piece.number}">{escaped(piece.text)}</button>'
        return escaped(piece.text)

    return f'<p class="t2i-caption">{"".join(map(one, pieces))}</p>'


def _hint(text: str) -> str:
    return f'<p class="t2i-hint">{text}</p>'


def _command(command: str) -> str:
    return (
        '<details class="t2i-command"><summary>The command that makes it again</summary><div class="t2i-code">'
        f"<pre><code>{escaped(command)}</code></pre>"
        '<button type="button" class="t2i-copy">Copy</button></div></details>'
    )


def _download(picture: np.ndarray, name: str) -> str:
    link = f'<a class="t2i-button" download="{escaped(name)}" href="{png(picture)}">Download PNG</a>'
    return f'<p class="t2i-actions">{link}</p>'


def _lights(weights: np.ndarray) -> list[np.ndarray]:
    """[h,w,T] -> what is drawn for each word: what it has beyond an equal share."""
    words = weights.shape[-1]
    return [attention_pictures.word_map(weights[..., word], MAP_SIZE, 1.0 / words) for word in range(words)]


def file_name(caption: str | None, seed: int) -> str:
    """Of a download."""
    stem = pictures.file_stem(caption) if caption else ""
    return f"{stem}-seed{seed}.png".lstrip("-")


def drawn(made: Drawn, command: str, takes_text: bool) -> str:
    """The largest picture, its caption, all scales, the PNG and the command."""
    attends = bool(made.attention)
    stages = [_lights(weights) for weights in made.attention]
    largest = len(made.pictures) - 1
    maps = {min(stage + 1, largest): lights for stage, lights in enumerate(stages)}
    size = made.pictures[-1].shape[0]
    hero = _figure(made.pictures[-1], maps.get(largest, []), made.caption or f"seed {made.seed}", kind="t2i-hero")
    scales = "".join(
        _figure(picture, maps.get(number, []), "", f"{picture.shape[0]} px")
        for number, picture in enumerate(made.pictures)
    )
    unknown = [piece for piece in made.pieces if piece.kind == "unknown"]
    told = _caption(made.pieces, attends) if takes_text else f'<p class="t2i-caption">Seed {made.seed}</p>'
    if attends:
        told += _hint("Hover or tap a word to see where it looked.")
    if unknown:
        told += _hint("Crossed out: not read, since the run was not trained on it.")
    name = file_name(made.caption if takes_text else None, made.seed)
    more = (
        f'<section class="t2i-scales"><h3>Scales</h3><div class="t2i-row">{scales}</div></section>' if largest else ""
    )
    noise = "" if made.truncation == 1.0 else f", {made.truncation:.0%} of the noise"
    return (
        f'<article class="t2i-result">{hero}<div class="t2i-told">{told}'
        f'<p class="t2i-note">Seed {made.seed}{noise}, {size} &times; {size} pixels</p>{more}'
        f"{_download(made.pictures[-1], name)}{_command(command)}</div></article>"
    )


def between(made: Way, command: str) -> str:
    """The pictures on the way above each other, and a slider that shows one."""
    frames = "".join(
        f'<img class="t2i-picture{" t2i-on" if step == 0 else ""}" data-step="{step}" src="{png(picture)}" alt="">'
        for step, picture in enumerate(made.pictures)
    )
    steps = len(made.pictures)
    ends = "".join(f"<span>{escaped(caption)}</span>" for caption in made.captions)
    return (
        f'<article class="t2i-result t2i-way"><figure class="t2i-figure t2i-hero"><div class="t2i-frame">{frames}</div>'
        f'</figure><div class="t2i-told"><input class="t2i-slider" type="range" min="0" max="{steps - 1}" value="0" '
        f'aria-label="from the first caption to the second"><p class="t2i-ends">{ends}</p>'
        f'<p class="t2i-note">Seed {made.seed}, <span class="t2i-step">1</span> of {steps}</p>'
        f"{_download(made.pictures[0], f'between-seed{made.seed}.png')}{_command(command)}</div></article>"
    )


def described(made: Described, command: str) -> str:
    """The picture, its caption, and where was looked for each word: at once and one after the other."""
    lights: list[np.ndarray] = []
    if made.attention is not None:
        lights = [_stretched(caption_pictures.enlarged_map(weights, MAP_SIZE, MAP_SIZE)) for weights in made.attention]
    caption = " ".join(made.words)
    pieces = [Piece(" ", "between")] * (2 * len(made.words) - 1)
    pieces[::2] = [Piece(word, "word", number) for number, word in enumerate(made.words)]
    told = _caption(pieces, bool(lights))
    if lights:
        told += _hint("Hover or tap a word to see where was looked for it.")
        told += '<p class="t2i-actions"><button type="button" class="t2i-button t2i-play">Play</button></p>'
    small = thumbnail(made.seen)
    panels = "".join(
        f'<button type="button" class="t2i-panel" data-word="{number}"><span class="t2i-frame">'
        f'<img src="{small}" alt=""><img src="{shade(light)}" alt=""></span>{escaped(word)}</button>'
        for number, (word, light) in enumerate(zip(made.words, lights, strict=False))
    )
    more = (
        f'<section class="t2i-time"><h3>Word by word</h3><div class="t2i-row">{panels}</div></section>'
        if panels
        else ""
    )
    hero = _figure(made.seen, lights, caption, kind="t2i-hero")
    return f'<article class="t2i-result">{hero}<div class="t2i-told">{told}{_command(command)}</div>{more}</article>'


def _stretched(light: np.ndarray) -> np.ndarray:
    light = light - light.min()
    return light / max(light.max(), 1e-12)


def gallery(kept: Sequence[dict]) -> str:
    """What was drawn, the newest first; each brings itself back."""
    if not kept:
        return ""
    tiles = "".join(
        f'<button type="button" class="t2i-tile" data-choice="{number}" title="{escaped(one["title"])}">'
        f'<img src="{one["thumbnail"]}" alt="{escaped(one["title"])}"></button>'
        for number, one in reversed(list(enumerate(kept)))
    )
    return f'<section class="t2i-gallery"><h3>Gallery</h3><div class="t2i-tiles">{tiles}</div></section>'


def examples(captions: Sequence[str]) -> str:
    """Captions to try."""
    return "".join(
        f'<button type="button" class="t2i-example" data-choice="{number}">{escaped(caption)}</button>'
        for number, caption in enumerate(captions)
    )


def title(heading: str, about: str) -> str:
    """The head of a page."""
    return f'<header class="t2i-title"><h1>{escaped(heading)}</h1><p>{escaped(about)}</p></header>'


def message(text: str) -> str:
    """What is wrong, as a sentence."""
    sentence = re.sub(r"^\w", lambda first: first[0].upper(), text)
    return f'<p class="t2i-message" role="alert">{escaped(sentence)}.</p>'


def refusal(text: str, most_bytes: int) -> str:
    """A message that page.js shows in place of one from the server when a file of more bytes is chosen."""
    return f'<div data-most-bytes="{most_bytes}" hidden>{message(text)}</div>'


def nothing_yet(text: str) -> str:
    """Where a result will be."""
    return f'<div class="t2i-empty"><p>{escaped(text)}</p></div>'
