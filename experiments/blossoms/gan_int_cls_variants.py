"""The four variants of GAN-INT-CLS on `blossoms`, side by side, as in figures 3 and 4 of the paper.

    python experiments/blossoms/gan_int_cls_variants.py DATA_DIR TEXT_ENCODER_RUN OUT

Trains what is not trained yet in OUT (each a run folder, resumable), scores each on captions of unseen classes, and
writes OUT/variants.png and OUT/variants.json. About 4 minutes a variant on 2 CPU cores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from t2i_tf import inference, pictures
from t2i_tf.config import EvaluateConfig, SampleConfig, TrainConfig
from t2i_tf.data import records
from t2i_tf.evaluation import evaluate
from t2i_tf.sampling import captions_of
from t2i_tf.training import loop

VARIANTS = {"GAN": (0.0, 0.0), "GAN-CLS": (0.5, 0.0), "GAN-INT": (0.0, 1.0), "GAN-INT-CLS": (0.5, 1.0)}
SETTINGS = {
    "generator_width": 32,
    "discriminator_width": 32,
    "noise_dim": 32,
    "batch_size": 32,
    "learning_rate": 4e-4,
    "decay_every": 4,
    "shared_generator_forward": True,
    "unweighted_interpolants": False,
    "ema_decay": 0.98,
}
STEPS, SCORED, SEEDS = 2100, 1000, (0, 1)


def main(data_dir: str, text_encoder_run: str, out: str) -> None:
    test = records.Dataset.open(data_dir).split("test")
    columns, scores = [], {}
    for name, (cls_weight, interpolation_weight) in VARIANTS.items():
        run_dir = str(Path(out) / name.lower().replace("-", "_"))
        training = TrainConfig(
            paper="gan_int_cls",
            data_dir=data_dir,
            text_encoder_run=text_encoder_run,
            run_dir=run_dir,
            steps=STEPS,
            sample_every=STEPS // 2,
        )
        weights = {"cls_weight": cls_weight, "interpolation_weight": interpolation_weight}
        loop.run(training, {**SETTINGS, **weights})
        run = inference.load(run_dir)
        scores[name] = evaluate.evaluate(run, "caption_fidelity", test, EvaluateConfig(num_images=SCORED))
        captions = captions_of(SampleConfig(run_dir=run_dir), run)
        rows = [caption for caption in captions for _ in SEEDS]
        images = run.generate(rows, list(SEEDS) * len(captions))[-1]
        columns.append(images.reshape(len(captions), len(SEEDS), *images.shape[1:]))
    labels = [name if seed == SEEDS[0] else f"seed {seed}" for name in VARIANTS for seed in SEEDS]
    grid = pictures.labelled_grid(np.concatenate(columns, axis=1), captions, labels, scale=2)
    print(pictures.save(grid, Path(out) / "variants.png"))
    (Path(out) / "variants.json").write_text(json.dumps(scores, indent=2) + "\n")
    for name, score in scores.items():
        shares = "  ".join(f"{key} {score[key]:.3f}" for key in ("petal_color", "center_color", "background"))
        print(f"{name:12} {shares}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
