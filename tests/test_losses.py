import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses

LOG2 = np.log(2.0)


def value(loss):
    assert loss.shape == ()
    return float(loss)


def test_real_and_fake_loss_are_cross_entropies_of_the_sigmoid():
    logits = np.array([-3.0, -0.5, 0.0, 2.0], np.float32)
    probability = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    assert value(losses.real_loss(tf.constant(logits))) == pytest.approx(np.mean(-np.log(probability)), rel=1e-6)
    assert value(losses.fake_loss(tf.constant(logits))) == pytest.approx(np.mean(-np.log(1 - probability)), rel=1e-6)


def test_an_undecided_discriminator_pays_log_2_for_each_kind():
    zero = tf.zeros([4])
    assert value(losses.real_loss(zero)) == pytest.approx(LOG2)
    # real + half of the wrong + half of the fake (Algorithm 1)
    assert value(losses.matching_aware_discriminator_loss(zero, zero, zero, 0.5)) == pytest.approx(2 * LOG2)
    # plain GAN: the fake counts whole
    assert value(losses.matching_aware_discriminator_loss(zero, zero, None, 0.0)) == pytest.approx(2 * LOG2)


def test_the_matching_aware_loss_by_hand():
    real, fake, wrong = tf.constant([0.0, 0.0]), tf.constant([1.0, -1.0]), tf.constant([2.0, 2.0])
    of_fake = (np.log1p(np.exp(1)) + np.log1p(np.exp(-1))) / 2
    of_wrong = np.log1p(np.exp(2))
    got = losses.matching_aware_discriminator_loss(real, fake, wrong, 0.25)
    assert value(got) == pytest.approx(LOG2 + 0.25 * of_wrong + 0.75 * of_fake, rel=1e-6)
    # all weight on mismatching pairs: the fake ones count for nothing
    got = losses.matching_aware_discriminator_loss(real, fake, wrong, 1.0)
    assert value(got) == pytest.approx(LOG2 + of_wrong, rel=1e-6)


def test_the_interpolation_loss_by_hand():
    true, between = tf.constant([0.0, 1.0]), tf.constant([-2.0])
    of_true, of_between = LOG2 + np.log1p(np.exp(-1)), np.log1p(np.exp(2))
    got = losses.interpolation_generator_loss(true, between, 0.5)
    assert value(got) == pytest.approx((of_true + 0.5 * of_between) / 3, rel=1e-6)


def test_the_divisor_of_the_interpolation_loss_counts_all_rows_whatever_the_weight():
    got = losses.interpolation_generator_loss(tf.zeros([4]), tf.zeros([2]), 0.0)
    assert value(got) == pytest.approx(LOG2 * 4 / 6, rel=1e-6)
    got = losses.interpolation_generator_loss(tf.zeros([4]), tf.zeros([0]), 0.0)  # the cls program has none
    assert value(got) == pytest.approx(LOG2, rel=1e-6)


@pytest.mark.parametrize("sign", [-100.0, 100.0])
def test_extreme_logits_have_finite_losses_and_gradients(sign):
    logits = tf.Variable([sign, sign, sign, sign])
    with tf.GradientTape(persistent=True) as tape:
        found = [
            losses.real_loss(logits),
            losses.fake_loss(logits),
            losses.matching_aware_discriminator_loss(logits, logits, logits, 0.5),
            losses.interpolation_generator_loss(logits, logits[:2], 1.0),
        ]
    for loss in found:
        assert np.isfinite(value(loss))
        assert np.all(np.isfinite(tape.gradient(loss, logits)))
    # no saturation: the generator's gradient stays where it is most wrong
    gradient = tape.gradient(found[0], logits).numpy()
    np.testing.assert_allclose(gradient, -0.25 if sign < 0 else 0.0, atol=1e-6)


