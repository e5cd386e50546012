"""What is trained, scored and compared, as data. Minutes are those expected alone on 2 CPU cores; seeds are those of
the presets unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """A folder of `t2i-prepare --source=blossoms`."""

    name: str
    image_size: int
    num_images: int
    minutes: float


@dataclass(frozen=True)
class Run:
    """A run folder of t2i-train."""

    name: str
    """Of the folder, below that of all results."""
    preset: str
    """flags/<preset>_blossoms.flags"""
    data: DataSet
    steps: int
    minutes: float
    flags: tuple[str | tuple[str, Run], ...] = ()
    """With another run's path in place of {} where there is one."""


@dataclass(frozen=True)
class Score:
    """A call of t2i-evaluate."""

    metrics: tuple[str, ...]
    num_images: int
    minutes: float
    flags: tuple[str | tuple[str, Run], ...] = ()


@dataclass(frozen=True)
class Column:
    title: str
    score: Score
    metric: str
    value: str
    """Its name in the line of scores.jsonl."""
    smaller_is_better: bool = False


@dataclass(frozen=True)
class Row:
    label: str
    run: Run
    published: str = ""
    """Its method among `t2i_tf.evaluation.table.PUBLISHED`."""


@dataclass(frozen=True)
class PublishedColumn:
    title: str
    data: str
    metric: str
    value: str
    """Its name in a line of that metric."""


@dataclass(frozen=True)
class Ordering:
    """What the paper says of rows: in each pair of labels the second is better."""

    says: str
    column: str
    """Its title."""
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    about: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    published: tuple[PublishedColumn, ...]
    orderings: tuple[Ordering, ...]


def chain(*labels: str) -> tuple[tuple[str, str], ...]:
    """Worst to best -> pairs of neighbours."""
    return tuple(zip(labels[:-1], labels[1:], strict=True))


BLOSSOMS = DataSet("blossoms", 64, 6600, 0.2)
BLOSSOMS_128 = DataSet("blossoms128", 128, 6600, 0.3)
BLOSSOMS_256 = DataSet("blossoms256", 256, 6600, 0.8)
MANY_BLOSSOMS = DataSet("blossoms22k", 64, 22000, 0.4)

TEXT_ENCODER = Run("shared/text_encoder", "char_cnn_rnn", BLOSSOMS, 2200, 1.5)
CLASSIFIER = Run("shared/classifier", "classifier", MANY_BLOSSOMS, 3360, 4)
VISUAL_WORDS = Run("shared/visual_words", "visual_words", BLOSSOMS, 8750, 8)
OTHER_VISUAL_WORDS = Run("shared/other_visual_words", "visual_words", BLOSSOMS, 8750, 8, ("--seed=1",))
DAMSM = Run("shared/damsm", "damsm", BLOSSOMS, 4000, 5, (("--trunk_run={}", VISUAL_WORDS),))
OTHER_DAMSM = Run(
    "shared/other_damsm", "damsm", BLOSSOMS, 4000, 5, (("--trunk_run={}", OTHER_VISUAL_WORDS), "--seed=1")
)

SHARED = {
    VISUAL_WORDS: (
        "word_precision",
        "mean_average_precision",
        "mean average precision of the words of unseen captions",
    ),
    TEXT_ENCODER: ("retrieval", "accuracy", "zero-shot accuracy among the unseen classes"),
    CLASSIFIER: ("accuracy", "accuracy", "accuracy on pictures held out"),
    DAMSM: ("recall", "image_to_text_1", "R@1 from pictures to captions"),
    OTHER_DAMSM: ("recall", "image_to_text_1", "R@1 from pictures to captions"),
}
"""What several runs rest on, and by what the page shows how good it is: metric, value, in words."""

READS_TEXT = ("--text_encoder_run={}", TEXT_ENCODER)
BY_CLASSIFIER = ("--extractor=run:{}", CLASSIFIER)

REALISM = Score(("is", "fid", "caption_fidelity"), 2000, 1.5, (BY_CLASSIFIER,))
INCEPTION_SCORE = Column("IS", REALISM, "is", "is")
FRECHET_DISTANCE = Column("FID", REALISM, "fid", "fid", smaller_is_better=True)
FIDELITY = tuple(
    Column(title, REALISM, "caption_fidelity", value)
    for title, value in (("petals", "petal_color"), ("centre", "center_color"), ("background", "background"))
)


