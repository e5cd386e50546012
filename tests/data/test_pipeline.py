"""The stream of batches against PIL and against the plan that `Sampler` makes, on real records."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import pipeline, records, text
from t2i_tf.data.images import box_window
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sampling import Sampler
from t2i_tf.errors import UserError
from t2i_tf.papers import BatchRequest

SIZES = [(90, 120), (120, 90), (100, 100), (77, 150), (131, 97), (80, 80)]
BATCH = 5


def picture(number, width, height):
    """Waves of several lengths with a sharp square: what resampling filters differ on."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (2 + number + c) + y / (5 + c)) * 90 + 128 for c in range(3)]
    image = np.stack(waves, axis=-1)
    image[height // 4 : height // 2, width // 3 : width // 2] = (250, 10 * number, 30)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of twelve pictures in three classes, with 3 to 5 captions and a box each."""
    folder = tmp_path_factory.mktemp("source")
    lines = []
    for number in range(12):
        width, height = SIZES[number % len(SIZES)]
        name = f"{number:02d}.jpg"
        picture(number, width, height).save(folder / name, quality=95, subsampling=0)
        captions = [f"picture {number}, caption {i}: a café & (it's) CAPS" for i in range(3 + number % 3)]
        box = [width * 0.2, height * 0.3, width * 0.5, height * 0.4]
        entry = {"image": name, "captions": captions, "class": f"class {number % 3}", "split": "train", "box": box}
        lines.append(json.dumps(entry))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def splits(source, tmp_path_factory):
    """-> split of a data set stored at that size."""
    made = {}

    def at(image_size, resize="shorter_side", **options):
        key = (image_size, resize, *options.items())
        if key not in made:
            folder = tmp_path_factory.mktemp("data") / "set"
            config = PrepareConfig(
                source="folder",
                source_dir=str(source),
                data_dir=str(folder),
                image_size=image_size,
                resize=resize,
                workers=1,
                **options,
            )
            made[key] = records.Dataset.open(prepare(config, progress=lambda done, total: None)).split("train")
        return made[key]

    return at


def stored(split, number):
    example = tf.train.Example.FromString(split.read([number])[0]).features.feature
    image = Image.open(io.BytesIO(example["image"].bytes_list.value[0]))
    return image, tuple(example["box"].float_list.value)


def by_pil(image, size, margin, vertical, horizontal, flip):
    """The picture a network of `size` pixels sees, made with PIL; uint8 [size, size, 3]."""
    shorter = min(image.size)
    if shorter != margin:
        resized = (image.width * margin // shorter, image.height * margin // shorter)
        image = image.resize(resized, Image.Resampling.BILINEAR)
    left = min(int(horizontal * (image.width - size + 1)), image.width - size)
    top = min(int(vertical * (image.height - size + 1)), image.height - size)
    cut = np.asarray(image)[top : top + size, left : left + size]
    return cut[:, ::-1] if flip else cut


def plan(split, request, step, seed=0, batch_size=BATCH):
    sampler = Sampler(
        split.class_ids,
        split.caption_counts,
        request.sampling,
        batch_size,
        wrong_images=request.wrong_images,
        captions=request.captions if request.text else 0,
        captions_with_replacement=request.captions_with_replacement,
        seed=seed,
    )
    return sampler.plan(step)


def take(split, request, count=1, skip=0, batch_size=BATCH, **settings):
    stream = pipeline.batches(split, request, batch_size, **settings)
    return list(stream.skip(skip).take(count).as_numpy_iterator())


def equal(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def close(one, other, levels):
    assert one.dtype == np.uint8 and one.shape == other.shape
    difference = np.abs(one.astype(int) - other.astype(int))
    assert difference.max() <= levels


@pytest.mark.parametrize(
    "image_size, resize, margin, levels",
    [
        (76, "shorter_side", 76, 0),  # stored as it is cropped from: no resampling at all
        (100, "shorter_side", 76, 1),
        (90, "square", 76, 1),
        (66, "shorter_side", 76, 1),  # enlarged
        (64, "square", 64, 0),  # stored at the training size: the whole picture
        (64, "shorter_side", 64, 0),
    ],
)
def test_pictures_are_those_of_pil(splits, image_size, resize, margin, levels):
    split = splits(image_size, resize)
    request = BatchRequest(image_sizes=(64,), sampling="class", wrong_images=True)
    flips = set()
    for step, batch in enumerate(take(split, request, 3, seed=4)):
        planned = plan(split, request, step, seed=4)
        for name, numbers, augmentation in (
            ("images", planned.images, planned.augmentation),
            ("wrong_images", planned.wrong_images, planned.wrong_augmentation),
        ):
            assert batch[name][0].shape == (BATCH, 64, 64, 3)
            for row, number in enumerate(numbers):
                vertical, horizontal, flip = augmentation[row]
                flips.add(flip < 0.5)
                image, _ = stored(split, number)
                close(batch[name][0][row], by_pil(image, 64, margin, vertical, horizontal, flip < 0.5), levels)
        np.testing.assert_array_equal(batch["class"], split.class_ids[planned.images])
    assert flips == {True, False}


def test_a_request_without_wrong_pictures_gets_none(splits):
    (batch,) = take(splits(76), BatchRequest(image_sizes=(64,)))
    assert set(batch) == {"images", "class"}


def test_the_pyramid_is_the_same_cut_at_every_size(splits):
    request = BatchRequest(image_sizes=(16, 32, 64))
    (batch,) = take(splits(76), request, seed=1)
    assert [image.shape[1] for image in batch["images"]] == [16, 32, 64]
    for row in range(BATCH):
        largest = Image.fromarray(batch["images"][-1][row])
        for image in batch["images"][:-1]:
            size = image.shape[1]
            close(image[row], np.asarray(largest.resize((size, size), Image.Resampling.BILINEAR)), 1)


@pytest.mark.parametrize(
    "box, expected",
    [
        # centre (50, 40), radius int(40 * 0.75) = 30
        ((30, 30, 40, 20), (20, 10, 80, 70)),
        # radius int(25 * 0.75) = 18, centre (2 * 11 + 25) // 2 = 23, (2 * 33 + 14) // 2 = 40
        ((11, 33, 25, 14), (5, 22, 41, 58)),
        # clipped left and above: centre (10, 5), radius 15
        ((0, 0, 20, 10), (0, 0, 25, 20)),
        # clipped right and below: centre (95, 75), radius 15 in a picture of 100 x 80
        ((85, 70, 20, 10), (80, 60, 100, 80)),
        # fractions are cut off: (10, 10, 30, 30), radius 22
        ((10.9, 10.9, 30.9, 30.9), (3, 3, 47, 47)),
    ],
)
def test_the_box_rule_by_hand(box, expected):
    left, top, right, bottom = expected
    window = pipeline.box_windows(tf.constant([box], tf.float32), tf.constant([[80, 100]]))
    np.testing.assert_array_equal(window, [[top, left, bottom - top, right - left]])


def test_cropping_around_boxes_while_training(splits):
    split = splits(100)
    request = BatchRequest(image_sizes=(48,))
    (batch,) = take(split, request, box_crop=True)
    planned = plan(split, request, 0)
    for row, number in enumerate(planned.images):
        image, box = stored(split, number)
        vertical, horizontal, flip = planned.augmentation[row]
        cut = image.crop(box_window(box, *image.size))
        close(batch["images"][0][row], by_pil(cut, 48, 57, vertical, horizontal, flip < 0.5), 1)


def test_boxes_must_be_there_and_not_be_used_up(splits, blossoms):
    request = BatchRequest(image_sizes=(64,))
    with pytest.raises(UserError, match="--box_crop: the pictures of .* are cropped already"):
        take(splits(76, crop="box"), request, box_crop=True)
    with pytest.raises(UserError, match="--box_crop: 60 of the 60 pictures of split train of .* have no bounding box"):
        take(records.Dataset.open(blossoms).split("train"), request, box_crop=True)


def test_every_picture_must_have_a_box(source, tmp_path):
    """The last of twelve has none."""
    folder = shutil.copytree(source, tmp_path / "source")
    *lines, last = (folder / "captions.jsonl").read_text().splitlines()
    last = {name: value for name, value in json.loads(last).items() if name != "box"}
    (folder / "captions.jsonl").write_text("\n".join([*lines, json.dumps(last)]))
    made = prepare(
        PrepareConfig(source="folder", source_dir=str(folder), data_dir=str(tmp_path / "set"), image_size=76, workers=1)
    )
    with pytest.raises(UserError, match="--box_crop: 1 of the 12 pictures of split train of .* have no bounding box"):
        take(records.Dataset.open(made).split("train"), BatchRequest(image_sizes=(64,)), box_crop=True)


def test_pictures_stored_too_small_are_refused_with_the_size_to_prepare(splits):
    with pytest.raises(UserError, match="prepared at 64 pixels, 128 are needed: .* --image_size=152"):
        pipeline.batches(splits(64, "square"), BatchRequest(image_sizes=(32, 128)), BATCH)


EVERYTHING = BatchRequest(image_sizes=(16, 48), sampling="shuffled", wrong_images=True, text="characters", captions=2)


def test_the_stream_can_start_at_any_step(splits):
    split = splits(76)
    equal(take(split, EVERYTHING, 3, start_step=5, seed=2), take(split, EVERYTHING, 3, skip=5, seed=2))


def test_threads_do_not_change_the_stream(splits):
    def with_threads(count, parallelism):
        options = tf.data.Options()
        options.threading.private_threadpool_size = count
        options.threading.max_intra_op_parallelism = parallelism
        options.autotune.enabled = count > 1
        stream = pipeline.batches(splits(76), EVERYTHING, BATCH, seed=3).with_options(options)
        return list(stream.take(6).as_numpy_iterator())

    equal(with_threads(1, 1), with_threads(8, 4))


def test_embeddings_are_those_of_the_captions_drawn(splits):
    split = splits(76)
    embeddings = np.arange(split.caption_offsets[-1])[:, None] * np.ones((1, 3), np.float32)  # a row says its place
    request = BatchRequest(image_sizes=(48,), sampling="class", text="embedding", captions=3)
    for step, batch in enumerate(take(split, request, 4, embeddings=embeddings)):
        planned = plan(split, request, step)
        assert batch["embedding"].shape == (BATCH, 3, 3) and batch["embedding"].dtype == np.float32
        places = batch["embedding"][:, :, 0].astype(int)
        np.testing.assert_array_equal(places - split.caption_offsets[planned.images][:, None], planned.captions)
        assert np.all(places < split.caption_offsets[planned.images + 1][:, None])


def test_characters_are_those_of_the_captions_drawn(splits):
    split = splits(76)
    request = BatchRequest(image_sizes=(48,), text="characters", captions=2)
    captions = split.captions()
    number = {symbol: place for place, symbol in enumerate(text.ALPHABET, 1)}
    for step, batch in enumerate(take(split, request, 3, character_rule="lower_zero")):
        planned = plan(split, request, step)
        assert batch["characters"].shape == (BATCH, 2, 201) and batch["characters"].dtype == np.int32
        for row in range(BATCH):
            for column in range(2):
                caption = captions[planned.images[row]][planned.captions[row, column]]
                expected = [number.get(letter, 0) for letter in caption.lower()]
                found = batch["characters"][row, column]
                np.testing.assert_array_equal(found[: len(expected)], expected)
                assert not found[len(expected) :].any()


def test_words_are_those_of_the_captions_drawn(splits):
    split = splits(76)
    vocabulary = ["picture", "caption", *map(str, range(12)), "a", "café", "caf", "its", "caps"]
    request = BatchRequest(image_sizes=(64,), text="words", captions=2, words=9)
    (batch,) = take(split, request, vocabulary=vocabulary)
    captions, planned = split.captions(), plan(split, request, 0)
    assert batch["words"].shape == (BATCH, 2, 9) and batch["word_lengths"].shape == (BATCH, 2)
    for row, number in enumerate(planned.images):
        for column, place in enumerate(planned.captions[row]):
            known = [vocabulary.index(w) + 1 for w in text.words(captions[number][place]) if w in vocabulary]
            length = batch["word_lengths"][row, column]
            assert length == len(known) > 3
            np.testing.assert_array_equal(batch["words"][row, column], [*known, *[0] * (9 - length)])


def test_the_rule_for_unknown_characters_is_handed_on(splits):
    request = BatchRequest(image_sizes=(48,), text="characters")
    (lower,), (port,) = (take(splits(76), request, character_rule=rule) for rule in ("lower_zero", "port"))
    place = len("picture 0, caption 0: a caf")  # two places, since some pictures have two digits
    assert np.all(lower["characters"][:, 0, place : place + 2].min(1) == 0)
    assert np.all(port["characters"][:, 0, : place + 2] > 0)


@pytest.mark.parametrize("kind", ["characters", None])
def test_cached_features_stand_for_pictures(splits, kind):
    split = splits(76)
    features = np.zeros((split.num_images, 4, 2), np.float32)
    features[..., 0], features[..., 1] = np.arange(split.num_images)[:, None], np.arange(4)
    request = BatchRequest(image_sizes=(48,), sampling="distinct_classes", text=kind, image_views=4)
    views = []
    for step, batch in enumerate(take(split, request, 30, features=features, batch_size=3)):
        planned = plan(split, request, step, batch_size=3)
        assert "images" not in batch and batch["features"].shape == (3, 2)
        np.testing.assert_array_equal(batch["features"][:, 0], planned.images)
        np.testing.assert_array_equal(batch["features"][:, 1], np.floor(planned.augmentation[:, 0] * 4))
        views += batch["features"][:, 1].tolist()
    assert set(views) == {0, 1, 2, 3}


@pytest.mark.parametrize("batch_size", [1, BATCH, 64])
def test_shapes_are_known_before_anything_is_read(splits, batch_size):
    spec = pipeline.batches(splits(76), EVERYTHING, batch_size).element_spec
    assert [tuple(image.shape) for image in spec["images"]] == [(batch_size, 16, 16, 3), (batch_size, 48, 48, 3)]
    assert tuple(spec["characters"].shape) == (batch_size, 2, 201)
    assert tuple(spec["class"].shape) == (batch_size,)


CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("chosen", [[7, 0, 3], [11], [2, 2, 9, 9, 4, 2], []])
def test_views_of_chosen_pictures_are_theirs_in_the_order_asked_for(splits, chosen):
    split = splits(76)
    everything = np.concatenate(list(pipeline.views(split, 64, BATCH).as_numpy_iterator()))
    batches = list(pipeline.views(split, 64, BATCH, chosen=np.array(chosen)).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [len(chosen[i : i + BATCH]) for i in range(0, len(chosen), BATCH)]
    found = np.concatenate([everything[:0], *batches])
    np.testing.assert_array_equal(found, everything[chosen] if chosen else everything[:0])


@pytest.mark.parametrize("view", [0, 1, 2, 3, 4, 5, 7, 9])
def test_views_are_all_pictures_in_order_and_fixed_cuts(splits, view):
    split = splits(76)
    batches = list(pipeline.views(split, 64, BATCH, view).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [5, 5, 2]
    for number, found in enumerate(np.concatenate(batches)):
        image, _ = stored(split, number)
        vertical, horizontal = CORNERS[view % 5]
        np.testing.assert_array_equal(found, by_pil(image, 64, 76, vertical, horizontal, view >= 5))


def test_shares_of_workers_are_the_batch_of_one(blossoms):
    split = records.Dataset.open(blossoms).split("train")
    request = BatchRequest(
        image_sizes=(32,), wrong_images=True, text="words", words=4
    )  # longer captions are drawn from
    vocabulary = split.dataset.manifest["vocabulary"]

    def batch(**share):
        return next(iter(pipeline.batches(split, request, 8, start_step=3, vocabulary=vocabulary, **share)))

    shares = [batch(share=(worker, 4)) for worker in range(4)]
    together = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *shares)
    equal(together, batch())


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_an_epoch_of_captions_of_one_length_is_that_of_the_sampler(blossoms, batch_size):
    """Every caption comes, and in the next batch the second time begins."""
    split = records.Dataset.open(blossoms).split("test")
    request = BatchRequest((16,), "caption_length", text="words", longest_caption=11, annotations=True)
    steps = pipeline.steps_of_lengths(split, request, batch_size)
    lengths = np.array([len(text.words(caption)) for of_one in split.captions() for caption in of_one])
    sampler = Sampler(
        split.class_ids,
        split.caption_counts,
        "caption_length",
        batch_size,
        caption_lengths=lengths,
        longest_caption=11,
    )

    def seen(step):
        made = sampler.plan(step)
        return set((split.caption_offsets[made.images] + made.captions[:, 0]).tolist())

    batches = [seen(step) for step in range(steps)]
    wanted = set(np.flatnonzero(lengths <= 11).tolist())
    assert set.union(*batches) == wanted and 0 < len(wanted) < len(lengths)
    assert set.union(*batches[:-1], set()) != wanted
    if batch_size == 1:
        assert steps == len(wanted)
