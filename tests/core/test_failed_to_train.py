"""Runs whose loss stayed at that of a constant predictor, and what a constant predictor can do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.optimize import minimize

import relin as il

N, C = 48, 4
X = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
Y = np.random.default_rng(1).choice(C, N, p=[0.5, 0.3, 0.1, 0.1])
KEY = jax.random.key(0)


def best_constant(loss, shape, targets):
    """min_c mean ℓ(c, y) by minimising it."""
    with jax.enable_x64(True):
        targets = jnp.asarray(targets)

        def mean(c):
            return loss.mean(jnp.broadcast_to(c.reshape(1, *shape[1:]), shape), targets)

        return float(minimize(mean, jnp.zeros(int(np.prod(shape[1:]))), method="BFGS", tol=1e-10).fun)


RANDOM = np.random.default_rng(2)
TOKENS = RANDOM.integers(0, 3, (N, 2))
SOFT = RANDOM.dirichlet(np.ones(C), N)
VALUES = RANDOM.normal(2.0, 3.0, (N, 2))


@pytest.mark.parametrize(
    ("loss", "shape", "targets"),
    [
        (il.CrossEntropy(), (N, C), Y),
        (il.CrossEntropy(label_smoothing=0.2), (N, C), Y),
        (il.CrossEntropy(), (N, C), SOFT),
        (il.CrossEntropy(), (N, 6), TOKENS),  # two positions of three classes each
        (il.CrossEntropy(), (N, 2, 3), TOKENS),
        (il.SquaredError(), (N, 2), VALUES),
        (il.SquaredError(), (N, C), Y),
        (il.SquaredError(), (N, 2, 3), TOKENS),
    ],
)
def test_the_best_constant_predictor_is_the_least_over_all_constants(loss, shape, targets):
    found = loss.constant_loss(jax.ShapeDtypeStruct(shape, jnp.float32), targets)
    assert found == pytest.approx(best_constant(loss, shape, targets), rel=1e-6)


def test_what_a_loss_does_not_say_is_not_judged():
    shape = jax.ShapeDtypeStruct((N, C), jnp.float32)
    assert il.CrossEntropy().constant_loss(shape, np.full(N, -100)) is None
    assert il.CrossEntropy().constant_loss(shape, np.zeros((N, 3), np.float32)) is None

    class Own(il.CrossEntropy):
        def constant_loss(self, outputs, targets):
            return None

    solution = trained(dead(), 30, loss=Own())
    assert (solution.result, solution.constant_loss) == (il.Result.successful, None)


def apply(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["v"] + params["b"][None]


def dead():
    """No hidden unit is ever active."""
    return {"w": jnp.zeros((5, 3)), "v": jnp.ones((3, C)), "b": jnp.zeros(C)}


def alive():
    return {"w": jnp.asarray(X[:3].T), "v": jnp.zeros((3, C)), "b": jnp.zeros(C)}


LABELS = jnp.argmax(apply(alive() | {"v": jnp.asarray(X[:3, :C])}, X), axis=1)


def trained(params, num_steps, loss=il.CrossEntropy(), y=LABELS, data=None, rate=0.1, **options):  # noqa: B008
    problem, solver = il.Problem(apply, loss), il.WeightSpace(optax.sgd(rate))
    data = (X, y) if data is None else data
    options = {"batch_size": None if isinstance(data, list) else 16, "key": KEY} | options
    return il.train(problem, solver, il.Every(1), params, data, num_steps=num_steps, **options)


@pytest.mark.parametrize("options", [{}, {"record_every": 10}, {"drive": "host"}])
def test_a_dead_network_failed_to_train_and_raises_nothing(options):
    solution = trained(dead(), 100, **options)
    assert solution.result is il.Result.failed_to_train
    p = np.bincount(np.asarray(LABELS), minlength=C) / N
    assert solution.constant_loss == pytest.approx(-np.sum(p[p > 0] * np.log(p[p > 0])))
    assert solution.final_loss == pytest.approx(solution.constant_loss, rel=0.1)
    assert "failed to train" in repr(solution)
    assert f"{solution.constant_loss:.4g}" in repr(solution)
    alone = trained(alive(), 100, rate=0.5, **options)
    assert alone.result is il.Result.successful
    assert alone.final_loss < 0.9 * alone.constant_loss


def test_the_last_tenth_decides_where_nothing_was_recorded_on_the_way():
    far = alive() | {"b": jnp.asarray([0.0, 60.0, 0.0, 0.0])}  # the mean over all steps is far above a constant's
    whole, recorded = trained(far, 100, rate=1.0), trained(far, 100, rate=1.0, record_every=90)
    assert whole.records["training_loss"][-1] > whole.constant_loss
    assert whole.result is il.Result.successful
    assert whole.final_loss == pytest.approx(float(recorded.records["training_loss"][-1]), rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, whole.params, recorded.params)


def test_what_is_not_judged():
    batches = [(X[:16], LABELS[:16]), (X[16:32], LABELS[16:32])]
    for solution in (trained(dead(), 20, data=batches), trained(dead(), 1), trained(dead(), 20, y=0 * LABELS)):
        assert (solution.result, solution.final_loss) == (il.Result.successful, None)


def test_lanes_are_judged_one_by_one():
    def make(lane):
        params = jax.tree.map(lambda a, b: jnp.where(lane, a, b), alive(), dead())
        problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.5))
        return il.Run(problem, solver, il.Every(1), params, KEY)

    ends = il.train_lanes(make, jnp.asarray([True, False]), (X, LABELS), num_steps=60, batch_size=16)
    assert [end.result for end in ends] == [il.Result.successful, il.Result.failed_to_train]


def test_a_solution_keeps_what_it_was_judged_by(tmp_path):
    solution = trained(dead(), 20)
    again = il.load(solution.save(tmp_path), dead())
    for name in ("result", "final_loss", "constant_loss"):
        assert getattr(again, name) == getattr(solution, name)
