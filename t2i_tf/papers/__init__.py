"""The papers, by name, and the contract that a paper keeps.

A paper is one module, readable from top to bottom:

* `Hyperparameters`: a frozen dataclass whose fields are declared with `t2i_tf.config.option`; its defaults are the
  paper's CUB values. It always has `batch_size` (global), `epochs` and `ema_decay`; maybe `split`, to train on another
  one than "train", and `held_out`, the share of the pictures of each class that is left out to be scored on.
* its networks, subclassed Keras models;
* `Recipe(hyperparameters, context)`: what the trainer, the sampler and the evaluator ask. `context` is a `Context`;
  that of a GAN takes `judges=False` as well, for one that only draws: it has neither discriminators nor what else
  looks at pictures;
* maybe `vocabulary_run(hyperparameters)`: the run folder whose words captions are read by, instead of the data set's
  own, or None.

Every recipe has
* `kind`: "gan" or "supervised" - which trainer it wants;
* `request`: the `BatchRequest` that says what a training batch holds;
* `networks`: dict of name -> built Keras model, everything that a checkpoint keeps;
* `steps_per_epoch(num_images) -> int`, with sampling "caption_length" at least, since the lengths of captions are known
  to the pipeline alone, and `optimizers(steps_per_epoch) -> dict` of name -> Keras optimizer;
* `score_metrics`: names of the evaluation metrics that are computed while it trains;
* maybe `selection`: the `Selection` whose best weights are kept, and which stops training that no longer gets better;
* maybe `further_selections`: dict of folder name -> `Selection` whose best weights are kept in that folder of the run,
  which is a run folder itself;
* maybe `pretrained`: network name, or "name.part" of one -> (run folder, network name there), weights that a fresh run
  starts from, the averaged ones where that run keeps them; UserError for a run that does not fit;
* maybe `start(fresh)`: sets the weights that the named networks, which --init_from did not bring, start from and that
  no run folder holds (ImageNet); UserError when they cannot be had;
* maybe `clip_norms`: network name -> largest global norm of the gradient of its trained weights, all replicas' rows
  together; a larger gradient is scaled down to it before the optimizer sees it;
* maybe `whole_batch`: why its loss cannot be had from parts of a batch (--accumulate), or None.

A GAN recipe has `generator` and the ordered dict `discriminators`, and
* `noise(draw) -> dict`: all noise of one step, from `draw.normal(name, width)` and `draw.uniform(...)`;
* `condition(batch)`: what conditions both sides, from the batch's text;
* `generate(condition, noise) -> dict`: the training forward(s) of the generator;
* `discriminator_losses(name, batch, condition, generated) -> dict` and `generator_losses(batch, condition, generated)
  -> dict`: named scalars, means over this replica's rows; "loss" is minimised, the others are shown;
* `sampling_noise(draw) -> dict` and `sample(condition, noise) -> list of images [B,H,W,3] in [-1,1]`, small to large:
  test time; the noise has a row for each picture and goes to zero with the truncation;
* `image_features(images) -> [B,F]`: what the discriminator of the largest scale makes of pictures [B,S,S,3] in [-1,1]
  before it looks at a condition, flattened; running statistics. Training pictures near a sample are found with it;
* maybe `attend(condition, noise) -> {"images": as sample, "attention": list of [B,h,w,T]}`: how much each place looked
  at each word, of each stage.

A supervised recipe has `losses(batch, noise) -> dict` as above, and what its metrics ask for (`encode_captions`,
`encode_pictures`, `similarity`, ...); maybe `attend(batch) -> [B,T,h,w]`: where each word of a caption looks. A
captioner has `annotations(batch)`, `seen_share`, `caption(batch, ...)`, `negative_log_likelihood(batch)`, and beside it
`to_text(ids, vocabulary)`.

Means are over the replica's own rows: the trainer divides by the number of replicas, once, and gradients are summed.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from t2i_tf.config import validate
from t2i_tf.errors import UserError

PAPERS = {
    "char_cnn_rnn": "Reed et al., CVPR 2016: caption characters -> sentence vector",
    "gan_int_cls": "Reed et al., ICML 2016: 64x64 pictures; GAN, GAN-CLS, GAN-INT, GAN-INT-CLS",
    "stackgan": "Zhang et al., ICCV 2017: Stage-I 64x64, Stage-II 256x256, conditioning augmentation",
    "stackgan_v2": "StackGAN++, Zhang et al., TPAMI 2018: a tree of scales 64/128/256, with text or without",
    "visual_words": "as Joulin et al., ECCV 2016: a small picture network from the words of captions, for the DAMSM",
    "damsm": "Xu et al., CVPR 2018: words and regions, sentences and pictures; what AttnGAN rests on",
    "attngan": "Xu et al., CVPR 2018: attention to words; AttnGAN with two or three scales, AttnDCGAN",
    "show_attend_tell": "Xu et al., ICML 2015: picture -> caption; soft, hard or no attention",
    "classifier": "Inception-v3 fine-tuned on a data set's classes: what the papers' Inception Scores rest on",
}


@dataclass(frozen=True)
class BatchRequest:
    """What a paper wants in a training batch; the pipeline reads it and knows no paper."""

    image_sizes: tuple[int, ...]
    """Sizes of the image pyramid in pixels, ascending: batch["images"] is a tuple of uint8 [B,S,S,3]."""
    pictures: bool = True
    """False: batches hold none; those that are looked at later are of `image_sizes`."""
    sampling: str = "shuffled"
    """shuffled: every image once an epoch; class: a class, then an image of it, with replacement;
    uniform: an image with replacement; distinct_classes: no class twice in a batch;
    caption_length: rows are captions, those of a batch all of one number of words. The lengths take turns, each caption
    comes once an epoch, and the last batch of a length is filled up with others of it."""
    wrong_images: bool = False
    """Also batch["wrong_images"], like "images". With class sampling of an evenly drawn other class, with shuffled
    sampling evenly of the pictures of other classes (one without a class is of its own), with uniform sampling of
    another picture."""
    text: str | None = None
    """embedding: batch["embedding"] float32 [B,captions,D]; characters: batch["characters"] int32 [B,captions,201];
    words: batch["words"] int32 [B,captions,words], 0 behind the end, and batch["word_lengths"] int32 [B,captions]."""
    words: int = 0
    """Of text "words": the longest caption in words. Of a longer one so many words are drawn, without replacement and
    anew each time, and kept in their order."""
    unknown_words: bool = False
    """With text "words": words that the vocabulary lacks are kept, as id 1, and the others count from 2."""
    longest_caption: int = 0
    """> 0: captions of more words are left out."""
    annotations: bool = False
    """batch["annotations"] float16 [B,L,D] of the recipe's frozen network stand for the pictures."""
    augmentation: bool = True
    """False: the middle square of each picture, as large as it fits, never mirrored."""
    captions: int = 1
    """How many captions of the image are drawn for each row."""
    captions_with_replacement: bool = True
    image_views: int = 0
    """> 0: batch["features"] float32 [B, feature_width], which the recipe's frozen network gives of one of this many
    fixed views (centre and corners, plain and mirrored), stand for the pictures."""


