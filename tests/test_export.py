"""Exports of every paper: used by a process that lacks this package, they give what the live runs give, to the bit."""

import argparse
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from random_runs import RUNS, build

from t2i_tf import export, inference
from t2i_tf.config import ExportConfig
from t2i_tf.data.images import FILTERS
from t2i_tf.errors import UserError
from t2i_tf.export import picture_files
from t2i_tf.export.drawing import Drawing, InGraphDraw
from t2i_tf.export.rows import ROWS, agreeing_rows
from t2i_tf.inference import BATCH_SIZE, Run
from t2i_tf.inference.drawing import SeedDraw
from t2i_tf.networks import processor

CAPTIONS = ["a red flower", "a big zorgly blue flower with Yellow petals", "", "花 花", "blue – petals! Émile"]
SEEDS = [3, 4, 5, 2**31 + 1, 2**40]
QUICK = ["gan_int_cls", "damsm", "attngan", "show_attend_tell"]
"""Every signature is of one of these; the exports of the others are slow cases."""
GANS = [name for name in RUNS if name.startswith(("gan", "stackgan", "attngan"))]


def pictures(count, size=32):
    """PNG and JPEG files in turn, and what they show."""
    found = []
    for number, picture in enumerate(picture_files.example_pictures(count, size)):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, ["PNG", "JPEG"][number % 2])
        found.append((file.getvalue(), np.asarray(Image.open(file).convert("RGB"))))
    files, shown = zip(*found, strict=True)
    return list(files), np.stack(shown)


FOREIGN = """
import sys
sys.path.append(sys.argv[2])
try:
    import t2i_tf
    sys.exit("t2i_tf can be imported here")
except ImportError:
    pass
import json, pathlib, time
import numpy as np
import tensorflow as tf
folder = pathlib.Path(sys.argv[1])
calls = json.loads((folder / "calls.json").read_text())
for name, of_run in calls.items():
    began = time.perf_counter()
    loaded = tf.saved_model.load(str(folder / name))
    print(name, "loaded in", round(time.perf_counter() - began, 2), "s")
    for call, (signature, given) in of_run.items():
        function = loaded.signatures[signature]
        kinds = {key: spec.dtype for key, spec in function.structured_input_signature[1].items()}
        if "images" in given:
            given["images"] = [(folder / file).read_bytes() for file in given["images"]]
        made = function(**{key: tf.constant(value, kinds[key]) for key, value in given.items()})
        np.savez(folder / f"{name}.{call}.npz", **{key: np.asarray(value) for key, value in made.items()})
"""


def exported(folder, names):
    """-> folder of the exports, the live runs, lines printed, and results by run and call in a foreign process."""
    runs, lines = {}, {}
    for name in names:
        runs[name] = build(name)
        runs[name].save(folder / "runs" / name)
        # As many rows at a time as the live run passes: equal by construction, not as far as was measured.
        options = ExportConfig(run_dir=str(folder / "runs" / name), out=str(folder / name), least_rows=BATCH_SIZE)
        lines[name] = list(export.export(options))
    files, _ = pictures(4)
    for number, file in enumerate([*files, b"no picture", b""]):
        (folder / f"{number}.picture").write_bytes(file)
    calls = {name: calls_of(name, runs[name].takes_text) for name in names}
    (folder / "calls.json").write_text(json.dumps(calls))
    arguments = [str(folder), sysconfig.get_paths()["purelib"]]
    # Without site, since an editable installation of this package is found by it.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", FOREIGN, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    made = {
        name: {call: dict(np.load(folder / f"{name}.{call}.npz", allow_pickle=True)) for call in calls[name]}
        for name in calls
    }
    return argparse.Namespace(folder=folder, runs=runs, lines=lines, made=made)


