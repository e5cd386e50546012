"""What a preset costs, with and without its data set, alone and beside another."""

import contextlib
import io
import json
import statistics

import pytest
import tensorflow as tf

from t2i_tf import cli, papers
from t2i_tf.benchmark import sampling, step
from t2i_tf.benchmark.subject import CUB, Subject
from t2i_tf.config import BenchmarkConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.training.session import Session
from tests.conftest import TINY_ATTNGAN, TINY_DAMSM, TINY_GAN, TINY_TEXT_ENCODER

STACKGAN_V2 = {"base_size": 8, "num_scales": 2, "generator_width": 4, "discriminator_width": 4, "batch_size": 2}
CAPTIONER = {"image_encoder": "conv", "image_encoder_width": 2, "image_size": 32, "state_dim": 8, "word_dim": 6}
PAPERS = {
    "char_cnn_rnn": {**TINY_TEXT_ENCODER, "image_encoder": "conv"},
    "gan_int_cls": TINY_GAN,
    "stackgan": {"generator_width": 4, "discriminator_width": 4, "batch_size": 4},
    "stackgan_v2": STACKGAN_V2,
    "visual_words": {"image_encoder_width": 2, "batch_size": 4},
    "damsm": TINY_DAMSM,
    "attngan": TINY_ATTNGAN,
    "show_attend_tell": {**CAPTIONER, "batch_size": 4},
    "classifier": {"image_encoder": "conv", "image_encoder_width": 2, "image_size": 64, "split": "train"},
}


def subject(paper, data_dir=None, **given):
    return Subject(BenchmarkConfig(paper=paper, data_dir=data_dir and str(data_dir)), {**PAPERS[paper], **given})


@pytest.mark.parametrize("paper", PAPERS)
def test_made_batches_are_like_those_that_are_read(paper, blossoms):
    of_one = subject(paper, blossoms)
    read = of_one.batches().element_spec
    of_one.split = None
    made = of_one.batches().element_spec
    tf.nest.assert_same_structure(made, read)
    for ours, theirs in zip(tf.nest.flatten(made), tf.nest.flatten(read), strict=True):
        assert ours.dtype == theirs.dtype and theirs.is_compatible_with(ours)


def test_frozen_annotations_are_made_up_and_their_network_not_asked_for(blossoms):
    """ImageNet weights are not at hand here: a captioner is measured all the same."""
    for data_dir in (None, blossoms):
        captioner = subject("show_attend_tell", data_dir, image_encoder="keras", image_size=64)
        batch = next(iter(captioner.batches()))
        assert batch["annotations"].shape == (4, 196, 512) and "images" not in batch


def test_captions_alone_come_without_pictures(blossoms):
    for data_dir in (None, blossoms):
        batch = next(iter(subject("char_cnn_rnn", data_dir, objective="captions").batches()))
        assert batch["characters"].shape[1:] == (2, 201) and "images" not in batch


def test_the_whole_training_is_known_where_its_pictures_or_steps_are(blossoms, tmp_path):
    assert subject("classifier").steps is None
    assert Subject(BenchmarkConfig(paper="classifier", steps=7), PAPERS["classifier"]).steps == 7
    session = Session(
        TrainConfig(paper="classifier", data_dir=str(blossoms), run_dir=str(tmp_path / "run")), PAPERS["classifier"]
    )
    assert subject("classifier", blossoms).steps == session.steps, "without the pictures that are held out"


def test_generators_need_neither_text_encoder_nor_damsm():
    of_one = subject("attngan")
    assert of_one.context == CUB and of_one.step() == 1 and of_one.graph is not None
    assert subject("stackgan", stage=2).made_batch(2)["embedding"].shape == (2, 4, 1024)


def test_sentence_vectors_are_as_wide_as_those_of_the_given_encoder(text_encoder_run):
    options = BenchmarkConfig(paper="gan_int_cls", text_encoder_run=str(text_encoder_run.path))
    assert Subject(options, TINY_GAN).made_batch(3)["embedding"].shape[-1] == 16


def test_a_run_without_sentence_vectors_is_refused(gan_run):
    options = BenchmarkConfig(paper="gan_int_cls", text_encoder_run=str(gan_run.path))
    with pytest.raises(UserError, match="is a run of gan_int_cls: give a text encoder's"):
        Subject(options, TINY_GAN)


def test_a_step_is_that_of_training(blossoms, tmp_path):
    """The same weights after two steps of the same batches."""
    given = {**STACKGAN_V2, "conditional": False, "batch_size": 4}
    common = {"paper": "stackgan_v2", "data_dir": str(blossoms), "deterministic": True}
    measured = Subject(BenchmarkConfig(**common), given)
    session = Session(TrainConfig(**common, run_dir=str(tmp_path / "run")), given)
    session.trainer.fit(session.batches(0), epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)
    assert measured.step() + measured.step() == 2
    for ours, theirs in zip(measured.trainer.variables, session.trainer.variables, strict=True):
        tf.debugging.assert_near(ours.value, theirs.value, atol=1e-6)