def _variant(label: str, name: str, cls_weight: float, interpolation_weight: float) -> Row:
    weights = (f"--cls_weight={cls_weight:g}", f"--interpolation_weight={interpolation_weight:g}")
    flags = (READS_TEXT, *weights, "--nounweighted_interpolants")
    published = "GAN-INT-CLS" if label == "GAN-INT-CLS" else ""
    return Row(label, Run(f"variants/{name}", "gan_int_cls", BLOSSOMS, 1200, 3, flags), published)


GAN, GAN_CLS, GAN_INT, GAN_INT_CLS = (
    _variant("GAN", "gan", 0, 0),
    _variant("GAN-CLS", "gan_cls", 0.5, 0),
    _variant("GAN-INT", "gan_int", 0, 1),
    _variant("GAN-INT-CLS", "gan_int_cls", 0.5, 1),
)

VARIANTS = Table(
    name="variants",
    title="GAN-INT-CLS: the four variants",
    about="Reed et al. (ICML 2016) show samples of the four variants and give no scores; those of GAN-INT-CLS are "
    "quoted from StackGAN (IS) and StackGAN++ (FID). CLS shows the discriminator mismatching pairs, INT trains the "
    "generator on interpolated captions. The orderings below put into scores what the two are for.",
    rows=(GAN, GAN_CLS, GAN_INT, GAN_INT_CLS),
    columns=(*FIDELITY, INCEPTION_SCORE, FRECHET_DISTANCE),
    published=(PublishedColumn("IS, CUB", "cub", "is", "is"), PublishedColumn("FID, CUB", "cub", "fid", "fid")),
    orderings=(
        Ordering(
            "CLS: pictures match their captions better", "petals", (("GAN", "GAN-CLS"), ("GAN-INT", "GAN-INT-CLS"))
        ),
        Ordering("INT: pictures look more real", "FID", (("GAN", "GAN-INT"), ("GAN-CLS", "GAN-INT-CLS"))),
    ),
)

STAGE1 = Run("stage1/with", "stackgan1", BLOSSOMS, 2000, 5, (READS_TEXT,))
STAGE1_WITHOUT = Run("stage1/without", "stackgan1", BLOSSOMS, 2000, 5, (READS_TEXT, "--augmentation_noise=none"))

STAGE1_TABLE = Table(
    name="stage1",
    title="StackGAN Stage-I, with and without conditioning augmentation",
    about="Zhang et al. (ICCV 2017), the ablation on CUB. Without it the condition is mu itself and there is no KL "
    "divergence in the loss (`--augmentation_noise=none`), as in the published program.",
    rows=(
        Row("without", STAGE1_WITHOUT, "StackGAN Stage-I, 64x64, without conditioning augmentation"),
        Row("with", STAGE1, "StackGAN Stage-I, 64x64"),
    ),
    columns=(INCEPTION_SCORE, FRECHET_DISTANCE, *FIDELITY),
    published=(PublishedColumn("IS, CUB", "cub", "is", "is"),),
    orderings=(Ordering("conditioning augmentation raises the Inception Score", "IS", (("without", "with"),)),),
)

STACKGAN = Run("stackgan/stackgan", "stackgan2", BLOSSOMS_256, 1200, 10, (READS_TEXT, ("--stage1_run={}", STAGE1)))
STACKGAN_V2 = Run("stackgan/stackgan_v2", "stackgan_v2", BLOSSOMS_128, 1500, 13, (READS_TEXT,))

STACKGAN_TABLE = Table(
    name="stackgan",
    title="StackGAN against StackGAN++",
    about="Zhang et al., StackGAN++ (TPAMI 2018), the comparison by IS and FID. Here pictures of 64 (GAN-INT-CLS), 256 "
    "(StackGAN) and 128 pixels (StackGAN++) are brought to the 64 pixels that the classifier sees, real ones too; the "
    "papers, too, compare 64 with 256 pixels.",
    rows=(
        Row("GAN-INT-CLS", GAN_INT_CLS.run, "GAN-INT-CLS"),
        Row("StackGAN", STACKGAN, "StackGAN"),
        Row("StackGAN++", STACKGAN_V2, "StackGAN-v2"),
    ),
    columns=(INCEPTION_SCORE, FRECHET_DISTANCE, *FIDELITY),
    published=tuple(
        PublishedColumn(f"{title}, {shown}", data, metric, metric)
        for metric, title in (("is", "IS"), ("fid", "FID"))
        for data, shown in (("cub", "CUB"), ("oxford102", "Oxford-102"))
    ),
    orderings=tuple(
        Ordering(
            f"each is better than the one before by {title}", title, chain("GAN-INT-CLS", "StackGAN", "StackGAN++")
        )
        for title in ("IS", "FID")
    ),
)