def calls_of(name, takes_text):
    """What the foreign process asks of an export: by name of the result, a signature and its inputs."""
    images = [f"{number}.picture" for number in range(6)]
    if name == "show_attend_tell":
        every = {"images": images}
        return {"all": ["caption", every], "one": ["caption", {"images": images[1:2]}], "see": ["see", every]}
    if name not in GANS:
        calls = {"encode": ["encode", {"captions": CAPTIONS}]}
        if name == "damsm":
            calls["attend"] = ["attend", {"images": images[:5], "captions": CAPTIONS}]
            calls["pictures"] = ["encode_pictures", {"images": images}]
        return calls
    drawn = {"captions": CAPTIONS, "seeds": SEEDS, "truncation": 0.8}
    given = drawn if takes_text else {key: drawn[key] for key in ("seeds", "truncation")}
    rows = {key: value[1:2] if isinstance(value, list) else value for key, value in given.items()}
    calls = {"all": ["generate", given], "one": ["generate", rows], "png": ["generate_png", given]}
    if name in ("stackgan_v2", "attngan"):
        many = {"captions": ["a red flower"] * 34 + [CAPTIONS[1]], "seeds": [*range(34), 4], "truncation": 0.8}
        nothing = {"captions": [], "seeds": [], "truncation": 1.0}
        calls |= {"many": ["generate", many], "none": ["serving_default", nothing]}
    if name == "attngan":
        path = {"caption_a": CAPTIONS[0], "caption_b": CAPTIONS[1], "steps": 4, "seed": 3, "truncation": 1.0}
        calls |= {"attend": ["attend", drawn]}
        calls |= {"path": ["interpolate", path], "silent": ["interpolate", {**path, "caption_b": "zorgly"}]}
        calls |= {"long": ["generate", {**drawn, "captions": ["red " * n for n in (64, 65, 2000, 1, 0)]}]}
    return calls


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("exports"), QUICK)


@pytest.fixture(scope="module")
def other_exports(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("other_exports"), [name for name in RUNS if name not in QUICK])


@pytest.fixture
def exports_with(request):
    """-> the exports that a run is among."""
    return lambda name: request.getfixturevalue("exports" if name in QUICK else "other_exports")


@pytest.fixture(scope="module")
def without_text(tmp_path_factory):
    """Folder of a run that is exported again and again."""
    folder = tmp_path_factory.mktemp("runs") / "stackgan_v2_without_text"
    build(folder.name).save(folder)
    return folder


def of_papers(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("seeds", [[0], [7, 0, 7], [2**31 - 1, 2**31, 2**40, 2**63 - 1], [-1], []])
def test_noise_in_a_graph_is_the_noise_of_t2i_sample(seeds):
    for kind in ("normal", "truncated_normal"):
        for name in ("z", "augmentation"):
            draw = getattr(InGraphDraw(tf.constant(seeds, tf.int64)), kind)
            live = getattr(SeedDraw(seeds), kind)(name, 9) if seeds else np.zeros([0, 9])
            np.testing.assert_array_equal(tf.function(lambda d=draw, n=name: d(n, 9))(), live)


@pytest.mark.parametrize("name", of_papers(GANS))
def test_pictures_are_those_of_the_live_run(exports_with, name):
    exports = exports_with(name)
    run, made = exports.runs[name], exports.made[name]
    said = [0, 1, 4] if run.takes_text else [0, 1, 2, 3, 4]
    captions = [CAPTIONS[row] for row in said] if run.takes_text else None
    live = run.generate(captions, [SEEDS[row] for row in said], 0.8)
    for images in live:
        size = images.shape[1]
        exported = made["all"][f"images_{size}" if images is not live[-1] else "images"]
        np.testing.assert_array_equal(exported[said], images)
        assert np.ptp(images) > 50, "pictures that show something"
    for row in set(range(5)) - set(said):
        assert (made["all"]["images"][row] == picture_files.GREY).all()
    np.testing.assert_array_equal(made["one"]["images"], made["all"]["images"][1:2])
    for file, image in zip(made["png"]["png_bytes"], made["all"]["images"], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), image)


@pytest.mark.parametrize("name", of_papers(["stackgan_v2", "attngan"]))
def test_a_picture_is_the_same_in_a_large_batch(exports_with, name):
    made = exports_with(name).made[name]
    np.testing.assert_array_equal(made["many"]["images"][-1], made["all"]["images"][1])


@pytest.mark.parametrize("name", of_papers(["stackgan_v2", "attngan"]))
def test_no_captions_give_no_pictures(exports_with, name):
    made = exports_with(name).made[name]["none"]
    assert made["images"].shape == (0, 32, 32, 3) and made["images_16"].shape == (0, 16, 16, 3)
    assert made["problem"].shape == (0,)


def test_it_says_what_was_not_understood(exports):
    empty = b"the caption is empty: write what the picture shows"
    words, characters = exports.made["attngan"]["all"], exports.made["gan_int_cls"]["all"]
    no_word = b"the caption has no word that this run was trained on: use words of its data set"
    assert words["problem"].tolist() == [b"", b"", empty, no_word, b""]
    assert words["unknown_words"].tolist() == [b"", b"zorgly", b"", b"", b"mile"]
    no_character = b"the caption has no character the text encoder knows: write it in English"
    assert characters["problem"].tolist() == [b"", b"", empty, no_character, b""]
    assert [found.decode() for found in characters["unknown_characters"]] == ["", "", "", "花花", "–É"]


