"""AttnGAN on `blossoms` with the DAMSM loss at weights 0, 1 and 5: the ordering of Table 2 and Figure 3 of the paper.

    python experiments/blossoms/attngan_lambda.py DATA_DIR DAMSM_RUN JUDGE_RUN OUT

Trains what is not trained yet in OUT (each a run folder, resumable), all from one seed, and scores each on captions of
unseen classes: R-precision by the DAMSM it was trained with and by another one (JUDGE_RUN, of another seed), which no
run was trained against. Writes OUT/lambda.png and OUT/lambda.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from t2i_tf import inference, pictures
from t2i_tf.cli import train
from t2i_tf.config import EvaluateConfig, SampleConfig
from t2i_tf.data import records
from t2i_tf.evaluation import evaluate
from t2i_tf.sampling import captions_of

WEIGHTS = (0.0, 1.0, 5.0)
SCORED, SEEDS = 2000, (0, 1, 2)


def main(data_dir: str, damsm_run: str, judge_run: str, out: str) -> None:
    test = records.Dataset.open(data_dir).split("test")
    columns, lines = [], {}
    for weight in WEIGHTS:
        run_dir = str(Path(out) / f"lambda_{weight:g}")
        flags = ["--flagfile=flags/attngan_blossoms.flags", f"--data_dir={data_dir}", f"--damsm_run={damsm_run}"]
        if code := train([*flags, f"--damsm_weight={weight}", f"--run_dir={run_dir}"]):
            sys.exit(code)
        run = inference.load(run_dir)
        measures = {
            "r_precision": ("r_precision", EvaluateConfig(num_images=SCORED)),
            "r_precision_by_another": ("r_precision", EvaluateConfig(num_images=SCORED, damsm_run=judge_run)),
            "fidelity": ("caption_fidelity", EvaluateConfig(num_images=SCORED)),
            "attention": ("attention_on_petals", EvaluateConfig(num_images=600)),
        }
        lines[f"{weight:g}"] = {
            name: evaluate.evaluate(run, metric, test, options) for name, (metric, options) in measures.items()
        }
        captions = captions_of(SampleConfig(run_dir=run_dir), run)
        images = run.generate([c for c in captions for _ in SEEDS], list(SEEDS) * len(captions))[-1]
        columns.append(images.reshape(len(captions), len(SEEDS), *images.shape[1:]))
    labels = [f"lambda {weight:g}" if seed == SEEDS[0] else "" for weight in WEIGHTS for seed in SEEDS]
    grid = pictures.labelled_grid(np.concatenate(columns, axis=1), captions, labels, scale=2)
    print(pictures.save(grid, Path(out) / "lambda.png"))
    (Path(out) / "lambda.json").write_text(json.dumps(lines, indent=2) + "\n")
    for weight, of in lines.items():
        own, other = of["r_precision"], of["r_precision_by_another"]
        print(
            f"lambda {weight}: R-precision {own['r_precision']:.3f} +- {own['r_precision_deviation']:.3f}, by another "
            f"DAMSM {other['r_precision']:.3f} +- {other['r_precision_deviation']:.3f}, petals right "
            f"{of['fidelity']['petal_color']:.3f}"
        )


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