OF_WORDS = Score(
    ("is", "r_precision", "caption_fidelity", "attention_on_petals"),
    2000,
    2,
    (BY_CLASSIFIER, ("--damsm_run={}", DAMSM)),
)
BY_OTHER = Score(("r_precision",), 2000, 1, (("--damsm_run={}", OTHER_DAMSM),))


def _lambda(weight: float, published: str) -> Row:
    flags = (("--damsm_run={}", DAMSM), f"--damsm_weight={weight:g}")
    return Row(f"{weight:g}", Run(f"lambda/lambda_{weight:g}", "attngan", BLOSSOMS, 1500, 8, flags), published)


LAMBDA = Table(
    name="lambda",
    title="AttnGAN over lambda, the weight of the DAMSM loss",
    about="Xu et al. (CVPR 2018), the figures of AttnGAN1 on CUB. R-precision is judged as in the paper by the DAMSM "
    "that the runs are trained with, which flatters, and by another one, of seed 1 and its own picture network, that "
    "none was trained against. Attention is the share of the attention to the petal colour's word that lies on petals. "
    "Left out of the orderings is what is within the deviations in the paper, too (lambda 0 and 0.1, 5 and 10).",
    rows=(
        _lambda(0, "AttnGAN1, without DAMSM"),
        *(_lambda(weight, f"AttnGAN1, lambda {weight:g}") for weight in (0.1, 1, 5, 10)),
    ),
    columns=(
        Column("R-precision", OF_WORDS, "r_precision", "r_precision"),
        Column("by another DAMSM", BY_OTHER, "r_precision", "r_precision"),
        Column("IS", OF_WORDS, "is", "is"),
        *(Column(c.title, OF_WORDS, c.metric, c.value) for c in FIDELITY),
        Column("attention", OF_WORDS, "attention_on_petals", "on_petals_32"),
    ),
    published=(
        PublishedColumn("R-precision, CUB", "cub", "r_precision", "r_precision"),
        PublishedColumn("IS, CUB", "cub", "is", "is"),
    ),
    orderings=(
        *(
            Ordering("R-precision rises with lambda", title, (("0", "1"), ("0.1", "1"), ("1", "5"), ("1", "10")))
            for title in ("R-precision", "by another DAMSM")
        ),
        Ordering("the Inception Score rises up to lambda 1", "IS", chain("0", "0.1", "1")),
    ),
)

OF_CAPTIONS = Score(("captions",), 600, 1, ("--tokenization=ptb",))


def _captioner(label: str, attention: str, minutes: float, published: str) -> Row:
    run = Run(f"captions/{attention}", "show_attend_tell", BLOSSOMS, 4000, minutes, (f"--attention={attention}",))
    return Row(label, run, published)


BLEU = tuple(Column(f"BLEU-{n}", OF_CAPTIONS, "captions", f"bleu_{n}_without_brevity_penalty") for n in (1, 2, 3, 4))
METEOR = Column("METEOR", OF_CAPTIONS, "captions", "meteor")

CAPTIONS = Table(
    name="captions",
    title="Show, Attend and Tell: soft, hard and no attention",
    about="Xu et al. (ICML 2015), on Flickr8k; BLEU without brevity penalty, as there. Its row without attention is "
    "Google NIC, of another split and an ensemble; ours is the same network that sees the mean annotation once. Greedy "
    "captions against ten references a picture.",
    rows=(
        _captioner("no attention", "none", 2, "Google NIC, without attention"),
        _captioner("soft", "soft", 3, "soft attention"),
        _captioner("hard", "hard", 3, "hard attention"),
    ),
    columns=(*BLEU, METEOR, Column("petal colour named", OF_CAPTIONS, "captions", "petal_color")),
    published=tuple(PublishedColumn(f"{c.title}, Flickr8k", "flickr8k", c.metric, c.value) for c in (*BLEU, METEOR)),
    orderings=(
        Ordering("attention beats none", "BLEU-1", (("no attention", "soft"), ("no attention", "hard"))),
        Ordering("hard attention beats soft", "BLEU-4", (("soft", "hard"),)),
        Ordering("hard attention beats soft", "METEOR", (("soft", "hard"),)),
    ),
)

TABLES = {table.name: table for table in (VARIANTS, STAGE1_TABLE, STACKGAN_TABLE, LAMBDA, CAPTIONS)}

DRAWN_CAPTIONS = "experiments/blossoms/captions.txt"
"""What every generator draws for the page: captions of the test split, of classes that are never trained on."""
DRAWN_SEEDS = (0, 1)
