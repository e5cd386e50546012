"""The networks that pictures are scored with, by name: what they see, what they say, and which weights they have.

    inception2015         the Inception of 2015 that IS and FID were defined with, from TF Hub (`HUB_HANDLE`);
    inception2015:FOLDER  the same, downloaded and unpacked before;
    keras                 Inception-v3 of keras.applications with its ImageNet classes, fetched once;
    FILE.h5               the same from a weights file of Keras, with its top;
    run:RUN_DIR           one's own classifier (`--paper=classifier`), as StackGAN and AttnGAN score CUB and Oxford-102;
    FOLDER                a SavedModel of any network, see `_SavedModel`;
    random                Inception-v3 without training, the same everywhere: for tests.

Scores of two extractors, of two weights or of two ways to resize cannot be compared: a score names all three.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from t2i_tf import devices
from t2i_tf.checkpoints import fingerprint
from t2i_tf.errors import UserError
from t2i_tf.inference import load
from t2i_tf.networks.encoders import draw_weights
from t2i_tf.networks.inception import SIZE as INCEPTION_SIZE

HUB_HANDLE = "https://tfhub.dev/tensorflow/tfgan/eval/inception/1"
KERAS_WEIGHTS = "inception_v3_weights_tf_dim_ordering_tf_kernels.h5"


def _tf1_bilinear(images, size):
    return tf.raw_ops.ResizeBilinear(images=images, size=size, align_corners=False, half_pixel_centers=False)


def _antialiased(images, size):
    return tf.image.resize(images, size, method="bilinear", antialias=True)


RESIZES: dict[str, Callable] = {
    "tf1_bilinear": _tf1_bilinear,
    "bilinear": lambda images, size: tf.image.resize(images, size, method="bilinear"),
    "antialiased": _antialiased,
    "antialiased_8bit": lambda images, size: tf.round(_antialiased(images, size)),
}
"""How float32 pictures in [0, 255] come to the size that the network sees; one of that size is left alone.

tf1_bilinear: from the upper left corner, as TensorFlow 1 did and the graph of 2015 has it: it moves the picture by part
of a pixel. bilinear: pixel centres stay in place; both skip pixels where they shrink. antialiased: as PIL, but not
rounded. antialiased_8bit: as PIL within one level of 255, which StackGAN's published program used.
"""


class Extractor:
    """A frozen network that pictures are scored with.

    Args:
        network: float32 [B,S,S,3] in [-1, 1] -> features [B,F], logits [B,C] or None.
        sha256: of its weights; size: S in pixels; resize: a key of RESIZES.
    """

    def __init__(self, name: str, network: Callable, sha256: str, size: int, resize: str):
        self.name, self.sha256, self.size, self.resize = name, sha256, size, resize
        self._network = network
        picture = tf.TensorSpec([1, size, size, 3])  # traced alone: mirrored networks run on their devices only
        features, logits = tf.function(network, autograph=False).get_concrete_function(picture).structured_outputs
        self.width = features.shape[1]
        self.num_classes = None if logits is None else logits.shape[1]
        """None where the network gives no logits."""
        self._pass = tf.function(self._of_batch, autograph=False, reduce_retracing=True)

    def _of_batch(self, images):
        pictures = tf.cast(images, tf.float32)
        shape = tf.shape(images)
        fits = (shape[1] == self.size) & (shape[2] == self.size)
        resized = tf.cond(fits, lambda: pictures, lambda: RESIZES[self.resize](pictures, [self.size, self.size]))
        resized = tf.ensure_shape(resized, [None, self.size, self.size, 3])
        features, logits = self._network(resized / 127.5 - 1.0)
        return features, tf.zeros([0, 0]) if logits is None else logits

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 [N,H,W,3] of any size -> features float32 [N,F], logits float32 [N,C] or None; on all devices."""
        features, logits = devices.rows_of(self._pass, images)
        return features, logits if logits.size else None

    def describe(self) -> dict:
        """What a score says of it."""
        return {
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "resize": f"{self.resize} to {self.size}",
        }


def extractor(name: str, resize: str | None = None) -> Extractor:
    """The extractor of a name, see the head of this module.

    Args:
        resize: a key of RESIZES; None for the extractor's own: tf1_bilinear for inception2015, antialiased_8bit for a
            run, antialiased for the others.

    Raises UserError: no such extractor, weights that cannot be had, outputs that are none; it says what to do.
    """
    kind, _, rest = name.partition(":")
    if name == "random":
        logging.warning("--extractor=random: a network without training; its scores compare with nothing")
        return _of_keras(name, None, resize)
    if name == "keras" or name.endswith(".h5"):
        return _of_keras(name, "imagenet" if name == "keras" else name, resize)
    if kind == "run" and rest:
        return _of_run(name, rest, resize)
    if kind == "inception2015":
        return _of_2015(name, rest or HUB_HANDLE, resize)
    if Path(name, "saved_model.pb").is_file():
        model = _SavedModel(name)
        return Extractor(name, model, _sha256_of_files(Path(name)), model.size, resize or "antialiased")
    raise UserError(
        f"--extractor={name}: must be inception2015, inception2015:FOLDER, keras, a .h5 file, run:RUN_DIR, random or a "
        "folder with saved_model.pb"
    )