@dataclass(frozen=True)
class Selection:
    """The score on unseen pictures by which the best weights of a run are chosen."""

    metric: str
    """One of the recipe's `score_metrics`."""
    value: str
    """Its name in the line of scores.jsonl."""
    largest: bool = True
    """False: the smallest is the best."""

    def better(self, value: float, than: float) -> bool:
        return value > than if self.largest else value < than


@dataclass(frozen=True)
class Context:
    """What a recipe must know of the data it is built for."""

    text_dim: int | None = None
    """Width of the sentence embeddings of the text encoder that conditions it."""
    num_classes: int = 0
    class_ids: tuple[int, ...] = ()
    """The classes of the training split: their positions in the data set's list, ascending."""
    vocabulary_size: int = 0
    """Words of the data set's vocabulary, 0 for padding included."""
    num_captions: int = 0
    """Captions of the training split."""
    stored_size: int | None = None
    """Shorter side in pixels of the stored pictures, None where they have their own; and whether they were squashed to
    squares: a picture that comes later, from a file, is prepared in the same way."""
    squashed: bool = False
    resample: str = "bilinear"
    """The filter of `images.FILTERS` that they were resized by."""


def _source(name: str) -> Path:
    if name not in PAPERS:
        raise UserError(f"unknown paper {name!r}: --paper is one of {', '.join(PAPERS)}")
    return Path(__file__).with_name(f"{name}.py")


def get(name: str):
    """The module of a paper. Raises UserError with the known names."""
    _source(name)
    return importlib.import_module(f"t2i_tf.papers.{name}")


def hyperparameter_fields(name: str) -> type:
    """The paper's Hyperparameters, without importing its module and thereby TensorFlow.

    The flags of every paper must be known before `--help` can be printed, and that must not take seconds. The class is
    plain data, so its definition alone is compiled, out of the module's syntax tree.
    """
    path = _source(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    definition = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Hyperparameters"]
    header = ast.parse(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom t2i_tf.config import option"
    ).body
    spec = importlib.util.spec_from_loader(f"{__name__}._{name}_hyperparameters", loader=None)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # get_type_hints looks the annotations up there
    exec(compile(ast.Module([*header, *definition], []), str(path), "exec"), module.__dict__)
    return module.Hyperparameters


def resolve(name: str, **given) -> object:
    """The paper's Hyperparameters with the given values; None means "the paper's own". Raises UserError."""
    fields = get(name).Hyperparameters
    known = {field.name for field in dataclasses.fields(fields)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise UserError(f"{name} has no setting {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    hyperparameters = fields(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None})
    validate(hyperparameters)
    return hyperparameters
