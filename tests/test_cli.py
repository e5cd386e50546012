"""The command line as a user meets it: every test types what a user would type."""

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t2i_tf import cli, config, papers
from t2i_tf.errors import UserError

ROOT = Path(__file__).parents[1]
VERBS = {
    "prepare": config.PrepareConfig,
    "train": config.TrainConfig,
    "sample": config.SampleConfig,
    "evaluate": config.EvaluateConfig,
    "table": config.TableConfig,
    "human_rank": config.HumanRankConfig,
    "export": config.ExportConfig,
    "demo": config.DemoConfig,
    "import_weights": config.ImportConfig,
    "benchmark": config.BenchmarkConfig,
}
PRESETS = sorted((ROOT / "flags").glob("*.flags"))


def parse(verb, *argv):
    return cli._parse(f"t2i-{verb}", VERBS[verb], list(argv), with_paper=verb in ("train", "benchmark"))


def refused(verb, *argv):
    with pytest.raises(UserError) as error:
        parse(verb, *argv)
    assert "\n" not in str(error.value)
    return str(error.value)


def printed_help(verb, capsys, *argv):
    assert getattr(cli, verb)([*argv, "--help"]) == 0
    return capsys.readouterr().out


TRAIN = ("--paper=gan_int_cls", "--data_dir=d")


@pytest.mark.parametrize("verb", VERBS)
def test_help_does_not_wait_for_tensorflow(verb, capsys):
    program = (
        f"import sys\nfrom t2i_tf import cli\nstatus = cli.{verb}(['--help'])\n"
        "sys.exit(status or ', '.join({'tensorflow', 'keras', 'numpy'} & set(sys.modules)) or 0)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    print(f"{verb} --help: {time.monotonic() - began:.2f} s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"t2i-{verb.replace('_', '-')}: ")


@pytest.mark.parametrize("verb, owner", VERBS.items())
def test_every_field_is_a_flag_that_help_shows_with_its_default(verb, owner, capsys):
    shown = printed_help(verb, capsys)
    for field in dataclasses.fields(owner):
        entry = re.search(rf"^  --{field.name}\n((?: {{6}}.*\n)+)", shown, re.MULTILINE)
        assert entry, field.name
        text = " ".join(entry[1].split())
        assert " ".join(field.metadata["help"].split()) in text
        if field.metadata["required"]:
            assert "[required]" in text
        elif field.default not in (None, ()):
            default = field.default
            plain = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            assert f"[{plain.lower() if isinstance(default, bool) else plain}]" in text
        for choice in field.metadata["choices"] or ():
            assert str(choice) in text


def test_help_of_train_shows_each_papers_settings_and_defaults(capsys):
    shown = " ".join(printed_help("train", capsys).split())
    assert "[char_cnn_rnn: 40; gan_int_cls: 64" in shown
    assert "[gan_int_cls: 0.5" in shown
    assert all(paper in shown.split("--paper")[1].split("--data_dir")[0] for paper in papers.PAPERS)


def test_help_with_a_paper_shows_its_settings_alone(capsys):
    shown = printed_help("train", capsys, "--paper=gan_int_cls")
    assert "Settings of gan_int_cls:" in shown and "--cls_weight\n" in shown
    assert "--text_channels\n" not in shown


def test_values_get_their_types():
    options, given = parse(
        "train", *TRAIN, "--steps=7", "--deterministic", "--nodry_run", "--cls_weight=0.25", "--noise_dim", "50"
    )
    assert options == config.TrainConfig(paper="gan_int_cls", data_dir="d", steps=7, deterministic=True)
    assert given == {"cls_weight": 0.25, "noise_dim": 50}