def embedding_loss_by_loops(queries, keys, matching, excluded):
    total = 0.0
    for i, query in enumerate(queries):
        for j, key in enumerate(keys):
            if j != matching[i] and not excluded[i, j]:
                total += max(0.0, 1.0 + query @ key - query @ keys[matching[i]])
    return total / (len(queries) * len(keys))


def test_the_joint_embedding_loss_by_hand():
    queries = tf.constant([[1.0, 0.0], [0.0, 2.0]])
    keys = tf.constant([[3.0, 0.0], [2.5, 0.25]])
    # similarities [[3, 2.5], [0, 0.5]]; violations 1 + 2.5 - 3 = 0.5 and 1 + 0 - 0.5 = 0.5; divisor 2 * 2
    got = losses.structured_joint_embedding_loss(queries, keys, tf.constant([0, 1]))
    assert value(got) == pytest.approx(0.25)


@pytest.mark.parametrize("with_classes", [False, True])
def test_the_joint_embedding_loss_against_loops(with_classes):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
    matching = np.array([4, 0, 6])
    excluded = rng.random((3, 7)) < 0.3 if with_classes else np.zeros((3, 7), bool)
    same_class = tf.constant(excluded) if with_classes else None
    got = losses.structured_joint_embedding_loss(
        tf.constant(queries, tf.float32), tf.constant(keys, tf.float32), tf.constant(matching), same_class
    )
    assert value(got) == pytest.approx(embedding_loss_by_loops(queries, keys, matching, excluded), rel=1e-5)


def test_a_batch_of_one_pair_has_nothing_to_violate():
    got = losses.structured_joint_embedding_loss(tf.ones([1, 4]), tf.ones([1, 4]), tf.constant([0]))
    assert value(got) == 0.0


def test_the_matching_loss_by_hand():
    table = tf.constant([[np.log(3.0), 0.0], [5.0, 5.0]], tf.float32)
    got = losses.matching_loss(table, tf.constant([0, 1]), gamma3=1.0)
    assert value(got) == pytest.approx((-np.log(3 / 4) + LOG2) / 2, rel=1e-6)
    # sharper: 3^2 against 1
    got = losses.matching_loss(table, tf.constant([0, 1]), gamma3=2.0)
    assert value(got) == pytest.approx((-np.log(9 / 10) + LOG2) / 2, rel=1e-6)


def test_pairs_of_ones_class_are_left_out_and_the_own_never():
    table = tf.Variable([[1.0, 9.0, 2.0]])
    same_class = tf.constant([[True, True, False]])
    with tf.GradientTape() as tape:
        loss = losses.matching_loss(table, tf.constant([0]), same_class, gamma3=1.0)
    assert value(loss) == pytest.approx(np.log(1 + np.e), rel=1e-6)
    share = 1 / (1 + np.e)  # of the own pair
    np.testing.assert_allclose(tape.gradient(loss, table), [[share - 1, 0.0, 1 - share]], rtol=1e-5)
    everything = tf.ones([1, 3], tf.bool)
    assert value(losses.matching_loss(table, tf.constant([2]), everything)) == 0.0


def test_the_damsm_loss_of_a_replicas_rows_by_loops():
    rng = np.random.default_rng(0)
    table, classes, own = rng.normal(size=(5, 5)), np.array([3, 1, 3, -1, -1]), np.array([2, 3])
    similarities = {"word": tf.constant(table, tf.float32), "sentence": tf.constant(-table, tf.float32)}
    got = losses.damsm_losses(similarities, tf.constant(own), tf.constant(classes), gamma3=2.0)
    for kind, sims in (("word", table), ("sentence", -table)):
        for name, direction in ((f"{kind}_of_image", sims), (f"image_of_{kind}", sims.T)):
            wanted = []
            for i in own:
                rivals = [j for j in range(5) if j == i or classes[i] < 0 or classes[j] != classes[i]]
                wanted.append(np.log(np.sum(np.exp(2 * (direction[i, rivals] - direction[i, i])))))
            assert value(got[name]) == pytest.approx(np.mean(wanted), rel=1e-5)
    assert len(got) == 4
