"""The configuration of every command as frozen dataclasses: what flags, help and run folders are made from.

A field is declared with `option`, which keeps its help beside its default; `t2i_tf.cli` turns the fields of a
dataclass into absl flags of the same names. This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path

from t2i_tf.errors import UserError

REQUIRED = object()


def option(
    default,
    help,
    *,
    choices: tuple | None = None,
    or_number: str | None = None,
    minimum: int | None = None,
    identity: bool = True,
    repeated: bool = False,
):
    """A dataclass field with its help text.

    Args:
        default: the default; None means "decided later", and the help says by whom; REQUIRED means the user must say.
        help: one line, with the unit.
        choices: the allowed values; or_number: what a whole number beside them is called, where one is allowed.
        minimum: the smallest allowed number.
        identity: False when a run with another value is still the same run (how long, how often to log).
        repeated: a tuple is given by repeating the flag, not by commas.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "or_number": or_number,
        "minimum": minimum,
        "identity": identity,
        "required": default is REQUIRED,
        "repeated": repeated,
    }
    return dataclasses.field(default=None if default is REQUIRED else default, metadata=metadata)


def option_type(field: dataclasses.Field, owner: type) -> tuple[type, bool]:
    """-> (element type, is it a list): `int | None` -> (int, False), `tuple[str, ...]` -> (str, True)."""
    kind = typing.get_type_hints(owner)[field.name]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    return kind, False


def real_path(path: str) -> str:
    """A path in full, links resolved; an address such as gs://bucket/set is one already."""
    return path if "://" in path else os.path.realpath(path)


