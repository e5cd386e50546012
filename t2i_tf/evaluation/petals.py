"""Does the word for a petal's colour look at petals? Measured on `blossoms`, where the truth is known."""

from __future__ import annotations

import numpy as np

from t2i_tf import pictures
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records, text
from t2i_tf.data.sources import blossoms, blossoms_masks
from t2i_tf.errors import UserError
from t2i_tf.evaluation import fidelity
from t2i_tf.inference import Run

AT_ONCE = 32


def attention_on_petals(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Where the word for the petal colour is looked at (AttnGAN), or looks (DAMSM): on petals, or elsewhere?

    Of a generator the petals are those seen in its pictures (`fidelity.petal_masks`), of a DAMSM those that were drawn.
    Keys, each a mean over captions: petal_area, the petals' share of the picture; for each attention on_petals_<size>,
    the share of the word's weights that lies on them, and times_denser_<size>, how many times larger the mean weight is
    on petals than elsewhere; absent while no picture shows a flower.
    """
    if not hasattr(run.recipe, "attend"):
        raise UserError(f"--metrics=attention_on_petals: a run of {run.paper} attends to no words")
    if split.dataset.manifest["name"] != "blossoms":
        raise UserError("--metrics=attention_on_petals: petals are known of --source=blossoms alone")
    rng = np.random.Generator(np.random.Philox(options.seed))
    split.check_captions("--metrics=attention_on_petals")
    captions = run.captions_of(split)
    described = np.array([bool(of_one) for of_one in captions])
    numbers = rng.permutation(split.num_images)
    numbers = numbers[described[numbers]][: options.num_images]
    chosen = [captions[number][rng.integers(len(captions[number]))] for number in numbers]
    measure = _of_generated if run.recipe.kind == "gan" else _of_drawn
    parts = [
        measure(run, split, numbers[start : start + AT_ONCE], chosen[start : start + AT_ONCE], options.seed + start)
        for start in range(0, len(chosen), AT_ONCE)
    ]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    area, scores = rows.pop("petal_area"), {}
    some = (area > 0) & (area < 1)
    for size, shares in rows.items() if some.any() else ():
        on, where = shares[some].mean(), area[some].mean()
        scores |= {f"on_petals_{size}": float(on), f"times_denser_{size}": float(on / where * (1 - where) / (1 - on))}
    return {"petal_area": float(area.mean()), **scores, "images": len(chosen), "flowers": int(some.sum())}


def _of_generated(run, split, numbers, captions, seed) -> dict[str, np.ndarray]:
    images, attention = run.attend(captions, list(range(seed, seed + len(captions))))
    masks, places = fidelity.petal_masks(images[-1]), _color_places(run, captions)
    found = {"petal_area": masks.mean(axis=(1, 2))}
    for weights in attention:
        of_word = np.take_along_axis(weights, places[:, None, None, None], axis=3)[..., 0]
        found[str(weights.shape[1])] = share_on(of_word, masks)
    return found


def _of_drawn(run, split, numbers, captions, seed) -> dict[str, np.ndarray]:
    size = run.recipe.request.image_sizes[-1]
    (images,) = run.views(split, len(numbers), numbers)
    masks, places = blossoms_masks.petal_masks(split, numbers, size), _color_places(run, captions)
    weights = run.attend_pictures(images, captions)
    of_word = np.take_along_axis(weights, places[:, None, None, None], axis=1)[:, 0]
    return {"petal_area": masks.mean(axis=(1, 2)), str(weights.shape[2]): share_on(of_word, masks)}


def share_on(weights: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Weights [N,h,w] of 0 and more, and masks bool [N,S,S] -> the share of the weights in each mask [N]; 0 where there
    are no weights."""
    spread = pictures.smooth(weights, masks.shape[1])
    return np.sum(spread * masks, axis=(1, 2)) / np.maximum(spread.sum(axis=(1, 2)), 1e-12)


def _color_places(run, captions) -> np.ndarray:
    """int [N]: which of the words that the run reads names the petal colour."""
    places = []
    for caption in captions:
        before = " ".join(caption.split()[: blossoms.petal_color_word(caption)])
        places.append(len([word for word in text.words(before) if word in run.vocabulary]))
    return np.array(places)
