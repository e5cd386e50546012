"""The commands that a page shows, run by a shell: they make the same pixels."""

import base64
import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf import export
from t2i_tf.config import DemoConfig, ExportConfig
from t2i_tf.web import commands, markup, models

ROOT = Path(__file__).parents[2]
CAPTION = """a "red" flower's $(touch hacked) `petals` & <b>blue</b>; \\n big 🌼 > round"""


def shell(command, runs):
    """Runs it where t2i-sample and python3 are those of this environment."""
    program = f't2i-sample() {{ "{sys.executable}" "{ROOT}/tools/sample.py" "$@"; }}\n'
    program += f'python3() {{ "{sys.executable}" "$@"; }}\n{command}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(["bash", "-c", program], cwd=runs, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (runs / "hacked").exists()
    return done.stdout


def shown(result):
    """-> the command and the picture to download, as the page has them."""
    command = html.unescape(re.search(r"<code>(.*?)</code>", result, re.S)[1])
    png = re.search(r'download="[^"]*" href="data:image/png;base64,([^"]*)"', result)[1]
    return command, np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@pytest.mark.slow
def test_of_a_run_t2i_sample_makes_the_same_picture(runs):
    options = DemoConfig(run_dir=str(runs / "attngan"), weights="raw")
    made = models.load(options).draw(CAPTION, 5, 0.7)
    command, picture = shown(markup.drawn(made, commands.drawn(options, CAPTION, 5, 0.7), True))
    assert command.startswith("t2i-sample --run_dir='") and "--truncation=0.7 --weights=raw" in command
    shell(command, runs)
    (file,) = (runs / "samples").glob("001-*-seed5.png")
    np.testing.assert_array_equal(np.asarray(Image.open(file)), picture)


@pytest.mark.slow
def test_of_an_export_python_makes_the_same_pictures(runs):
    out = runs / "exported"
    list(export.export(ExportConfig(run_dir=str(runs / "attngan"), out=str(out))))
    options = DemoConfig(saved_model=str(out))
    painter = models.load(options)
    command, picture = shown(
        markup.drawn(painter.draw(CAPTION, 5, 0.7), commands.drawn(options, CAPTION, 5, 0.7), True)
    )
    between = painter.between((CAPTION, "a blue flower"), 3, 2, 1.0)
    way = commands.between(options, between.captions, 3, 2, 1.0)
    shell(f"{command}\n{way}", runs)
    np.testing.assert_array_equal(np.asarray(Image.open(runs / "picture.png")), picture)
    row = np.asarray(Image.open(runs / "between.png"))
    np.testing.assert_array_equal(row, np.concatenate(between.pictures, axis=1))


@pytest.mark.slow
def test_of_a_captioner_it_describes_the_same(runs):
    name = 'my, "red" picture.png'
    shades = np.random.default_rng(1).uniform(0, 255, [4, 4, 3]).astype(np.uint8)
    Image.fromarray(shades).resize((40, 32), Image.Resampling.BICUBIC).save(runs / name)
    options = DemoConfig(run_dir=str(runs / "show_attend_tell"))
    caption = " ".join(models.load(options).describe(runs / name).words)
    assert f"{name}: {caption}\n" in shell(commands.described(options, name), runs)


def test_what_is_as_usual_is_not_said():
    options = DemoConfig(run_dir="runs/1")
    assert commands.drawn(options, None, 3, 1.0) == "t2i-sample --run_dir=runs/1 --seeds=3 --out=samples"
    assert commands.between(options, ("a b", "c"), 13, 3, 0.5) == (
        "t2i-sample --run_dir=runs/1 --mode=interpolate_text --caption='a b' --caption=c --interpolation_steps=13 "
        "--seeds=3 --truncation=0.5 --out=samples"
    )