def validate(config) -> None:
    """Checks required fields, choices and smallest numbers. Raises UserError naming the flag."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("required") and value is None:
            raise UserError(f"--{field.name} is missing: {field.metadata['help']}")
        choices, minimum = field.metadata.get("choices"), field.metadata.get("minimum")
        number = field.metadata.get("or_number")
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        for item in values:
            if choices and item not in choices and not (number and item.isdecimal()):
                named = ", ".join(map(str, choices)) + (f", or a number {number}" if number else "")
                raise UserError(f"--{field.name}={item}: must be one of {named}")
            if minimum is not None and item < minimum:
                raise UserError(f"--{field.name}={item}: must be {minimum} or more")


DEVICES = "devices to mirror the model on, e.g. GPU:0,GPU:1 (default: all GPUs, else the CPU)"


@dataclass(frozen=True)
class PrepareConfig:
    """Turns a source of pictures and captions into a data set folder."""

    source: str = option(
        REQUIRED,
        "where the pictures come from: blossoms, cub, oxford102, coco, flickr8k, flickr30k, lsun, imagenet or folder",
    )
    data_dir: str = option(REQUIRED, "folder to write the data set to")
    source_dir: str | None = option(None, "folder that holds the official files (blossoms needs none)")
    image_size: int = option(64, "stored size in pixels: both sides (--resize=square) or the shorter one")
    crop: str = option(
        "none", "box: crop around the bounding box (CUB) as StackGAN and AttnGAN do", choices=("none", "box")
    )
    resize: str = option(
        "square", "square squashes the picture, shorter_side keeps its proportions", choices=("square", "shorter_side")
    )
    resample: str = option(
        "bilinear", "resampling filter; all are anti-aliased", choices=("box", "bilinear", "bicubic", "lanczos")
    )
    stretch_contrast: bool = option(
        False,
        "stretch the values of each picture to 0 to 255, all channels together and before it is resized, as happened "
        "to the published pictures of StackGAN (tensorflow form)",
    )
    split: str = option(
        "class_disjoint",
        "class_disjoint: test classes are never trained on (the papers' zero-shot "
        "split); official: the data set's own per-image split; coco, flickr8k and flickr30k have no classes and take "
        "their own, or karpathy: that of captioning papers; karpathy_restval: of coco, with restval in train",
        choices=("class_disjoint", "official", "karpathy", "karpathy_restval"),
    )
    subset: str | None = option(
        None,
        "classes of --source=imagenet: all that are there, or those of StackGAN++: dog (118) or cat (5)",
        choices=("dog", "cat", "all"),
    )
    captions: str = option(
        "required",
        "none: the pictures have no captions (unconditional models); lsun and imagenet never have",
        choices=("required", "none"),
    )
    allow_missing: bool = option(False, "leave out pictures or captions that are missing or broken, and say which")
    num_images: int | None = option(None, "how many pictures in all (default: all; blossoms draws 6,600)")
    embeddings: str | None = option(None, "folder with the authors' char-CNN-RNN embedding pickles to attach")
    seed: int = option(0, "seed of everything that is drawn or split at random")
    workers: int | None = option(None, "parallel processes (default: one a core)")
    part: str | None = option(
        None,
        "2/8: write only the second eighth, on one of eight machines that share the folder; the command that finishes "
        "last joins all (default: every part that no other command is at)",
    )
    part_images: int = option(10_000, "pictures of a part, which a killed command may lose and begins with again")
    shard_megabytes: int = option(64, "size of one TFRecord file in megabytes")
    quality: int = option(95, "JPEG quality of stored pictures that had to be re-encoded, 1 to 100")


@dataclass(frozen=True)
class TrainConfig:
    """Trains a paper on a prepared data set; the same command again resumes."""

    paper: str = option(
        REQUIRED,
        "what to train: char_cnn_rnn, gan_int_cls, stackgan, stackgan_v2, visual_words, damsm, attngan, "
        "show_attend_tell or classifier",
    )
    data_dir: str = option(REQUIRED, "data set folder written by t2i-prepare")
    runs_dir: str = option("runs", "folder of numbered run folders", identity=False)
    run_dir: str | None = option(
        None, "the run folder itself, instead of the next number in --runs_dir", identity=False
    )
    init_from: str | None = option(None, "run folder whose weights to start from (fine-tuning; resuming needs no flag)")
    text_encoder_run: str | None = option(None, "run folder of the trained text encoder that conditions the generator")
    steps: int | None = option(None, "train up to this step (default: the paper's epochs)", minimum=1, identity=False)
    box_crop: bool = option(False, "crop stored pictures around their boxes while training")
    seed: int = option(0, "seed of weights, order, augmentation and noise", minimum=0)
    devices: str | None = option(None, DEVICES, identity=False)
    precision: str = option(
        "float32",
        "what layers compute in: float32; mixed_bfloat16 (GPUs from Ampere on); mixed_float16 (older GPUs), its losses "
        "scaled so that gradients do not vanish. Weights, normalisation, attention and losses stay float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit: str | None = option(
        None,
        "what XLA compiles: none; attention (of damsm and attngan); step: the whole step, on one device (default: "
        "attention where there is a GPU)",
        choices=("none", "attention", "step"),
        identity=False,
    )
    accumulate: int = option(
        1,
        "parts that the rows of a device are cut into, one after the other, for memory; one update from the mean of "
        "their gradients. Batch normalisation and pairs of rows are then of a part; refused where a loss compares all "
        "rows of the batch",
        minimum=1,
    )
    steps_per_execution: int = option(
        1,
        "steps for each return to Python; --steps, --checkpoint_every, --log_every and --sample_every are multiples",
        minimum=1,
        identity=False,
    )
    checkpoint_every: int = option(1000, "steps between checkpoints", minimum=1, identity=False)
    keep_checkpoints: int = option(3, "how many checkpoints to keep", minimum=1, identity=False)
    log_every: int = option(50, "steps between TensorBoard scalars", minimum=1, identity=False)
    sample_every: int | None = option(
        None,
        "steps between sample grids and scores on unseen pictures (default: 500; an epoch for a paper that keeps its "
        "best weights by such a score)",
        minimum=1,
        identity=False,
    )
    patience: int | None = option(
        None,
        "stop when so many scores in a row were no better than the best one (papers that keep their best weights)",
        minimum=1,
        identity=False,
    )
    deterministic: bool = option(False, "bit-identical runs (slower on GPUs)", identity=False)
    dry_run: bool = option(
        False, "print the resolved configuration, the networks, memory and steps; train nothing", identity=False
    )


@dataclass(frozen=True)
class LoadedConfig:
    """Which weights of a run are loaded: options of the commands that use a trained run."""

    weights: str = option(
        "best", "best: EMA weights where the run keeps them, else raw", choices=("best", "ema", "raw")
    )
    checkpoint: str = option(
        "best",
        "best: that of the best score, where the run chooses by one; newest: the last one; or the number of a step "
        "that is kept (--keep_checkpoints of t2i-train)",
        choices=("best", "newest"),
        or_number="STEP",
    )


@dataclass(frozen=True)
class CaptionedConfig:
    """How a captioner searches for its words: options of the commands that may use one."""

    beam_size: int = option(1, "hypotheses kept while a caption is written; 1, as published, is greedy", minimum=1)
    length_normalised: bool = option(False, "choose captions by their cost a word, not by their whole cost")


@dataclass(frozen=True)
class SampleConfig(LoadedConfig, CaptionedConfig):
    """Draws pictures of captions with a trained run, or describes pictures with a captioner's."""

    run_dir: str = option(REQUIRED, "run folder to sample from")
    caption: tuple[str, ...] = option(
        (), "a caption; repeat the flag for more (default: 8 captions of the test split)", repeated=True
    )
    captions_file: str | None = option(None, "text file with one caption a line")
    seeds: str | None = option(
        None,
        "noise seeds: one picture a caption and seed, e.g. 0-7 or 1,5,9; the same seed is the same noise whatever the "
        "caption (default: 0-7; with captions, 0 for scales and nearest)",
    )
    out: str = option("samples", "folder to write the pictures to")
    mode: str = option(
        "grid",
        "grid: a row a caption (the words fixed, the noise varied), a column a seed (the noise fixed, the words "
        "varied); scales: a row a caption and seed, a column a scale of the run; nearest: a row a caption and seed, "
        "beside each sample the training pictures nearest to it, to see whether pictures were learned by heart; "
        "interpolate_text: between the first two captions; interpolate_noise: between the seeds of one caption; "
        "change_word: the first caption and what each --change makes of it, the noise fixed; with attention to words, "
        "beside each picture where that word was looked at; round_trip: a row a caption and seed, beside its picture "
        "what the captioner of --captioner_run reads in it",
        choices=("grid", "scales", "nearest", "interpolate_text", "interpolate_noise", "change_word", "round_trip"),
    )
    attention: bool = option(
        False,
        "instead of --mode: for each caption and seed all scales, and for each stage of attention the words looked at "
        "most, each over the picture; of a DAMSM: where the words of unseen pictures' captions look",
    )
    change: tuple[str, ...] = option(
        (), "old=new: a word of the caption and its substitute (--mode=change_word); repeat the flag", repeated=True
    )
    neighbors: int = option(7, "training pictures beside each sample (--mode=nearest)", minimum=1)
    data_dir: str | None = option(
        None, "data set of --mode=nearest and of the default captions (default: the run's own)"
    )
    film: bool = option(
        False,
        "instead of --mode: an animated picture from caption to caption and back to the first, the noise fixed, one "
        "for each seed; of one caption, or without text, from seed to seed",
    )
    film_steps: int = option(24, "pictures of a film from one caption or seed to the next, 20 a second", minimum=1)
    film_format: str = option(
        "webp", "webp: all colours, small; gif: 256 colours, seen everywhere", choices=("webp", "gif")
    )
    interpolation_steps: int = option(8, "pictures along an interpolation, both ends included", minimum=2)
    truncation: float = option(1.0, "scale of the noise, 0 to 1: smaller is less varied and cleaner")
    single_files: bool = option(True, "grid and scales: also write every picture to a file of its own")
    devices: str | None = option(None, DEVICES)
    images: tuple[str, ...] = option(
        (), "captioners: comma-separated picture files to describe (default: 8 pictures of the test split)"
    )
    captioner_run: str | None = option(None, "run folder of the captioner that reads pictures back (round_trip)")