def test_captions_are_read_up_to_a_length(exports):
    long = b"the caption has more than 64 words: shorten it"
    assert exports.made["attngan"]["long"]["problem"].tolist()[:4] == [b"", long, long, b""]
    run = exports.runs["attngan"]
    np.testing.assert_array_equal(
        exports.made["attngan"]["long"]["images"][0], run.generate(["red " * 64], [SEEDS[0]], 0.8)[-1][0]
    )


def test_attention_goes_with_the_words_that_were_read(exports):
    made, run = exports.made["attngan"]["attend"], exports.runs["attngan"]
    tokens = [[word.decode() for word in row if word] for row in made["tokens"]]
    assert tokens == [run.tokens(caption) for caption in CAPTIONS]
    live = run.attend([CAPTIONS[0], CAPTIONS[1]], SEEDS[:2], 0.8)
    np.testing.assert_array_equal(made["images"][:2], live[0][-1])
    (weights,) = live[1]
    np.testing.assert_allclose(made["attention_16"][:2, :, :, : weights.shape[-1]], weights, atol=1e-6)


def test_interpolation_is_that_of_the_live_run(exports):
    run, made = exports.runs["attngan"], exports.made["attngan"]
    live = run.interpolate_text(CAPTIONS[0], CAPTIONS[1], 4, [3])[0]
    np.testing.assert_array_equal(made["path"]["images"], live)
    assert made["path"]["unknown_words"].tolist() == [b"", b"zorgly"]
    assert (made["silent"]["images"] == picture_files.GREY).all() and made["silent"]["problem"][1].startswith(
        b"the caption"
    )


def test_captions_of_pictures_are_those_of_the_live_run(exports):
    run, (made, one, see) = exports.runs["show_attend_tell"], exports.made["show_attend_tell"].values()
    _, shown = pictures(4)
    live = run.describe(shown)
    assert [caption.decode() for caption in made["captions"]] == [*live.captions, "", ""]
    assert one["captions"][0] == made["captions"][1]
    assert made["problem"].tolist() == [b""] * 4 + [b"this is no JPEG or PNG file"] * 2
    np.testing.assert_array_equal(see["seen"][:4], run.seen(shown))
    assert see["problem"].tolist() == made["problem"].tolist()
    np.testing.assert_allclose(made["costs"][:4], live.costs, rtol=1e-5)
    for row, maps in enumerate(live.attention):
        np.testing.assert_allclose(made["attention"][row][: len(maps)], maps, atol=1e-6)
        assert [word.decode() for word in made["words"][row] if word] == live.words[row]


@pytest.mark.parametrize("name", of_papers(["char_cnn_rnn", "damsm"]))
def test_vectors_are_those_of_the_live_run(exports_with, name):
    exports = exports_with(name)
    made, said = exports.made[name]["encode"], [0, 1, 4]
    live = exports.runs[name].encode([CAPTIONS[row] for row in said])
    np.testing.assert_allclose(made["vectors"][said], live, rtol=1e-5, atol=1e-6)
    assert not made["vectors"][2:4].any() and all(made["problem"][2:4])


def test_words_and_pictures_meet(exports):
    run, made = exports.runs["damsm"], exports.made["damsm"]
    _, shown = pictures(4)
    np.testing.assert_allclose(made["pictures"]["vectors"][:4], run.encode_pictures(shown), atol=1e-5)
    assert not made["pictures"]["vectors"][4:].any()
    live = run.attend_pictures(shown[:2], CAPTIONS[:2])
    np.testing.assert_allclose(made["attend"]["attention"][:2, : live.shape[1]], live, atol=1e-5)


