"""Which examples each step sees, and how they are changed on the way."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

KEY = jax.random.key(11)


def drawn(batches, num_examples, num_steps, start=0, key=KEY):
    plan = batches.plan(key, num_examples, start, num_steps)
    return np.stack([np.asarray(batches.indices(plan, step)) for step in range(start, start + num_steps)])


@pytest.mark.parametrize(("num_examples", "size"), [(12, 4), (13, 4), (5, 5)])
def test_no_example_is_repeated_within_an_epoch(num_examples, size):
    per_epoch = num_examples // size
    indices = drawn(il.Shuffled(size), num_examples, 3 * per_epoch)
    epochs = indices.reshape(3, per_epoch * size)
    assert indices.min() >= 0
    assert indices.max() < num_examples
    for epoch in epochs:
        assert len(set(epoch.tolist())) == per_epoch * size
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_batches_depend_on_the_key_and_not_on_where_the_planned_steps_begin():
    whole = drawn(il.Shuffled(4), 13, 12)
    np.testing.assert_array_equal(whole, drawn(il.Shuffled(4), 13, 12))
    for start, count in ((0, 1), (2, 5), (5, 7), (11, 1)):
        np.testing.assert_array_equal(drawn(il.Shuffled(4), 13, count, start), whole[start : start + count])
    assert not np.array_equal(whole, drawn(il.Shuffled(4), 13, 12, key=jax.random.key(12)))


@pytest.mark.parametrize("num_examples", [1, 13, 1200, 2048])  # none, one and two rounds of sorting
@pytest.mark.parametrize("wide", [False, True])
def test_orders_are_those_of_a_permutation_drawn_with_each_epochs_key(num_examples, wide):
    with jax.enable_x64(wide):
        indices = drawn(il.Shuffled(num_examples), num_examples, 3)
        for epoch, order in enumerate(indices):
            expected = jax.random.permutation(jax.random.fold_in(KEY, epoch), num_examples)
            np.testing.assert_array_equal(order, expected)


def test_with_replacement_is_uniform_and_repeats():
    indices = drawn(il.WithReplacement(64), 4, 20)
    np.testing.assert_array_equal(indices[7:9], drawn(il.WithReplacement(64), 4, 2, start=7))
    counts = np.bincount(indices.ravel(), minlength=4)
    assert counts.size == 4
    assert np.all(np.abs(counts - 320) < 5 * np.sqrt(1280 * 0.25 * 0.75))  # five standard deviations of a binomial
    assert len({tuple(row) for row in indices.tolist()}) == 20


class Seen(il.AbstractObserver):
    """Reads back from a gradient which examples the last step saw: example i has input 2^i."""

    def compute(self, context, state):
        return {"seen": context.anchor[0, 0] + context.displacement[0, 0]}, state


class Sum(il.AbstractLoss):
    def __call__(self, outputs, targets):
        return jnp.sum(outputs, axis=-1)

    def correct(self, outputs, targets):
        return None


ADDITIVE = il.Problem(lambda params, x: x @ params, Sum())
BY_TWO = il.WeightSpace(optax.sgd(-2.0))  # the batch size, so that a step adds its inputs' sum


def seen(schedule, solver=BY_TWO, **options):
    """Each step's set of examples, as a sum of powers of two, from the path of an additive model."""
    x = 2.0 ** jnp.arange(6)[:, None]
    options = {"num_steps": 7, "batch_size": 2, "record_every": 1, "key": KEY, "observers": (Seen(),)} | options
    solution = il.train(ADDITIVE, solver, schedule, jnp.zeros((1, 1)), (x, jnp.zeros((6, 1))), **options)
    return np.diff(solution.records["seen"])


def test_every_run_sees_the_same_batches():
    """For another K, another optimiser and another drive the order of the examples is the same."""
    batches = il.Shuffled(2)
    plan = batches.plan(jax.random.fold_in(KEY, 0), 6, 0, 7)
    expected = np.asarray([np.sum(2.0 ** np.asarray(batches.indices(plan, step))) for step in range(7)])
    assert len(set(expected)) > 3
    for schedule in (il.Every(1), il.Every(3), il.Never()):
        np.testing.assert_array_equal(seen(schedule), expected)
    np.testing.assert_array_equal(seen(il.Every(2), drive="host"), expected)
    chain = il.WeightSpace(optax.chain(optax.trace(0.0), optax.scale(2.0)))
    np.testing.assert_array_equal(seen(il.Every(2), chain), expected)


