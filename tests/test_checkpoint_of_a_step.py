"""--checkpoint=STEP: any command that uses a run takes the weights of a step that is kept."""

import numpy as np
import pytest
from PIL import Image

from t2i_tf import checkpoints, cli, config, inference
from t2i_tf.errors import UserError

USERS = {
    "sample": config.SampleConfig,
    "evaluate": config.EvaluateConfig,
    "export": config.ExportConfig,
    "demo": config.DemoConfig,
    "human_rank": config.HumanRankConfig,
}


@pytest.mark.parametrize("verb, owner", USERS.items())
def test_every_user_of_a_run_takes_the_number_of_a_step(verb, owner, capsys):
    required = {"export": ["--run_dir=r", "--out=o"], "human_rank": ["--sheets=s"]}.get(verb, ["--run_dir=r"])

    def parsed(value):
        return cli._parse(f"t2i-{verb}", owner, [*required, f"--checkpoint={value}"], with_paper=False)[0]

    assert parsed("1200").checkpoint == "1200" and parsed("newest").checkpoint == "newest"
    for wrong in ("last", "-5", "1.5"):
        with pytest.raises(UserError, match=f"--checkpoint={wrong}: must be one of best, newest, or a number STEP"):
            parsed(wrong)
    assert getattr(cli, verb)(["--help"]) == 0
    assert "(best|newest|STEP)" in " ".join(capsys.readouterr().out.split())


def test_weights_are_those_of_the_step(gan_run):
    assert checkpoints.steps(gan_run.path) == [1, 2, 3]
    later = inference.load(gan_run.path)
    early = inference.load(gan_run.path, checkpoint="1")
    assert (early.step, later.step) == (1, 3)
    kernels = [run.recipe.generator.trainable_variables[0].numpy() for run in (early, later)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    inference.restore(later, gan_run.path, 1)
    np.testing.assert_array_equal(later.recipe.generator.trainable_variables[0], kernels[0])


def test_the_step_of_the_best_score_is_one_of_them(damsm_run):
    best = inference.load(damsm_run.path)
    assert inference.load(damsm_run.path, checkpoint=str(best.step)).step == best.step


def test_the_command_draws_with_it(gan_run, tmp_path):
    drawn = {}
    for step in ("1", "newest"):
        given = [f"--run_dir={gan_run.path}", "--caption=a red flower", "--seeds=3", f"--out={tmp_path / step}"]
        assert cli.sample([*given, f"--checkpoint={step}"]) == 0
        drawn[step] = np.asarray(Image.open(tmp_path / step / "001-a-red-flower-seed3.png"))
    early = inference.load(gan_run.path, checkpoint="1").generate(["a red flower"], [3])[-1][0]
    np.testing.assert_array_equal(drawn["1"], early)


def test_an_unknown_step_names_those_there_are(gan_run, tmp_path, capsys):
    assert cli.sample([f"--run_dir={gan_run.path}", "--checkpoint=7", f"--out={tmp_path}"]) == 2
    assert f"error: {gan_run.path} has no checkpoint of step 7: it has those of 1, 2, 3" in capsys.readouterr().err