@dataclass(frozen=True)
class EvaluateConfig(LoadedConfig, CaptionedConfig):
    """Scores a trained run, or a folder of pictures; every score is a line of scores.jsonl there."""

    run_dir: str | None = option(None, "run folder to score")
    images: str | None = option(
        None, "folder of square pictures of one size to score instead of a run, of whatever made them; with --data_dir"
    )
    data_dir: str | None = option(None, "data set with the captions and real pictures (default: the run's own)")
    split: str = option("test", "split whose captions and pictures are used")
    metrics: tuple[str, ...] = option(
        ("default",),
        "comma-separated: is, fid, kid (generators, --images), retrieval, recall (text encoders), r_precision, "
        "diversity, round_trip (generators), captions (captioners), accuracy (classifiers), word_precision "
        "(visual_words); of blossoms caption_fidelity and attention_on_petals; "
        "default: what fits the run; with --images is,fid,kid",
    )
    extractor: str = option(
        "inception2015",
        "network of is, fid and kid: inception2015 (from TF Hub) or inception2015:FOLDER, keras (Inception-v3), a .h5 "
        "file, run:RUN_DIR of a classifier, a SavedModel folder, or random (tests)",
    )
    resize: str | None = option(
        None,
        "how pictures come to the size that the extractor sees (default: tf1_bilinear for inception2015, "
        "antialiased_8bit for a run, else antialiased)",
        choices=("tf1_bilinear", "bilinear", "antialiased", "antialiased_8bit"),
    )
    real_images: int | None = option(
        None, "real pictures of fid and kid, drawn at random (default: all of the split)", minimum=2
    )
    box_crop: bool | None = option(
        None, "crop real pictures around their boxes (default: as the run was trained; with --images not)"
    )
    damsm_run: str | None = option(
        None, "run folder of the DAMSM that judges r_precision (default: the one that the generator was trained with)"
    )
    num_images: int | None = option(
        None, "how many pictures to generate or read (default: 1,000; with --images all)", minimum=1
    )
    save_images: str | None = option(
        None, "empty folder to keep the scored pictures in as PNG files (is, fid, kid, r_precision), and their captions"
    )
    devices: str | None = option(None, DEVICES)
    watch: bool = option(False, "score every checkpoint of the run, and each new one as it appears, until Ctrl-C")
    seed: int = option(0, "seed of the captions chosen and of the noise", minimum=0)
    tokenization: str = option(
        "ptb",
        "tokens that captions are scored by: ptb (Penn Treebank, lower case, without punctuation; needs Java), words "
        "(the same by a rule of our own) or none (split at blanks, as published)",
        choices=("ptb", "words", "none"),
    )
    meteor: bool = option(True, "score captions by METEOR too, which takes Java, 1.2 GB and some seconds more")
    captioner_run: str | None = option(None, "run folder of the captioner that reads pictures back (round_trip)")


