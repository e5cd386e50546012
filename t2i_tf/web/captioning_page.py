"""The page of a captioner: a picture, its caption, and where was looked word by word."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from t2i_tf.config import DemoConfig
from t2i_tf.errors import UserError
from t2i_tf.web import commands, limits, markup
from t2i_tf.web.drawing_page import visitor
from t2i_tf.web.models import Captioner


class Page:
    """What a page of a captioner does."""

    def __init__(self, captioner: Captioner, options: DemoConfig, visits: limits.Visits):
        self.captioner, self.options, self.visits = captioner, options, visits

    def describe(self, path: str, name: str, visitor: str) -> str:
        """-> the result. Raises UserError."""
        self.visits.count(visitor)
        return markup.described(self.captioner.describe(path), commands.described(self.options, name))


def build(captioner: Captioner, options: DemoConfig, visits: limits.Visits) -> None:
    """Puts the page into the Blocks around it."""
    page = Page(captioner, options, visits)
    gr.HTML(markup.title("Show a picture, read what is in it", captioner.about))
    picture = gr.Image(
        label="Picture", sources=["upload", "clipboard"], height=170, elem_classes="t2i-drop", buttons=[]
    )
    # The file as it was sent: pixels are not encoded twice, and what cannot be read is told as other problems are.
    picture.preprocess = lambda payload: None if payload is None else (payload.path, payload.orig_name)
    too_large = limits.picture_too_large(options.upload_megabytes)
    gr.HTML(markup.refusal(too_large, options.upload_megabytes * 1_000_000))
    wrong = gr.HTML(visible=False, elem_classes="t2i-wrong")
    result = gr.HTML(markup.nothing_yet(f"Drop a picture above, of {options.upload_megabytes} MB at most."))

    def described(file, request: gr.Request):
        if file is None:
            return [gr.skip(), gr.skip(), gr.skip()]
        path, name = file
        try:
            made = page.describe(path, Path(name or path).name, visitor(request))
        except UserError as error:
            return [None, gr.HTML(markup.message(str(error)), visible=True), gr.skip()]
        return [None, gr.HTML("", visible=False), made]  # None: ready for the next picture

    picture.input(described, picture, [picture, wrong, result], concurrency_id="model", api_name="describe")
