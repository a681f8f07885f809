"""What observers record, against dense Jacobians and plain formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

LOSS = il.CrossEntropy()
OPTIMISER = optax.sgd(0.5)
STEPS, PERIOD = 7, 4
X, Y = oracles.data(LOSS)


def trained(observers, **options):
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY} | options
    problem, solver = il.Problem(oracles.mlp, LOSS), il.WeightSpace(OPTIMISER)
    return il.train(problem, solver, il.Every(PERIOD), oracles.mlp_params(), (X, Y), observers=observers, **options)


def states(steps):
    """The dense oracle's (θ_t, θ_s, δ_t) after each number of steps."""
    batches = oracles.minibatches(X, Y, STEPS)

    def due(step, now):
        return step % PERIOD == 0

    return [oracles.dense_loop(oracles.mlp, LOSS, OPTIMISER, oracles.mlp_params(), batches[:n], due)[:3] for n in steps]


def log_loss(outputs):
    outputs = np.asarray(outputs)
    log_p = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    return -np.mean(log_p[np.arange(len(Y)), np.asarray(Y)])


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_records_equal_dense_formulas(drive):
    observers = (il.Performance((X, Y), "train"), il.LinearisationError(X), il.Movement())
    solution = trained(observers, record_every=3, drive=drive)
    records, steps = solution.records, [0, 3, 6, 7]
    assert records["step"].tolist() == steps
    assert records["feature_updates"].tolist() == [0, 0, 1, 1]
    dense, start = oracles.dense_of(oracles.mlp), oracles.flat(oracles.mlp_params())
    for row, (params, anchor, displacement) in enumerate(states(steps)):
        outputs = dense.linearised(anchor, displacement, X), dense.value(params, X), dense.value(anchor, X)
        linearised, network, at_anchor = (np.asarray(output) for output in outputs)
        moved = np.linalg.norm(network - at_anchor)
        expected = {
            "train_loss": log_loss(linearised),
            "network_train_loss": log_loss(network),
            "train_accuracy": np.mean(np.argmax(linearised, 1) == np.asarray(Y)),
            "network_train_accuracy": np.mean(np.argmax(network, 1) == np.asarray(Y)),
            "linearisation_error": np.linalg.norm(network - linearised) / moved if moved else 0.0,
            "parameter_movement": np.linalg.norm(params - start) / np.linalg.norm(start),
            "displacement_norm": np.linalg.norm(displacement),
        }
        assert set(records) == {"step", "feature_updates", "training_loss", *expected}
        for name, value in expected.items():
            assert abs(records[name][row] - value) < 1e-9, name
    assert records["linearisation_error"][1] > 1e-3
    assert abs(records["train_loss"][1] - records["network_train_loss"][1]) > 1e-4


@pytest.mark.parametrize("drive", ["compiled", "host"])
@pytest.mark.parametrize("size", [5, 6])
def test_pieces_change_no_measurement(size, drive):
    """Twelve examples in pieces that do and do not divide them."""
    whole = (il.Performance((X, Y)), il.LinearisationError(X))
    pieces = (il.Performance((X, Y), chunk_size=size), il.LinearisationError(X, chunk_size=size))
    one, other = trained(whole, num_steps=3, drive=drive), trained(pieces, num_steps=3, drive=drive)
    for name, column in one.records.items():
        np.testing.assert_allclose(column, other.records[name], atol=1e-13, err_msg=name)


def test_measurements_in_pieces_see_each_example_once():
    seen = []

    def apply(params, x):
        seen.append(x.shape[0])
        return oracles.mlp(params, x)

    problem, observer = il.Problem(apply, LOSS), il.Performance((X, Y), chunk_size=5)
    context = il.Context(problem, oracles.mlp_params(), oracles.mlp_params(), 0, 0)
    record, _ = observer.compute(context, ())
    assert set(seen) == {5, 2}
    assert set(record) == {"test_loss", "test_accuracy", "network_test_loss", "network_test_accuracy"}


def test_outputs_that_are_not_finite_count_as_wrong():
    problem = il.Problem(lambda params, x: x @ params, LOSS)
    params = jnp.full((oracles.NUM_INPUTS, oracles.NUM_CLASSES), jnp.nan)
    context = il.Context(problem, params, jnp.zeros_like(params), 0, 0)
    record, _ = il.Performance((X, Y)).compute(context, ())
    assert record["test_accuracy"] == 0
    assert record["network_test_accuracy"] == 0


class LargestStride(il.AbstractObserver):
    """A user's observer: how often it was asked, and the first anchor."""

    def init(self, context):
        return jnp.zeros((), int), context.anchor

    def compute(self, context, state):
        count, first = state
        distance = jnp.max(jnp.abs(context.anchor["w"] - first["w"]))
        return {"asked": count, "anchor_distance": distance}, (count + 1, first)


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_a_users_observer_with_a_state(drive):
    solution = trained((LargestStride(),), record_every=2, drive=drive)
    assert solution.records["asked"].tolist() == [0, 1, 2, 3, 4]
    anchors = [anchor for _, anchor, _ in states([7])]
    first = oracles.mlp_params()["w"]
    names = np.abs(np.asarray(solution.anchor["w"]) - np.asarray(first)).max()
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchors[0], atol=1e-10)
    np.testing.assert_allclose(solution.records["anchor_distance"], [0, 0, 0, names, names], atol=1e-15)


@pytest.mark.parametrize(
    ("num_steps", "record_every", "steps"),
    [(6, 3, [0, 3, 6]), (7, 3, [0, 3, 6, 7]), (7, None, [0, 7]), (2, 5, [0, 2]), (1, 1, [0, 1])],
)
def test_steps_of_the_records(num_steps, record_every, steps):
    problem = il.Problem(lambda params, x: x @ params, il.SquaredError())
    params, x = jnp.ones((2, 2)), jnp.eye(2)
    told = []
    options = {"num_steps": num_steps, "record_every": record_every, "key": oracles.KEY}
    solution = il.train(
        problem,
        il.WeightSpace(OPTIMISER),
        il.Every(2),
        params,
        (x, x),
        progress=lambda done, total: told.append((done, total)),
        **options,
    )
    assert solution.records["step"].tolist() == steps
    assert told == [(step, num_steps) for step in steps[1:]]
    assert np.isnan(solution.records["training_loss"]).tolist() == [True] + [False] * (len(steps) - 1)