@dataclass(frozen=True)
class TableConfig:
    """Gathers the scores of runs and scored folders into a table, beside the papers' figures."""

    run_dirs: tuple[str, ...] = option(REQUIRED, "comma-separated: folders that hold a scores.jsonl")
    metrics: tuple[str, ...] | None = option(None, "comma-separated: the metrics to show (default: all)")
    format: str = option("markdown", "markdown or csv", choices=("markdown", "csv"))
    published: bool = option(True, "also the papers' figures of the same metrics and data sets")
    plot: str | None = option(
        None, "picture to write beside the table, .png, .svg or .pdf: a panel a value (needs matplotlib: .[plots])"
    )
    against: str = option(
        "step",
        "what --plot draws scores against: step, of every step that was scored; or lambda (--damsm_weight) or any "
        "other setting of the runs' config.json, of the last step",
    )
    out: str | None = option(None, "file to write (default: print)")


@dataclass(frozen=True)
class HumanRankConfig:
    """Lets people rank the pictures of several methods blind, on a page in the browser, and reports the mean ranks.

    First with --run_dirs, which draws the sheets; then --sheets alone goes on; with --report it prints the table.
    """

    sheets: str = option(REQUIRED, "folder of the sheets and their votes; new, or one that this command wrote")
    run_dirs: tuple[str, ...] = option(
        (),
        "comma-separated, two or more to be ranked: run folders, or with --captions_file folders of pictures of "
        "other systems (default: those of the sheets that are there)",
    )
    data_dir: str | None = option(None, "data set with the captions (default: that of the first run)")
    captions_file: str | None = option(
        None,
        "instead of --data_dir: text file with one caption a line; of a folder, the pictures in the order of their "
        "names (2 before 10) belong to these lines",
    )
    split: str | None = option(None, "split whose captions are used (default: test)")
    num_captions: int | None = option(
        None, "captions, drawn at random: a sheet each (default: 50; of --captions_file all)", minimum=1
    )
    per_class: bool | None = option(
        None, "--num_captions of each class of the split, as StackGAN did with 50 (default: in all)"
    )
    pictures_each: int | None = option(
        None, "pictures of each method for a caption (default: 1; StackGAN: 5)", minimum=1
    )
    seed: int | None = option(
        None, "seed of the captions, the noise and the order of the pictures (default: 0)", minimum=0
    )
    weights: str | None = option(
        None,
        "best: EMA weights where a run keeps them, else raw (default: best)",
        choices=("best", "ema", "raw"),
    )
    checkpoint: str | None = option(
        None,
        "best: that of the best score, where a run chooses by one; newest: the last one; or the number of a step that "
        "all keep (default: best)",
        choices=("best", "newest"),
        or_number="STEP",
    )
    report: bool = option(
        False, "print mean ranks, their standard errors and how raters agree; add them to each run's scores.jsonl"
    )
    serve: bool = option(True, "show the page until Ctrl-C; false: only draw the sheets")
    host: str = option("127.0.0.1", "address of the page; 0.0.0.0 lets other machines in")
    port: int = option(8000, "port of the page; 0 takes a free one", minimum=0)


