"""Divergence and data that end are outcomes: recorded with their step, with everything computed kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import relin as il
from core import oracles

QUADRATIC = il.Problem(lambda params, x: jnp.exp(x @ params), il.SquaredError())
EYE = jnp.eye(2)
START = jnp.full((2, 2), 0.5)


def first_step_not_finite(apply, rate, params, x, y, num_steps):
    """By a plain gradient descent."""

    @jax.jit
    def step(params):
        loss, gradient = jax.value_and_grad(lambda p: jnp.mean(0.5 * jnp.sum((apply(p, x) - y) ** 2, -1)))(params)
        return params - rate * gradient, loss

    for t in range(num_steps):
        params, loss = step(params)
        if not np.isfinite(loss):
            return t
    return None


@pytest.mark.parametrize("schedule", [il.Every(1), il.Every(jnp.asarray(1))], ids=["ordinary", "traced"])
@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_divergence_is_recorded_where_a_plain_loop_meets_it(schedule, drive):
    expected = first_step_not_finite(QUADRATIC.apply, -0.05, START, EYE, -EYE, 40)
    assert 2 < expected < 30
    options = {"num_steps": 40, "key": oracles.KEY, "record_every": 2, "drive": drive}
    arguments = (QUADRATIC, il.WeightSpace(optax.sgd(-0.05)), schedule, START, (EYE, -EYE))
    solution = il.train(*arguments, throw=False, **options)
    assert solution.result is il.Result.diverged
    assert solution.diverged_at == expected
    assert solution.feature_updates == expected
    last = expected + 2 - expected % 2  # the first record after the divergence, and the last
    assert solution.records["step"].tolist() == list(range(0, last + 1, 2))
    assert np.isfinite(solution.records["training_loss"][1:-1]).all()
    assert not np.isfinite(solution.records["training_loss"][-1])
    with pytest.raises(il.TrainingError, match=f"at step {expected} is not finite; lower the learning rate") as error:
        il.train(*arguments, **options)
    assert error.value.solution.diverged_at == expected
    assert error.value.solution.records.keys() == solution.records.keys()


@pytest.mark.parametrize("static_period", [True, False])
@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_other_lanes_are_unaffected(drive, static_period):
    rates = jnp.asarray([-0.05, 0.01, -0.05, 0.02])

    def make(rate):
        schedule = il.Every(1 if static_period else jnp.asarray(1))
        return il.Run(QUADRATIC, il.WeightSpace(optax.sgd(rate)), schedule, START, oracles.KEY)

    options = {"num_steps": 12, "record_every": 5}
    lanes = il.train_lanes(make, rates, (EYE, -EYE), drive=drive, **options)
    expected = first_step_not_finite(QUADRATIC.apply, -0.05, START, EYE, -EYE, 12)
    assert [lane.diverged_at for lane in lanes] == [expected, None, expected, None]
    assert [lane.feature_updates for lane in lanes] == [expected, 11, expected, 11]
    assert [lane.records["step"].tolist() for lane in lanes][1] == [0, 5, 10, 12]
    assert lanes[0].records["step"][-1] == expected + 5 - expected % 5
    for index in (1, 3):
        params = START
        for _ in range(12):
            f = np.exp(params)
            params = params - float(rates[index]) * np.asarray((f + EYE) * f) / 2
        np.testing.assert_allclose(lanes[index].params, params, atol=1e-12)
        assert lanes[index].result is not il.Result.diverged


def test_when_error_does_not_diverge_where_ordinary_training_does_not():
    """On the handwritten digits, at a rate where long fixed periods do."""
    digits = load_digits()
    x, y = jnp.asarray(digits.data[:400] / 16), jnp.asarray(digits.target[:400])
    random = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(random.normal(size=(64, 24)) / 8),
        "b": jnp.zeros(24),
        "v": jnp.asarray(random.normal(size=(24, 10)) / 5),
    }
    problem, solver = il.Problem(oracles.mlp, il.SquaredError()), il.WeightSpace(optax.sgd(RATE))
    options = {"num_steps": 640, "batch_size": 40, "key": oracles.KEY, "throw": False}
    schedules = {"1": il.Every(1), "64": il.Every(64), "16": il.Every(16), "error": il.WhenError(0.1, 1)}
    ends = {name: il.train(problem, solver, s, params, (x, y), **options) for name, s in schedules.items()}
    results = {name: end.result.value for name, end in ends.items()}
    assert results == {"1": "successful", "16": "diverged", "64": "diverged", "error": "successful"}
    assert ends["error"].records["training_loss"][-1] < 3 * ends["1"].records["training_loss"][-1]
    assert ends["error"].feature_updates < 639


RATE = 0.2


def generated(batches):
    yield from batches


LOSS = il.CrossEntropy()
BATCHES = oracles.minibatches(*oracles.data(LOSS), 6)


PROBLEM, SOLVER = il.Problem(oracles.mlp, LOSS), il.WeightSpace(optax.sgd(0.3, momentum=0.9))


def on_iterable(batches, schedule, num_steps=6, **options):
    options = {"num_steps": num_steps, "key": oracles.KEY} | options
    return il.train(PROBLEM, SOLVER, schedule, oracles.mlp_params(), batches, **options)


@pytest.mark.parametrize("period", [1, 4])
def test_an_iterable_of_the_same_batches_gives_the_same_run(period):
    arrays = on_iterable(oracles.data(LOSS), il.Every(period), batch_size=oracles.BATCH, drive="host")
    for batches in (BATCHES, generated(BATCHES)):
        solution = on_iterable(batches, il.Every(period))
        assert oracles.same_bits(solution.params, arrays.params)
        assert solution.feature_updates == arrays.feature_updates


def test_a_list_begins_again_when_it_ends():
    again = on_iterable(BATCHES[:2], il.Every(2), num_steps=5)
    written_out = on_iterable([BATCHES[i % 2] for i in range(5)], il.Every(2), num_steps=5)
    assert again.result is il.Result.successful
    assert oracles.same_bits(again.params, written_out.params)


@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("record_every", [None, 2, 3])
def test_a_generator_that_ends_leaves_everything_computed(period, record_every):
    solution = on_iterable(generated(BATCHES[:4]), il.Every(period), record_every=record_every, throw=False)
    whole = on_iterable(BATCHES[:4], il.Every(period), num_steps=4)
    assert solution.result is il.Result.data_exhausted
    for part in ("params", "anchor", "displacement", "optimiser_state"):
        assert oracles.same_bits(getattr(solution, part), getattr(whole, part))
    assert np.max(np.abs(oracles.flat(solution.displacement))) > 1e-3
    assert solution.feature_updates == whole.feature_updates
    assert solution.records["step"].tolist() == {None: [0, 4], 2: [0, 2, 4], 3: [0, 3, 4]}[record_every]
    assert np.isfinite(solution.records["training_loss"][1:]).all()
    with pytest.raises(il.TrainingError, match="ended after 4 steps; pass one that can be iterated again") as error:
        on_iterable(generated(BATCHES[:4]), il.Every(period), record_every=record_every)
    assert oracles.same_bits(error.value.solution.params, whole.params)


@pytest.mark.parametrize("period", [1, 2])
def test_no_batch_is_drawn_that_no_step_sees(period):
    remaining = generated(BATCHES)
    on_iterable(remaining, il.Every(period), num_steps=4, record_every=3)
    assert len(list(remaining)) == 2