def test_record_every_does_not_change_the_batches():
    loss, params = il.CrossEntropy(), oracles.mlp_params()
    problem, solver = il.Problem(oracles.mlp, loss), il.WeightSpace(optax.sgd(0.1))
    options = {"num_steps": 7, "batch_size": 5, "key": KEY}
    ends = [
        oracles.flat(
            il.train(problem, solver, il.Every(3), params, oracles.data(loss), record_every=every, **options).params
        )
        for every in (None, 2)
    ]
    np.testing.assert_allclose(*ends, atol=1e-14)


IMAGES = jnp.asarray(np.random.default_rng(5).normal(size=(16, 5, 6, 2)))


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    flipped = np.asarray(il.Flip()(KEY, IMAGES))
    mirrored = np.asarray([not np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)])
    assert 2 < mirrored.sum() < 14
    expected = np.where(mirrored[:, None, None, None], np.asarray(IMAGES)[:, :, ::-1], IMAGES)
    np.testing.assert_array_equal(flipped, expected)


def crops(image, padding):
    """All windows of the padded image, by their corner."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    corners = itertools.product(range(2 * padding + 1), repeat=2)
    return {(i, j): padded[i : i + height, j : j + width] for i, j in corners}


def corners_of(cropped, padding):
    found = []
    for image, result in zip(np.asarray(IMAGES), cropped, strict=True):
        matching = [corner for corner, crop in crops(image, padding).items() if np.array_equal(crop, result)]
        assert len(matching) == 1
        found.append(matching[0])
    return found


def test_padded_crop_is_a_window_of_the_padded_image():
    found = corners_of(np.asarray(il.PaddedCrop(2)(KEY, IMAGES)), 2)
    assert len(set(found)) > 5
    assert {i for corner in found for i in corner} == {0, 1, 2, 3, 4}  # every place occurs, the outermost included
    np.testing.assert_array_equal(il.PaddedCrop(0)(KEY, IMAGES), IMAGES)


def test_chain_gives_each_part_a_key_of_its_own():
    first, second = jax.random.split(KEY, 2)
    expected = il.Flip()(second, il.PaddedCrop(1)(first, IMAGES))
    chain = il.Chain(il.PaddedCrop(1), il.Flip())
    np.testing.assert_array_equal(chain(KEY, IMAGES), expected)
    assert not np.array_equal(chain(KEY, IMAGES), chain(jax.random.key(0), IMAGES))


@pytest.mark.parametrize("period", [1, 3])
def test_augmentation_in_training_is_the_same_for_every_drive_and_that_of_a_plain_loop(period):
    loss, augment = il.CrossEntropy(), il.Flip()
    x, y = oracles.data(loss, images=True)

    def apply(params, x):
        return x.reshape(x.shape[0], -1) @ params

    params, optimiser = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3))), optax.sgd(0.3)
    batches = []
    for step, (a, b) in enumerate(oracles.minibatches(x, y, 4)):
        key = jax.random.fold_in(jax.random.fold_in(oracles.KEY, 1), step)
        mirrored = np.asarray(jax.random.bernoulli(key, shape=(len(a),)))
        batches.append((jnp.where(mirrored[:, None, None, None], a[:, :, ::-1], a), b))
    expected = oracles.ordinary_loop(apply, loss, optimiser, params, batches)  # a linear network: any K ends there
    options = {"num_steps": 4, "batch_size": oracles.BATCH, "key": oracles.KEY, "augment": augment}
    problem, solver = il.Problem(apply, loss), il.WeightSpace(optimiser)
    for drive in ("compiled", "host"):
        solution = il.train(problem, solver, il.Every(period), params, (x, y), drive=drive, **options)
        np.testing.assert_allclose(solution.params, expected, atol=1e-13)
    plain = il.train(problem, solver, il.Every(period), params, (x, y), **(options | {"augment": None}))
    assert np.max(np.abs(plain.params - expected)) > 1e-3


@pytest.mark.parametrize("size", [0, -3, 2.5, True])
@pytest.mark.parametrize("kind", [il.Shuffled, il.WithReplacement])
def test_wrong_batch_size_is_refused(kind, size):
    error = ValueError if type(size) is int else TypeError
    with pytest.raises(error, match=r"`batch_size` must be (an integer|at least 1), got .*; pass None"):
        kind(size)