@dataclass(frozen=True)
class ExportConfig(LoadedConfig, CaptionedConfig):
    """Writes a trained run as a SavedModel that takes strings and needs nothing of this package."""

    run_dir: str = option(REQUIRED, "run folder to export")
    out: str = option(
        REQUIRED, "folder to write, new or empty; TensorFlow Serving wants a number below the model's name: flowers/1"
    )
    least_rows: int | None = option(
        None,
        "batches are filled up to so many rows or the next power of two (default: measured here, so that a picture "
        "depends on no neighbour); 32 is what t2i-sample does: right on any machine, and slow for single captions",
        choices=(1, 2, 4, 8, 16, 32),
    )
    tolerance: int = option(
        0,
        "of a run that draws: levels of 255 by which values may differ from the pictures of t2i-sample; with 1 fewer "
        "rows pass for a single caption where rounding hangs on their number (0: equal to the bit)",
        minimum=0,
    )


@dataclass(frozen=True)
class DemoConfig(LoadedConfig):
    """Serves a web page of a trained run: captions to pictures, or pictures to captions."""

    run_dir: str | None = option(None, "run folder to show; or give --saved_model")
    saved_model: str | None = option(None, "folder written by t2i-export, instead of --run_dir")
    host: str = option("127.0.0.1", "address to listen at; 127.0.0.1 is this machine alone, 0.0.0.0 its whole network")
    port: int = option(7860, "port to listen at; if it is taken, the next free one; 0: any free one", minimum=0)
    requests_per_minute: int = option(
        60, "pictures or captions that one visitor (an address) may ask for in a minute", minimum=1
    )
    upload_megabytes: int = option(10, "largest picture that may be sent to a captioner", minimum=1)


@dataclass(frozen=True)
class ImportConfig:
    """Turns published weights into a run folder that sample and evaluate take.

    Settings of the paper that no file tells (--published_mask, --character_rule, ...) can be given too.
    """

    paper: str = option(REQUIRED, "the paper whose weights these are")
    scheme: str = option(
        REQUIRED,
        "the naming scheme of the file, e.g. attngan; another word is answered with the paper's and their files",
    )
    weights: str = option(
        REQUIRED,
        "the published file: .npz, .pth, .t7 or a TensorFlow .ckpt; joined by commas for a scheme of several, in any "
        "order",
    )
    run_dir: str = option(REQUIRED, "run folder to write")
    text_encoder_run: str | None = option(None, "run folder of the text encoder that goes with a generator")
    captions: str | None = option(
        None,
        "captions.pickle published beside a DAMSM or an AttnGAN: the words that the text encoder knows; of a captioner "
        "the dictionary.pkl that its data were prepared with",
    )