@pytest.mark.parametrize("sizes", [(40, 64), (32, 50), (97, 33)])
@pytest.mark.parametrize(
    "name, stored, squashed",
    [("show_attend_tell", None, False), ("show_attend_tell", 38, True), ("damsm", 38, False), ("damsm", 38, True)],
)
@pytest.mark.parametrize("resample", FILTERS)
def test_pictures_of_any_size_are_prepared_as_by_the_live_run(tmp_path, sizes, name, stored, squashed, resample):
    run = build(name)
    run.config.context.update(stored_size=stored, squashed=squashed, resample=resample)
    sharp = np.random.default_rng(3).integers(0, 256, [*sizes, 3], np.uint8)
    Image.fromarray(sharp).save(tmp_path / "picture.png")
    made, problem = picture_files.decoded(tf.constant([(tmp_path / "picture.png").read_bytes()]), run)
    live = run.prepared([tmp_path / "picture.png"])
    assert np.abs(made.numpy().astype(int) - live).max() <= 2 and problem.numpy() == b""


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_of_turned_cameras_are_prepared_as_by_the_live_run(tmp_path, kind):
    run, upright = build("show_attend_tell"), Image.fromarray(picture_files.example_pictures(1, 48)[0][:32])
    files = [tmp_path / f"{way}.{kind.lower()}" for way in range(1, 9)]
    for way, path in enumerate(files, 1):
        noted = Image.Exif()
        noted[0x0112] = way
        upright.save(path, kind, exif=noted)
    made, problem = picture_files.decoded(tf.constant([path.read_bytes() for path in files]), run)
    np.testing.assert_array_equal(made, run.prepared(files))
    assert len({picture.tobytes() for picture in made.numpy()}) == 8 and not any(problem.numpy())


def test_in_memory_is_what_an_export_is(exports):
    model, made = export.in_memory(exports.runs["attngan"]), exports.made["attngan"]["attend"]
    live = model.attend(tf.constant(CAPTIONS), tf.constant(SEEDS, tf.int64), tf.constant(0.8))
    assert set(live) == set(made)
    for name in ("images", "images_16", "tokens", "problem", "unknown_words"):
        np.testing.assert_array_equal(live[name], made[name])
    np.testing.assert_allclose(live["attention_16"], made["attention_16"], atol=1e-6)


def test_averages_are_what_is_exported(exports, tmp_path):
    run_dir = str(exports.folder / "runs" / "gan_int_cls")
    raw = inference.load(run_dir, "raw").generate(CAPTIONS[:1], SEEDS[:1])[-1]
    assert np.abs(raw[0].astype(int) - exports.made["gan_int_cls"]["all"]["images"][0]).mean() > 5


def test_the_lines_say_what_there_is(exports):
    lines = exports.lines["attngan"]
    assert lines[0].startswith("attngan of step 7, loaded again and compared: equal to the live model in 5 pictures of")
    (generate,) = [line for line in lines if line.startswith("  generate(")]
    assert generate.startswith("  generate(captions string[?], seeds int64[?], truncation float32[]) -> ")
    assert "images uint8[?,32,32,3], images_16 uint8[?,16,16,3], problem string[?], unknown_words string[?]" in generate
    assert lines[-1] == f"next: saved_model_cli show --dir={exports.folder / 'attngan'} --tag_set=serve --all"


@pytest.mark.parametrize("avx512", [True, False])
def test_where_tensorflow_leaves_onednn_off_it_is_said_how_to_turn_it_on(without_text, tmp_path, monkeypatch, avx512):
    monkeypatch.setattr(processor, "on_cpu", lambda: True)
    monkeypatch.setattr(processor, "has_avx512", lambda: avx512)
    lines = list(export.export(ExportConfig(run_dir=str(without_text), out=str(tmp_path / "out"), least_rows=32)))
    assert [line.split(" in ")[0] for line in lines if "ONEDNN" in line] == (
        [] if avx512 else ["serve it with TF_ENABLE_ONEDNN_OPTS=1"]
    )


def test_fewer_rows_pass_as_far_as_numbers_agree(without_text, tmp_path):
    out = tmp_path / "out"
    lines = list(export.export(ExportConfig(run_dir=str(without_text), out=str(out))))
    least = json.loads((out / "assets.extra" / "export.json").read_text())["least_rows"]
    assert least in ROWS and f"at least {least} at a time pass the networks" in "\n".join(lines)


def test_saved_model_cli_shows_the_signatures(exports):
    program = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    asked = [*program, "show", f"--dir={exports.folder / 'attngan'}", "--all"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for name in ("serving_default", "generate", "generate_png", "attend", "interpolate"):
        assert f"signature_def['{name}']" in shown
    assert "inputs['captions'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)\n" in shown
    assert "inputs['seeds'] tensor_info:\n        dtype: DT_INT64\n        shape: (-1)\n" in shown
    assert "inputs['truncation'] tensor_info:\n        dtype: DT_FLOAT\n        shape: ()\n" in shown
    assert "outputs['images'] tensor_info:\n        dtype: DT_UINT8\n        shape: (-1, 32, 32, 3)\n" in shown
    assert "outputs['png_bytes'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)\n" in shown


def test_the_documented_shell_command_draws(exports, tmp_path):
    """saved_model_cli takes only literals, which are of other types than the signature's."""
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    begin = page.index("saved_model_cli run")
    line = page[begin : page.index("\n\n", begin)].replace("\\\n", " ")
    line = line.replace("models/flowers/1", str(exports.folder / "gan_int_cls")).replace("=out", f"={tmp_path}")
    program = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *shlex.split(line)[1:]]
    subprocess.run(program, capture_output=True, check=True)
    wanted = exports.runs["gan_int_cls"].generate(["a red flower"], [3])[-1]
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), wanted)


