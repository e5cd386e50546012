"""Pictures, features and scores of two runs on the named devices: a process of its own, since the number of logical
devices of a process cannot be changed.

usage: devices_worker.py COUNT ATTNGAN_RUN RUN_WITHOUT_TEXT DATA_DIR EXTRACTOR OUT_DIR
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from t2i_tf import devices, sampling
from t2i_tf.config import EvaluateConfig, SampleConfig
from t2i_tf.evaluation import evaluate, features
from t2i_tf.inference import load

CAPTIONS = ["a red flower with big round petals", "a blue flower", "big yellow petals with a red center"]
PICTURES = 70
"""Three blocks, the last one of six."""


def computed(names, attngan_run, run_without_text, data_dir, extractor, out):
    """-> arrays by name, and the scores as they are printed; single pictures are written to `out`."""
    captions, seeds = (CAPTIONS * PICTURES)[:PICTURES], list(range(3, 3 + PICTURES))
    found = {}
    with devices.strategy(names).scope():
        found["devices"] = devices.count()
        attngan, without_text = load(attngan_run), load(run_without_text)
        found["small"], found["pictures"] = attngan.generate(captions, seeds)
        found["one picture"] = attngan.generate(captions[:1], seeds[:1])[-1]
        found["two blocks"] = attngan.generate(captions[:64], seeds[:64])[-1]
        found["without text"] = without_text.generate(None, seeds)[-1]
        scales, attention = attngan.attend(captions[:40], seeds[:40])
        found |= {f"scale {number}": images for number, images in enumerate(scales)}
        found |= {f"attention {number}": weights for number, weights in enumerate(attention)}
        found["features"], found["logits"] = features.extractor(extractor)(found["pictures"])
        found["discriminator"] = attngan.image_features(found["pictures"])
        found["vectors"] = attngan.encode_pictures(scales[-1])
    options = EvaluateConfig(
        run_dir=str(run_without_text),
        data_dir=str(data_dir),
        split="train",
        metrics=("is", "fid", "kid", "diversity"),
        num_images=PICTURES,
        extractor=str(extractor),
        devices=names,
    )
    *lines, _ = evaluate.evaluate_run(options)
    sample = SampleConfig(run_dir=str(run_without_text), seeds="0-1", out=str(out), devices=names)
    assert list(sampling.sample(sample))
    return found, [json.loads(line) for line in lines]


def main(count, *paths):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(count))
    found, scores = computed(",".join(f"CPU:{number}" for number in range(int(count))), *paths)
    np.savez(Path(paths[-1]) / "arrays.npz", **found)
    (Path(paths[-1]) / "scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(*sys.argv[1:])
