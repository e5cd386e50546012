"""What is drawn and scored while a run trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from t2i_tf import attention_pictures, pictures
from t2i_tf.config import EvaluateConfig
from t2i_tf.evaluation import alignment, evaluate, score_file
from t2i_tf.training.best import BestWeights
from t2i_tf.training.session import Session

SAMPLED_CAPTIONS = 8
SAMPLED_SEEDS = 6
SHOWN_ATTENTION = 4
"""Pictures whose attention is drawn."""
SCORED_IMAGES = 256
"""Pictures behind a score; t2i-evaluate takes more."""


class Observer:
    """Draws sample grids of unseen captions, or of seeds without text, and takes the recipe's scores while it trains.

    Unseen are the pictures of the split "val", or "test" where there is none. Once the run is asked to end
    (`callbacks.Together`), scores not yet begun are left out.
    """

    def __init__(self, session: Session, run_dir: Path, writer, best: BestWeights | None, together):
        self.live = session.live_run()  # one for all steps: its functions are traced once
        self.session, self.run_dir, self.writer, self.best, self.together = session, run_dir, writer, best, together
        splits = session.dataset.manifest["splits"]
        self.test = next((session.dataset.split(name) for name in ("val", "test") if name in splits), None)
        further = session.further_selections.items()
        self.further = [BestWeights(run_dir, selection, None, name) for name, selection in further]
        self.captions = self._captions()

    def _captions(self):
        if self.session.recipe.kind != "gan" or (self.session.text_encoder is None and self.session.vocabulary is None):
            return []
        return self.live.some_captions(self.test or self.session.split, SAMPLED_CAPTIONS)

    def __call__(self, step: int) -> None:
        live = self.live
        live.step = step
        if live.average is not None:
            live.average.swap()
        try:
            self._draw(live, step)
            self._draw_attention(live, step)
            scores = self._score(live, step)
        finally:
            if live.average is not None:
                live.average.swap()
        for best in [*([] if self.best is None else [self.best]), *self.further]:
            if best.selection.metric in scores:
                best.consider(step, scores[best.selection.metric], live.recipe.networks, live.average)
        if self.best is not None:
            self.session.trainer.stop_training = self.best.exhausted

    def _draw(self, live, step):
        """A row a caption and a column a seed; without text seeds alone."""
        if self.captions:
            rows, labels = [caption for caption in self.captions for _ in range(SAMPLED_SEEDS)], self.captions
            images = live.generate(rows, list(range(SAMPLED_SEEDS)) * len(labels))[-1]
        elif live.recipe.kind == "gan" and not live.takes_text:
            labels = [""] * SAMPLED_CAPTIONS
            images = live.generate(None, list(range(SAMPLED_CAPTIONS * SAMPLED_SEEDS)))[-1]
        else:
            return
        grid = pictures.labelled_grid(images.reshape(len(labels), SAMPLED_SEEDS, *images.shape[1:]), labels)
        pictures.save(grid, self.run_dir / "samples" / f"step-{step:07d}.png")
        with self.writer.as_default(step=step):
            tf.summary.image("samples", np.asarray(grid)[None])
            if self.captions:
                tf.summary.text("captions", tf.constant(self.captions))

    def _draw_attention(self, live, step):
        """Where words were looked at in generated pictures, or look in unseen ones."""
        if not hasattr(live.recipe, "attend"):
            return
        split = self.test or self.session.split
        if self.captions:
            shown = self.captions[:SHOWN_ATTENTION]
            images, attention = live.attend(shown, [0] * len(shown))
            tokens = [live.tokens(caption) for caption in shown]
            figure = attention_pictures.generated(shown, tokens, images, attention)
        elif split.caption_offsets[-1]:
            figure = alignment.attention_figure(live, split, SHOWN_ATTENTION)
        else:
            return
        pictures.save(Image.fromarray(figure), self.run_dir / "samples" / f"attention-{step:07d}.png")
        with self.writer.as_default(step=step):
            tf.summary.image("attention", figure[None])

    def _score(self, live, step) -> dict[str, dict]:
        """Metric -> its line of scores.jsonl."""
        scores = {}
        if self.test is None:
            return scores
        for metric in evaluate.fitting(live, self.test):
            if self.together.asked:
                break
            count = evaluate.ENOUGH_IMAGES.get(metric, SCORED_IMAGES)
            options = EvaluateConfig(num_images=count, tokenization="words", meteor=False)  # nothing that starts Java
            score = scores[metric] = evaluate.evaluate(live, metric, self.test, options)
            score_file.append(self.run_dir, score)
            with self.writer.as_default(step=step):
                for name, value in score.items():
                    if isinstance(value, float):
                        tf.summary.scalar(f"{metric}/{name}", value)
        return scores