def test_captions_are_written_by_captioners_and_pictures_drawn_by_generators():
    captioner, generator, encoder = subject("show_attend_tell"), subject("stackgan_v2"), subject("damsm")
    assert sampling.speed(encoder, [1], 0.0) == {}
    for of_one in (captioner, generator):
        found = sampling.speed(of_one, [1, 5], 0.0)
        assert [*found] == ["1", "5"]
        for speeds in found.values():
            assert speeds["requests"] == sampling.LEAST_REQUESTS
            assert 0 < speeds["p50_ms"] <= speeds["p99_ms"]
    assert captioner.longest_caption == 18
    assert sampling._request(captioner, 2)().shape == (2, 18)
    assert [image.shape for image in sampling._request(generator, 3)()] == [(3, 8, 8, 3), (3, 16, 16, 3)]


@pytest.fixture(scope="module")
def measured(blossoms, tmp_path_factory):
    """The command with everything asked for: what it printed, and its file."""
    folder = tmp_path_factory.mktemp("benchmark")
    flags = {"--paper": "stackgan_v2", "--data_dir": blossoms, "--timed_steps": 3, "--seconds": 0.01}
    flags["--sampling_batches"] = "1,3"
    flags |= {f"--{name}": value for name, value in STACKGAN_V2.items()}
    flags |= {"--compare": "--batch_size=4", "--profile": folder / "trace", "--out": folder / "figures.json"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.benchmark([f"{name}={value}" for name, value in flags.items()]) == 0
    return printed.getvalue(), json.loads((folder / "figures.json").read_text())


def test_figures_agree_with_each_other(measured):
    _, found = measured
    first, second = found["measured"]
    assert (first["flags"], second["flags"]) == ("as given", "--batch_size=4")
    assert (first["batch_size"], second["batch_size"]) == (2, 4)
    assert first["image_sizes"] == [8, 16]
    for costs in (first, second):
        seconds = costs["step_seconds"]
        assert len(seconds["all"]) == 3 and seconds["median"] == statistics.median(seconds["all"])
        assert costs["images_per_second"] == pytest.approx(costs["batch_size"] / seconds["median"])
        assert costs["steps"] == 600 * (60 // costs["batch_size"]), "600 epochs of 60 pictures"
        assert costs["hours"] == pytest.approx(costs["steps"] * seconds["median"] / 3600)
        assert costs["flops_per_step"] == sum(costs["flops_by_operation"].values()) and not costs["uncounted"]
        assert costs["flops_per_second"] == pytest.approx(costs["flops_per_step"] / seconds["median"])
        for kind, peak in found["convolution_peak"].items():
            assert costs["share_of_peak"][kind] == pytest.approx(costs["flops_per_second"] / peak)
        parts = (costs[f"{name}_seconds"] for name in ("import", "build", "first_step"))
        assert costs["time_to_first_step_seconds"] == pytest.approx(sum(parts))
        assert costs["reading_images_per_second"] > 0 and costs["peak_memory_megabytes"] > 100
        assert [*costs["sampling"]] == ["1", "3"]
    assert set(found["convolution_peak"]) == {"float32", "bfloat16"}
    assert found["ratio"] == pytest.approx(second["step_seconds"]["median"] / first["step_seconds"]["median"])


def test_twice_the_pictures_are_twice_the_arithmetic(measured):
    first, second = measured[1]["measured"]
    assert second["flops_per_step"] == 2 * first["flops_per_step"] > 0


def test_it_fits_on_a_screen_and_names_the_dearest_operations(measured):
    printed, found = measured
    assert len(printed.splitlines()) <= 50
    for words in (
        "time to first step",
        "of the float32 peak",
        "of the bfloat16 peak",
        "peak memory",
        "sampling, 3 at once",
        "18,000 steps, ",
    ):
        assert words in printed
    assert f"second / first = {found['ratio']:.3f}" in printed
    assert found["profile"]["trace"].endswith(".xplane.pb")
    for listed in (found["profile"]["types"], found["profile"]["names"]):
        assert len(listed) == 10 and all(op["name"][-40:] in printed for op in listed)


def test_a_second_set_must_fit_beside_the_first(monkeypatch):
    first = subject("stackgan_v2")
    step._check_room(first)
    monkeypatch.setattr(step, "peak_memory_megabytes", lambda: 1e9)
    with pytest.raises(UserError, match="--compare: the first set of flags took .*: measure each in a process"):
        step._check_room(first)


def test_data_without_captions_are_refused(blossoms):
    reads = subject("stackgan_v2", blossoms)
    reads.context = papers.Context(text_dim=8)
    with pytest.raises(UserError, match="has no captions: give one with some, or leave it out"):
        reads.batches()
