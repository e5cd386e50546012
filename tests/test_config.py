import dataclasses
import json
from dataclasses import dataclass

import pytest

from t2i_tf.config import (
    REQUIRED,
    BenchmarkConfig,
    EvaluateConfig,
    ImportConfig,
    PrepareConfig,
    RunConfig,
    SampleConfig,
    TrainConfig,
    option,
    option_type,
    validate,
)
from t2i_tf.errors import UserError

CONFIGS = (PrepareConfig, TrainConfig, SampleConfig, EvaluateConfig, ImportConfig, BenchmarkConfig)


@dataclass(frozen=True)
class Every:
    """One field of each kind."""

    name: str = option(REQUIRED, "a name")
    count: int | None = option(None, "a count", minimum=1)
    rate: float = option(0.5, "a rate", choices=(0.5, 1.0))
    on: bool = option(False, "a switch", identity=False)
    words: tuple[str, ...] = option((), "words", repeated=True, choices=("red", "blue"))
    widths: tuple[int, ...] = option((1, 2), "widths", minimum=1)


def fields(owner):
    return {field.name: field for field in dataclasses.fields(owner)}


@pytest.mark.parametrize(
    "name, kind",
    [
        ("name", (str, False)),
        ("count", (int, False)),
        ("rate", (float, False)),
        ("on", (bool, False)),
        ("words", (str, True)),
        ("widths", (int, True)),
    ],
)
def test_types_are_read_from_annotations(name, kind):
    assert option_type(fields(Every)[name], Every) == kind


def test_a_valid_configuration_passes():
    validate(Every(name="x", count=1, rate=1.0, words=("red", "blue")))


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "--name is missing: a name"),
        ({"name": "x", "rate": 0.7}, "--rate=0.7: must be one of 0.5, 1.0"),
        ({"name": "x", "words": ("red", "green")}, "--words=green: must be one of red, blue"),
        ({"name": "x", "count": 0}, "--count=0: must be 1 or more"),
        ({"name": "x", "widths": (3, -1)}, "--widths=-1: must be 1 or more"),
    ],
)
def test_errors_name_the_flag_and_the_remedy(given, message):
    with pytest.raises(UserError) as error:
        validate(Every(**given))
    assert str(error.value) == message


@pytest.mark.parametrize("owner", CONFIGS)
def test_every_field_has_a_help_and_a_sound_default(owner):
    assert owner.__doc__
    required = {}
    for name, field in fields(owner).items():
        assert field.metadata["help"], name
        option_type(field, owner)
        if field.metadata["required"]:
            required[name] = "given"
    validate(owner(**required))


@pytest.mark.parametrize("name", ["steps", "checkpoint_every", "keep_checkpoints", "log_every", "sample_every"])
def test_numbers_of_steps_are_positive(name):
    with pytest.raises(UserError, match=f"--{name}=0: must be 1 or more"):
        validate(TrainConfig(paper="p", data_dir="d", **{name: 0}))


def test_a_negative_seed_is_refused():
    with pytest.raises(UserError, match="--seed=-1: must be 0 or more"):
        validate(TrainConfig(paper="p", data_dir="d", seed=-1))


RUN = RunConfig(
    TrainConfig(paper="gan_int_cls", data_dir="data/flöwers", text_encoder_run="runs/1", seed=3),
    {"batch_size": 8, "epochs": 600, "text_channels": (8, 8), "learning_rate": 2e-4},
    {"text_dim": 16, "num_classes": 5},
)


def written(tmp_path, content):
    (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


def test_a_run_configuration_survives_its_file(tmp_path):
    back = RunConfig.read(written(tmp_path, RUN.to_json()))
    assert back.training == RUN.training
    assert back.context == RUN.context
    assert back.hyperparameters == {**RUN.hyperparameters, "text_channels": [8, 8]}


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ({"version": 1}, "is damaged"),
        ({"version": 2}, "has version 2, this program reads 1"),
        ({**json.loads(RUN.to_json()), "training": {"paper": "x", "speed": 9}}, "unknown settings speed"),
    ],
)
def test_files_that_are_no_run_configuration_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        RunConfig.read(written(tmp_path, content))
    assert str(tmp_path / "config.json") in str(error.value)


def test_a_folder_without_configuration_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        RunConfig.read(tmp_path)


def changed(**settings):
    return dataclasses.replace(RUN, training=dataclasses.replace(RUN.training, **settings)).identity()


def test_how_long_and_where_make_no_other_run(tmp_path):
    assert changed(steps=10, runs_dir="elsewhere", run_dir="here", log_every=1, dry_run=True) == RUN.identity()
    longer = dataclasses.replace(RUN, hyperparameters={**RUN.hyperparameters, "epochs": 1})
    assert longer.identity() == RUN.identity()


@pytest.mark.parametrize("settings", [{"seed": 4}, {"paper": "other"}, {"data_dir": "data/birds"}, {"box_crop": True}])
def test_what_is_learned_makes_another_run(settings):
    assert changed(**settings) != RUN.identity()
    wider = dataclasses.replace(RUN, hyperparameters={**RUN.hyperparameters, "batch_size": 16})
    assert wider.identity() != RUN.identity()


def test_folders_are_the_same_however_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    plain = changed(data_dir=str(tmp_path / "data"), text_encoder_run="runs/1", init_from="runs/2")
    assert changed(data_dir="link/", text_encoder_run="runs//1/", init_from=f"{tmp_path}/runs/2") == plain


def test_networks_that_no_import_brought_are_kept_and_old_runs_lack_the_key(tmp_path):
    imported = dataclasses.replace(RUN, untrained=("discriminator",))
    back = RunConfig.read(written(tmp_path, imported.to_json()))
    assert back.untrained == ("discriminator",)
    back.need("runs/1", "generator")
    with pytest.raises(UserError, match="^runs/1: its discriminator was in no file of the import, so untrained: "):
        back.need("runs/1", "generator", "discriminator")
    old = json.loads(RUN.to_json())
    del old["untrained"]
    assert RunConfig.read(written(tmp_path, old)).untrained == ()