def test_only_what_is_needed_is_inside_and_no_path_of_this_machine(exports):
    folder, run = exports.folder / "attngan", exports.runs["attngan"]
    shapes = dict(tf.train.list_variables(str(folder / "variables" / "variables")))
    inside = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.startswith("used_variables"))
    needed = run.recipe.generator.count_params() + run.recipe.text_encoder.count_params()
    assert inside == needed
    assert str(exports.folder).encode() not in (folder / "saved_model.pb").read_bytes()
    about = json.loads((folder / "assets.extra" / "export.json").read_text())
    assert (about["paper"], about["step"]) == ("attngan", 7) and about["least_rows"] == BATCH_SIZE


def test_folders_with_something_in_them_are_left_alone(exports, tmp_path):
    run_dir = str(exports.folder / "runs" / "gan_int_cls")
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match=f"--out={out} exists already: give a new folder"):
            list(export.export(ExportConfig(run_dir=run_dir, out=str(out))))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_that_differs_is_not_written(exports, tmp_path, monkeypatch):
    """Here, of noise of other seeds."""
    run_dir = str(exports.folder / "runs" / "gan_int_cls")
    live = SeedDraw.normal
    monkeypatch.setattr(SeedDraw, "normal", lambda draw, name, width: live(draw, name + "_other", width))
    with pytest.raises(UserError, match="generate: the export gives other results than the live model"):
        list(export.export(ExportConfig(run_dir=run_dir, out=str(tmp_path / "new"), least_rows=2)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_tolerance_lets_a_picture_alone_pass_alone(without_text, tmp_path, monkeypatch):
    """Here where a picture in 1 row has one value two levels off; what differs by more than is allowed is refused."""
    out, live = tmp_path / "out", Drawing._pictures

    def uneven(drawing, rows):
        *smaller, largest = live(drawing, rows)
        pixel = tf.one_hot(0, tf.size(largest[0]), tf.where(tf.shape(largest)[0] == 1, 2, 0))
        moved = tf.abs(tf.cast(largest, tf.int32) - tf.reshape(pixel, largest.shape[1:]))
        return [*smaller, tf.cast(moved, tf.uint8)]

    monkeypatch.setattr(Drawing, "_pictures", uneven)
    given = {"run_dir": str(without_text), "out": str(out)}
    lines = list(export.export(ExportConfig(**given, tolerance=2)))
    about = json.loads((out / "assets.extra" / "export.json").read_text())
    assert about["least_rows"] == 1 and "at least 1 at a time pass the networks" in "\n".join(lines)
    alone = re.search(r"values together and (\d+) of 15,360 alone, which differ by at most 2 of 255$", lines[0])
    assert int(alone[1]) >= 5
    shutil.rmtree(out)
    lines = list(export.export(ExportConfig(**given, tolerance=1)))
    assert "at least 2 at a time pass the networks" in "\n".join(lines)


@pytest.mark.parametrize("name", ["damsm", "show_attend_tell"])
def test_only_pictures_have_a_tolerance(exports, tmp_path, name):
    given = {"run_dir": str(exports.folder / "runs" / name), "out": str(tmp_path / "out")}
    with pytest.raises(UserError, match=f"--tolerance: of a run that draws; what {name} gives"):
        list(export.export(ExportConfig(**given, tolerance=1)))


def test_rows_are_counted_from_which_on_results_agree():
    rows = (tf.range(32.0),)
    assert agreeing_rows(lambda x: x * 2, rows) == 1
    assert agreeing_rows(lambda x: x + tf.cast(tf.size(x) < 5, tf.float32), rows) == 8
    assert agreeing_rows(lambda x: x + tf.cast(tf.size(x), tf.float32), rows) == 32


def test_runs_on_ready_made_embeddings_cannot_be_exported(exports, tmp_path):
    run = exports.runs["gan_int_cls"]
    Run(run.config, run.recipe, 7, None, run.average).save(tmp_path / "run")
    with pytest.raises(UserError, match="has no text encoder: add one"):
        list(export.export(ExportConfig(run_dir=str(tmp_path / "run"), out=str(tmp_path / "out"))))