@dataclass(frozen=True)
class BenchmarkConfig(TrainConfig):
    """Measures what a preset costs on this machine. It takes the flags of t2i-train, reads no run and writes none."""

    data_dir: str | None = option(
        None, "data set folder written by t2i-prepare (default: batches of random pictures and words)"
    )
    part: str = option(
        "step",
        "step: time to the first step, steps, arithmetic, memory, reading and sampling; input: how fast training "
        "batches are read, beside a plain PIL loader; attention: attention of words and regions at the sizes of CUB, "
        "forward and backward, compiled by XLA and plain",
        choices=("step", "input", "attention"),
    )
    timed_steps: int = option(20, "steps that are timed, after two that are not; of each set of flags", minimum=1)
    compare: str | None = option(
        None,
        'flags that make a second set of the given ones, e.g. --compare="--batch_size=8 --num_scales=2": steps of both '
        "are taken in turn, in one process, and the ratio of their medians is given",
    )
    sampling_batches: tuple[int, ...] = option(
        (1, 8, 64), "comma-separated: pictures drawn at once, or captions written; none given: no sampling", minimum=1
    )
    profile: str | None = option(
        None, "folder to write a trace for TensorBoard to; the ten most expensive operations are named"
    )
    seconds: float = option(4.0, "length in seconds of a measurement of anything but steps")
    rounds: int = option(5, "measurements of each part that is compared; the median is given", minimum=1)
    out: str | None = option(None, "file to write all figures to, as JSON")


@dataclass(frozen=True)
class RunConfig:
    """Everything a run folder must know to be rebuilt: config.json."""

    training: TrainConfig
    hyperparameters: dict
    context: dict
    """What the recipe was told of its data: `t2i_tf.papers.Context`."""
    data_checksum: str = ""
    """Of the training split's index: a data set prepared anew at the same place makes another run."""
    vocabulary: dict | None = None
    """Of a run that reads words, how many it knows and the SHA-256 of their file: `inference.vocabulary_summary`."""
    version: int = 1
    untrained: tuple[str, ...] = ()
    """Networks whose weights are random, since no file of an import held them."""

    def need(self, source: str, *networks: str, advice: str = "import it again with one that holds it") -> None:
        """Raises UserError, naming `source` as where the run comes from, when one of these networks is untrained."""
        lacking = [name for name in networks if name in self.untrained]
        if lacking:
            raise UserError(f"{source}: its {', '.join(lacking)} was in no file of the import, so untrained: {advice}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, run_dir: str | os.PathLike) -> RunConfig:
        """Reads run_dir/config.json. Raises UserError when the folder is not a run or is of another version."""
        path = Path(run_dir) / "config.json"
        try:
            content = json.loads(path.read_text())
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
        except FileNotFoundError:
            raise UserError(
                f"{run_dir} is not a run folder (no config.json): give a folder that t2i-train wrote"
            ) from None
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): restore it or start a new run") from None
        if content.get("version") != 1:
            raise UserError(
                f"{path} has version {content.get('version')}, this program reads 1: use the version that wrote it"
            )
        missing = sorted({"training", "hyperparameters", "context"} - set(content))
        if missing:
            raise UserError(f"{path} is damaged (no {', '.join(missing)}): restore it or start a new run")
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        surplus = sorted(set(content["training"]) - known)
        if surplus:
            raise UserError(f"{path} has unknown settings {', '.join(surplus)}: use the version that wrote it")
        optional = {name: content[name] for name in ("data_checksum", "vocabulary") if name in content}
        return cls(
            TrainConfig(**content["training"]),
            content["hyperparameters"],
            content["context"],
            untrained=tuple(content.get("untrained", ())),
            **optional,
        )

    def identity(self) -> dict:
        """What makes it this run and no other: all settings but those that say how long and how often to log."""
        kept = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata["identity"]}
        training = {k: v for k, v in dataclasses.asdict(self.training).items() if k in kept}
        for name in ("data_dir", "init_from", "text_encoder_run"):
            training[name] = real_path(training[name]) if training[name] else None
        return {
            "data": {"data_checksum": self.data_checksum},
            "training": training,
            "hyperparameters": {
                k: v for k, v in self.hyperparameters.items() if k not in ("epochs", "compile_attention")
            },
        }