def test_a_preset_is_benchmarked_as_it_is_trained():
    flagfile = f"--flagfile={ROOT / 'flags' / 'stackgan_v2_blossoms.flags'}"
    options, given = parse("benchmark", flagfile, "--timed_steps=3")
    trained, same = parse("train", flagfile, "--data_dir=d")
    assert given == same and options.timed_steps == 3 and options.data_dir is None
    assert (options.paper, options.steps) == (trained.paper, trained.steps)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--compare=--batch_sise=2"], "unknown flag --batch_sise: did you mean --batch_size?"),
        (["--compare=--cls_weight=2 --paper=stackgan"], "--cls_weight is not a setting of stackgan but of gan_int_cls"),
        (["--compare=--timed_steps=0"], "--timed_steps=0: must be 1 or more"),
        (["--out=nowhere/figures.json"], "--out=nowhere/figures.json: cannot be written (No such file or directory)"),
    ],
)
def test_a_benchmark_says_what_is_wrong_before_it_measures(argv, message, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_import_tensorflow", lambda: None)
    assert cli.benchmark(["--paper=gan_int_cls", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_benchmark_keeps_the_figures_before_until_it_has_new_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_import_tensorflow", lambda: None)
    (tmp_path / "figures.json").write_text("{}")
    assert cli.benchmark(["--paper=gan_int_cls", f"--out={tmp_path}/figures.json", "--jit=attention"]) == 2
    assert (tmp_path / "figures.json").read_text() == "{}", capsys.readouterr().err


def test_what_the_system_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()

    def body(options, given):
        (tmp_path / "file" / "grid.png").write_bytes(b"")

    verb = cli._command("t2i-sample", config.SampleConfig, body, with_tensorflow=False)
    assert verb(["--run_dir=runs/1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file/grid.png: Not a directory: give another path, or make this one")


def test_lists_are_given_by_commas_or_by_repeating():
    _, given = parse("train", "--paper=char_cnn_rnn", "--data_dir=d", "--text_channels=8,16,32")
    assert given == {"text_channels": (8, 16, 32)}
    options, _ = parse("sample", "--run_dir=r", "--caption=a red, round flower", "--caption=second")
    assert options.caption == ("a red, round flower", "second")
    options, _ = parse("evaluate", "--run_dir=r", "--metrics=retrieval,caption_fidelity")
    assert options.metrics == ("retrieval", "caption_fidelity")
    assert parse("benchmark", "--paper=damsm", "--sampling_batches=2,4")[0].sampling_batches == (2, 4)
    assert parse("benchmark", "--paper=damsm", "--sampling_batches=")[0].sampling_batches == ()


def test_a_list_of_the_wrong_type_is_named():
    message = refused("train", "--paper=char_cnn_rnn", "--data_dir=d", "--text_channels=8,wide,32")
    assert message == "--text_channels=8,wide,32: a list of int is wanted"


@pytest.mark.parametrize(
    "verb, argv, message",
    [
        ("train", ["--data_dir=d"], "--paper is missing: what to train"),
        ("train", ["--paper=gan_int_cls"], "--data_dir is missing: data set folder written by t2i-prepare"),
        ("prepare", ["--data_dir=d"], "--source is missing: where the pictures come from"),
        ("sample", [], "--run_dir is missing: run folder to sample from"),
        ("sample", ["--run_dir=r", "--mode=gird"], "--mode=gird: must be one of grid, scales, nearest"),
        ("sample", ["--run_dir=r", "--neighbors=0"], "--neighbors=0: must be 1 or more"),
        ("sample", ["--run_dir=r", "--interpolation_steps=1"], "--interpolation_steps=1: must be 2 or more"),
        ("train", [*TRAIN, "--program=coco"], "--program=coco: must be one of int, cls"),
        ("train", [*TRAIN, "--interpolation_type=3"], "--interpolation_type=3: must be one of 1, 2"),
        ("train", [*TRAIN, "--batch_size=0"], "--batch_size=0: must be 2 or more"),
        ("train", [*TRAIN, "--steps=0"], "--steps=0: must be 1 or more"),
        ("train", ["--paper=dcgan", "--data_dir=d"], "unknown paper 'dcgan': --paper is one of char_cnn_rnn, gan_int"),
        ("train", [*TRAIN, "--steps=many"], "flag --steps=many: "),
        ("train", [*TRAIN, "--cls_weigth=1"], "unknown flag --cls_weigth: did you mean --cls_weight?"),
        ("train", [*TRAIN, "--zzz=1"], "unknown flag --zzz: see t2i-train --help"),
        ("sample", ["--run_dir=r", "--noise_dim=1"], "unknown flag --noise_dim: see t2i-sample --help"),
        ("train", [*TRAIN, "extra"], "'extra' is no flag: write --name=value; see t2i-train --help"),
        ("train", [*TRAIN, "--flagfile=nowhere.flags"], ": see t2i-train --help"),
    ],
)
def test_bad_input_is_named_in_one_line(verb, argv, message):
    assert message in refused(verb, *argv)


def test_a_flag_of_another_paper_names_the_papers_that_have_it():
    message = refused("train", *TRAIN, "--text_channels=8,8,8")
    assert message.startswith("--text_channels is not a setting of gan_int_cls but of char_cnn_rnn")
    assert message.endswith(": leave it out, or choose that paper")


def test_flag_files_have_comments_and_later_flags_win(tmp_path):
    inner = tmp_path / "inner.flags"
    inner.write_text("--noise_dim=11\n--batch_size=2\n")
    file = tmp_path / "run.flags"
    file.write_text(
        "# a comment\n// another\n\n--paper=gan_int_cls\n  --batch_size=4  \n--steps=5\n--shared_generator_forward\n"
        f"--flagfile={inner}\n"
    )
    options, given = parse("train", f"--flagfile={file}", "--data_dir=d", "--steps=6")
    assert (options.paper, options.steps) == ("gan_int_cls", 6)
    assert given == {"noise_dim": 11, "batch_size": 2, "shared_generator_forward": True}
    options, given = parse("train", "--data_dir=d", "--batch_size=32", f"--flagfile={file}", "--batch_size=64")
    assert given["batch_size"] == 64


def test_an_error_is_one_line_and_status_2_without_tensorflow(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_import_tensorflow", lambda: pytest.fail("waited for TensorFlow"))
    assert cli.train([*TRAIN, "--program=coco"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: --program=coco: must be one of int, cls\n")


def test_a_tensor_beyond_memory_is_one_line_and_writes_nothing(blossoms, text_encoder_run, tmp_path, capsys):
    run = [f"--data_dir={blossoms}", f"--text_encoder_run={text_encoder_run.path}", f"--run_dir={tmp_path / 'run'}"]
    assert cli.train(["--paper=gan_int_cls", *run, f"--noise_dim={10**15}"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memory is full (OOM when allocating tensor with shape[")
    assert all(flag in line for flag in ("--batch_size", "--accumulate=2", "--precision=mixed_bfloat16"))
    assert not (tmp_path / "run").exists()


def _fails_by(verb, body, capsys):
    """The line of a command without settings of a paper whose body is this."""
    command = cli._command(f"t2i-{verb}", VERBS[verb], lambda options, given: body(), with_tensorflow=False)
    assert command(["--run_dir=r"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_runs_out_while_it_samples_is_one_line(capsys):
    import tensorflow as tf

    line = _fails_by("sample", tf.function(lambda: tf.random.normal([2**50]) + 1.0), capsys)
    assert line.startswith("error: memory is full (OOM when allocating tensor with shape[") and "[[" not in line
    assert "--batch_size" not in line and "CUDA_VISIBLE_DEVICES=-1" in line
    line = _fails_by("sample", lambda: tf.io.write_file("/dev/full", "a"), capsys)
    assert "No space left on device: make room on the disk" in line and "memory" not in line


def test_other_errors_of_tensorflow_are_no_users(capsys):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        _fails_by("sample", lambda: tf.reshape(tf.ones([3]), [2]), capsys)


def test_a_card_is_shared(capsys, monkeypatch):
    import os

    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    cli._command("t2i-sample", VERBS["sample"], lambda options, given: 0, with_tensorflow=False)(["--run_dir=r"])
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    cli._command("t2i-sample", VERBS["sample"], lambda options, given: 0, with_tensorflow=False)(["--run_dir=r"])
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"


@pytest.mark.parametrize("there, hidden, warned", [(True, None, True), (False, None, False), (True, "-1", False)])
def test_a_gpu_that_tensorflow_cannot_use_is_named(there, hidden, warned, tmp_path, monkeypatch, caplog):
    """On a machine without CUDA; the driver's file is ours."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow finds a GPU here")
    if there:
        (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(cli, "_GPU_FILES", str(tmp_path / "nvidia[0-9]*"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    cli._import_tensorflow()
    assert ("pip install 'tensorflow[and-cuda]==" in caplog.text) == warned


def test_the_gpu_extra_is_the_tensorflow_that_is_installed_without():
    text = (ROOT / "setup.py").read_text()
    assert re.search(r'"tensorflow(>=[^"]+)"', text)[1] == re.search(r'"tensorflow\[and-cuda\](>=[^"]+)"', text)[1]


def test_the_package_says_that_it_is_typed():
    """PEP 561: a marker beside the modules, in what is installed."""
    assert (ROOT / "t2i_tf" / "py.typed").is_file() and '"t2i_tf": ["py.typed"]' in (ROOT / "setup.py").read_text()


def test_there_are_presets():
    assert PRESETS


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_fits_its_paper(path):
    options, given = parse("train", f"--flagfile={path}", "--data_dir=d")
    # stackgan1_cub is Stage-I of stackgan, attngan1_cub AttnGAN1
    assert re.match(rf"({options.paper}[12]?|attndcgan)_", path.stem)
    light = papers.hyperparameter_fields(options.paper)
    assert dataclasses.asdict(light(**given)) == dataclasses.asdict(papers.resolve(options.paper, **given))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_opens_with_its_command_and_repeats_no_default(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert lines[: len(comments)] == comments
    assert f"t2i-train --flagfile=flags/{path.name}" in " ".join(comments)
    assert not [line for line in lines if not line.startswith(("#", "--"))]


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_tools_are_the_console_scripts(tool):
    text = (ROOT / "tools" / tool).read_text()
    main = re.search(r"from t2i_tf.cli import (\w+)", text)[1]
    script = re.search(rf'"(t2i-[a-z-]+) = t2i_tf.cli:{main}"', (ROOT / "setup.py").read_text())
    assert script and script[1] in text.splitlines()[0]
    assert callable(getattr(cli, main))
