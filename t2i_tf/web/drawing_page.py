"""The page of a generator: a caption, its picture and where words looked; ways between two captions; a gallery."""

from __future__ import annotations

import random

import gradio as gr

from t2i_tf.config import DemoConfig
from t2i_tf.errors import UserError
from t2i_tf.web import commands, limits, markup
from t2i_tf.web.models import Painter

STEPS = 13
"""Pictures from one caption to another, both included."""

GALLERY = 30
"""Pictures that are kept for a visitor."""

KEPT_SECONDS = 3600.0
"""A visitor's gallery is forgotten so long after the last use."""

CHOOSE = """
element.addEventListener("click", ({ target }) => {
  const chosen = target.closest("[data-choice]");
  if (chosen) trigger("select", { number: Number(chosen.dataset.choice) });
});
"""
"""What is clicked in a list is told to Python by its number."""


class Page:
    """What a page of a generator does, with the values of its fields in and HTML out."""

    def __init__(self, painter: Painter, options: DemoConfig, visits: limits.Visits):
        self.painter, self.options, self.visits = painter, options, visits

    def draw(self, typed: str | None, seed: float | None, truncation: float | None, kept: list[dict], visitor: str):
        """-> the result and the gallery with it. Raises UserError."""
        takes_text = self.painter.takes_text
        caption = limits.caption(typed) if takes_text else ""
        seed, truncation = limits.seed(seed), limits.truncation(truncation)
        self.visits.count(visitor)
        made = self.painter.draw(caption, seed, truncation)
        command = commands.drawn(self.options, caption if takes_text else None, seed, truncation)
        one = {"caption": caption, "seed": seed, "truncation": truncation}
        one |= {"title": f"{caption or 'seed'} {seed}" if not takes_text else f"{caption} (seed {seed})"}
        one |= {"thumbnail": markup.thumbnail(made.pictures[-1])}
        others = [other for other in kept if other["title"] != one["title"] or other["truncation"] != truncation]
        return markup.drawn(made, command, takes_text), [*others, one][-GALLERY:]

    def between(
        self, first: str | None, second: str | None, seed: float | None, truncation: float | None, visitor: str
    ):
        """-> the result. Raises UserError."""
        captions = limits.caption(first), limits.caption(second)
        seed, truncation = limits.seed(seed), limits.truncation(truncation)
        self.visits.count(visitor)
        made = self.painter.between(captions, STEPS, seed, truncation)
        return markup.between(made, commands.between(self.options, captions, STEPS, seed, truncation))


def build(painter: Painter, options: DemoConfig, visits: limits.Visits) -> None:
    """Puts the page into the Blocks around it."""
    page = Page(painter, options, visits)
    gr.HTML(markup.title("Say what you want to see" if painter.takes_text else "Pictures from noise", painter.about))
    if not painter.takes_text:
        _one_picture(page)
        return
    with gr.Tab("One picture"):
        _one_picture(page)
    with gr.Tab("Between two captions"):
        _between(page)


def visitor(request: gr.Request) -> str:
    """Who asks: an address."""
    return request.client.host if request.client else "unknown"


def _numbers():
    with gr.Row(elem_classes=["t2i-fields", "t2i-numbers"]):
        seed = gr.Number(0, label="Seed", precision=0)
        truncation = gr.Slider(0.0, 1.0, 1.0, step=0.05, label="Noise: less is cleaner", buttons=[])
    return seed, truncation


def _one_picture(page):
    painter = page.painter
    takes_text = painter.takes_text
    caption = gr.Textbox(
        label="Caption",
        placeholder=painter.examples[0] if painter.examples else "What does the picture show?",
        max_lines=4,
        visible=takes_text,
        elem_classes="t2i-typed",
    )
    tried = gr.HTML(
        markup.examples(painter.examples),
        js_on_load=CHOOSE,
        visible=bool(painter.examples),
        elem_classes="t2i-examples",
    )
    seed, truncation = _numbers()
    with gr.Row(elem_classes="t2i-buttons"):
        draw = gr.Button("Draw", variant="primary", min_width=120)
        another = gr.Button("Another seed", min_width=120)
    wrong = gr.HTML(visible=False)
    result = gr.HTML(markup.nothing_yet("Your picture will be here."))
    gallery = gr.HTML("", js_on_load=CHOOSE)
    kept = gr.State([], time_to_live=KEPT_SECONDS)
    shown = [wrong, result, kept, gallery]

    def drawn(typed, seed, truncation, kept, request: gr.Request):
        try:
            made, kept = page.draw(typed, seed, truncation, kept, visitor(request))
        except UserError as error:
            return [gr.HTML(markup.message(str(error)), visible=True), gr.skip(), gr.skip(), gr.skip()]
        return [gr.HTML("", visible=False), made, kept, markup.gallery(kept)]

    def again(kept, chosen: gr.EventData, request: gr.Request):
        number = chosen.number
        if not isinstance(number, int) or not 0 <= number < len(kept):
            return [gr.skip()] * 7
        one = kept[number]
        fields = [one["caption"], one["seed"], one["truncation"]]
        return [*fields, *drawn(*fields, kept, request)]

    def example(typed, chosen: gr.EventData):
        number = chosen.number
        known = isinstance(number, int) and 0 <= number < len(painter.examples)
        return painter.examples[number] if known else typed

    fields = [caption, seed, truncation]
    given = {"inputs": [*fields, kept], "outputs": shown, "concurrency_id": "model"}
    gr.on([draw.click, caption.submit, seed.submit], drawn, **given, api_name="draw")
    another.click(lambda: random.randint(0, 9999), None, seed, api_visibility="private").then(
        drawn, **given, api_visibility="private"
    )
    tried.select(example, caption, caption, api_visibility="private").then(drawn, **given, api_visibility="private")
    gallery.select(again, kept, [*fields, *shown], concurrency_id="model", api_visibility="private")


def _between(page):
    examples = page.painter.examples
    with gr.Row(elem_classes=["t2i-fields", "t2i-ways"]):
        places = [f"e.g. {caption}" for caption in examples[:2]] if len(examples) > 1 else ["", ""]
        first = gr.Textbox(label="From", placeholder=places[0], max_lines=4, elem_classes="t2i-typed")
        second = gr.Textbox(label="To", placeholder=places[1], max_lines=4, elem_classes="t2i-typed")
    seed, truncation = _numbers()
    with gr.Row(elem_classes="t2i-buttons"):
        draw = gr.Button("Draw the way", variant="primary", min_width=120)
    wrong = gr.HTML(visible=False)
    result = gr.HTML(markup.nothing_yet("The pictures on the way will be here."))

    def drawn(first, second, seed, truncation, request: gr.Request):
        try:
            made = page.between(first, second, seed, truncation, visitor(request))
        except UserError as error:
            return [gr.HTML(markup.message(str(error)), visible=True), gr.skip()]
        return [gr.HTML("", visible=False), made]

    events = [draw.click, first.submit, second.submit]
    gr.on(events, drawn, [first, second, seed, truncation], [wrong, result], concurrency_id="model", api_name="between")