def _of_run(name: str, run_dir: str, resize: str | None) -> Extractor:
    run = load(run_dir)
    if not hasattr(run.recipe, "classify"):
        raise UserError(
            f"--extractor={name} is a run of {run.paper}, which tells no classes: give one of --paper=classifier"
        )
    weights = [variable.numpy() for network in run.recipe.networks.values() for variable in network.variables]
    sha256 = fingerprint([*weights, *run.recipe.frozen_weights()])
    return Extractor(name, run.recipe.classify, sha256, run.recipe.input_size, resize or "antialiased_8bit")


def _of_keras(name: str, weights: str | None, resize: str | None) -> Extractor:
    """keras.applications.InceptionV3: pooled features [B,2048], logits [B,1000]."""
    try:
        model = keras.applications.InceptionV3(weights=weights, classifier_activation=None)
    except Exception as error:  # keras raises bare Exceptions for downloads, OSErrors and ValueErrors for files
        raise UserError(
            f"--extractor={name}: no Inception-v3 weights there ({' '.join(str(error).split())[:200]}); download "
            f"{KERAS_WEIGHTS} from the Keras releases and give its path"
        ) from error
    if weights is None:
        draw_weights(model)
    model.trainable = False
    network = keras.Model(model.input, [model.get_layer("avg_pool").output, model.output])
    sha256 = fingerprint(variable.numpy() for variable in model.variables)
    return Extractor(name, lambda x: network(x, training=False), sha256, INCEPTION_SIZE, resize or "antialiased")


def _of_2015(name: str, handle: str, resize: str | None) -> Extractor:
    """The graph of 2015 as TF-GAN publishes it: pool_3 [B,2048], logits [B,1008], softmax over all of them.

    Its users give it pictures in [-1, 1], and so does this; the program of Salimans et al. scaled by (x - 128) / 128
    and left the bias out of its logits.
    """
    import tensorflow_hub as hub

    remedy = (
        f"download {HUB_HANDLE}?tf-hub-format=compressed, unpack it and give --extractor=inception2015:FOLDER; scores "
        "of other extractors are no substitute"
    )
    if handle != HUB_HANDLE and not Path(handle, "saved_model.pb").is_file():
        raise UserError(f"--extractor={name}: no saved_model.pb in {handle}; {remedy}")
    try:
        folder = Path(hub.resolve(handle))
    except Exception as error:  # a download raises what urllib, tarfile or the file system do
        raise UserError(f"--extractor={name}: no network there ({' '.join(str(error).split())[:200]}); {remedy}") from (
            error
        )
    found = Extractor(name, _SavedModel(folder), _sha256_of_files(folder), INCEPTION_SIZE, resize or "tf1_bilinear")
    if found.width != 2048 or found.num_classes is None:
        raise UserError(
            f"--extractor={name}: gives {found.width} features and {found.num_classes or 'no'} classes, Inception has "
            f"2048 and 1008; {remedy}"
        )
    return found


class _SavedModel:
    """A SavedModel: pictures float32 [B,S,S,3] in [-1, 1] -> features and logits.

    It is called as it is, or by its signature `serving_default`. It gives a dict with `features` or `pool_3`, [B,F] or
    [B,1,1,F], and, where it tells classes, `logits` [B,C] before the softmax; or the features alone. S is that of its
    input, and 299 where that is left open. Raises UserError for one that does not.
    """

    def __init__(self, folder: str | Path):
        self._folder = folder
        try:
            self._module = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UserError(f"{folder}: cannot be loaded ({' '.join(str(error).split())[:200]})") from error
        signatures = getattr(self._module, "signatures", {})
        if callable(self._module):
            self._call, specs = self._module, self._module.__call__.concrete_functions
        elif "serving_default" in signatures:
            signature = signatures["serving_default"]
            (argument,) = signature.structured_input_signature[1]
            self._call, specs = lambda x: signature(**{argument: x}), [signature]
        else:
            raise UserError(f"{folder}: can neither be called nor has it a signature serving_default: save it with one")
        inputs = [x for s in specs for x in tf.nest.flatten(s.structured_input_signature) if hasattr(x, "shape")]
        sizes = {x.shape[1] for x in inputs if x.shape.rank == 4 and x.shape[1]}
        self.size = sizes.pop() if len(sizes) == 1 else INCEPTION_SIZE

    def __call__(self, images):
        try:
            outputs = self._call(images)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self._folder}: takes no float pictures [B,{self.size},{self.size},3] "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        if isinstance(outputs, dict) and len(outputs) == 1:
            (outputs,) = outputs.values()
        if not isinstance(outputs, dict):
            outputs = {"features": outputs}
        named = [outputs[name] for name in ("features", "pool_3") if name in outputs]
        if not named:
            raise UserError(
                f"{self._folder}: gives {', '.join(sorted(outputs))}; its features must be called features or pool_3"
            )
        logits = outputs.get("logits")
        return _flat(named[0]), None if logits is None else _flat(logits)


def _flat(x: tf.Tensor) -> tf.Tensor:
    """[B,1,1,F] or [B,F] -> float32 [B,F]."""
    return tf.cast(tf.reshape(x, [tf.shape(x)[0], np.prod(x.shape[1:])]), tf.float32)


def _sha256_of_files(folder: Path) -> str:
    """Of the names and contents of all files below a folder, wherever it lies."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
