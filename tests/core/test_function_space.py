"""Training the dual variable gives the trajectory of training the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

RATE = 0.15
FALLING = optax.exponential_decay(RATE, 1, 0.9)
OPTIMISERS = {
    "sgd": optax.sgd(RATE),
    "momentum": optax.sgd(RATE, momentum=0.8),
    "nesterov": optax.sgd(FALLING, momentum=0.8, nesterov=True),
    "chain": optax.chain(optax.scale(0.5), optax.trace(0.7), optax.trace(0.2), optax.scale_by_learning_rate(FALLING)),
}
LOSSES = {"squares": il.SquaredError(), "entropy": il.CrossEntropy()}
TABLE = [
    # optimiser, loss, schedule, batches, kernel, on_relinearise
    ("sgd", "squares", il.Never(), {}, "dense", "keep"),
    ("momentum", "entropy", il.Every(4), {}, "operator", "keep"),
    ("momentum", "squares", il.Every(5), {"batch_size": 5}, "dense", "keep"),
    ("nesterov", "entropy", il.Geometric(2, 2), {"batch_size": 5}, "auto", "keep"),
    ("nesterov", "entropy", il.Never(), {"batches": il.WithReplacement(7)}, "operator", "keep"),
    ("chain", "entropy", il.WhenError(0.02, 3), {"batches": il.WithReplacement(7)}, "dense", "keep"),
    ("chain", "squares", il.Every(4), {}, "auto", "reset"),
    ("momentum", "entropy", il.Every(4), {"batch_size": 5}, "dense", 0.5),
    ("momentum", "entropy", il.Every(1), {"batch_size": 5}, "dense", "keep"),
]


def trained(solver, loss, schedule, num_steps=13, **options):
    problem = il.Problem(oracles.mlp, loss)
    options = {"key": oracles.KEY} | options
    return il.train(problem, solver, schedule, oracles.mlp_params(), oracles.data(loss), num_steps=num_steps, **options)


@pytest.mark.parametrize(("optimiser", "loss", "schedule", "batches", "kernel", "on"), TABLE)
def test_equals_weight_space(optimiser, loss, schedule, batches, kernel, on):
    optimiser, loss = OPTIMISERS[optimiser], LOSSES[loss]
    options = batches | {"record_every": 6, "observers": [il.Performance(oracles.data(loss))]}
    dual = trained(il.FunctionSpace(optimiser, on, kernel=kernel), loss, schedule, **options)
    weights = trained(il.WeightSpace(optimiser, on), loss, schedule, **options)
    for name in ("params", "anchor", "displacement"):
        found, expected = (oracles.flat(getattr(solution, name)) for solution in (dual, weights))
        np.testing.assert_allclose(found, expected, atol=1e-10)
    assert dual.feature_updates == weights.feature_updates
    for name in ("step", "feature_updates", "training_loss", "test_loss"):
        np.testing.assert_allclose(dual.records[name], weights.records[name], atol=1e-10)
    found, expected = (jax.tree.leaves(solution.optimiser_state) for solution in (dual, weights))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_a_divergence_is_recorded_at_the_same_step_and_lanes_equal_runs_alone():
    loss, hot = il.SquaredError(), 1e4
    options = {"num_steps": 300, "throw": False, "record_every": 100}
    dual, weights = (
        trained(s(optax.sgd(hot)), loss, il.Never(), **options) for s in (il.FunctionSpace, il.WeightSpace)
    )
    assert dual.result is weights.result is il.Result.diverged
    assert dual.diverged_at == weights.diverged_at
    assert dual.records["step"].tolist() == weights.records["step"].tolist() == [0, 100]

    def make(rate):
        solver = il.FunctionSpace(optax.sgd(rate, momentum=0.5))
        return il.Run(il.Problem(oracles.mlp, loss), solver, il.Every(4), oracles.mlp_params(), oracles.KEY)

    lanes = il.train_lanes(make, jnp.asarray([0.1, RATE]), oracles.data(loss), num_steps=9, batch_size=5)
    alone = trained(il.FunctionSpace(optax.sgd(RATE, momentum=0.5)), loss, il.Every(4), 9, batch_size=5)
    np.testing.assert_allclose(oracles.flat(lanes[1].params), oracles.flat(alone.params), atol=1e-13)


def test_a_safeguard_judges_as_in_weight_space():
    loss, options = il.CrossEntropy(), {"safeguard": il.LineSearch(1.0), "batch_size": 5, "num_steps": 12}
    dual, weights = (
        trained(solver(optax.sgd(1.5)), loss, il.Every(4), **options) for solver in (il.FunctionSpace, il.WeightSpace)
    )
    np.testing.assert_allclose(oracles.flat(dual.params), oracles.flat(weights.params), atol=1e-10)
    assert dual.records["safeguard_evaluations"][-1] == weights.records["safeguard_evaluations"][-1] > 0


@pytest.mark.parametrize(
    ("optimiser", "reason"),
    [
        (optax.adam(0.1), "linear in the gradients"),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), "linear in the gradients"),
        (optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1)), "depend on the parameters, as weight decay"),
        (optax.masked(optax.scale(0.1), {"w": True, "b": False, "v": True}), "the same for all parameters"),
        (optax.chain(optax.scale_by_sign(), optax.scale(-0.1)), "linear in the gradients"),
        (optax.lbfgs(0.1, 2, scale_init_precond=False, linesearch=None), "linear in the gradients"),
        (optax.polyak_sgd(0.1), "asks for more, as line searches"),
        (optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), "asks for more, as line searches"),
        (optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True), "asks for more, as line searches"),
    ],
)
def test_other_optimisers_are_refused_with_the_reason(optimiser, reason):
    with pytest.raises(ValueError, match=f"{reason}.*use WeightSpace"):
        trained(il.FunctionSpace(optimiser), il.SquaredError(), il.Never())


def test_refusals():
    with pytest.raises(ValueError, match="`kernel` must be one of 'auto', 'dense', 'operator', got 'sparse'"):
        il.FunctionSpace(optax.sgd(0.1), kernel="sparse")
    with pytest.raises(ValueError, match="`on_relinearise` must be"):
        il.FunctionSpace(optax.sgd(0.1), "forget")
    with pytest.raises(ValueError, match="one by one, got infinitely many; use SpectralDescent"):
        trained(il.FunctionSpace(optax.sgd(0.1)), il.SquaredError(), il.Never(), float("inf"))


def test_the_kernel_is_dense_where_that_is_cheaper():
    """Enough parameters for each BC² of a batch, and enough steps to pay for the kernel."""
    problem = il.Problem(lambda p, x: x @ p, il.SquaredError())
    solver, x = il.FunctionSpace(optax.sgd(0.1)), jnp.ones((10, 30))
    many, few = jnp.ones((30, 3)), jnp.ones((5, 3))
    for params, at_once, count, dense in ((many, 5, 30, True), (many, 6, 30, False), (many, 5, 29, False)):
        assert solver._is_dense(problem, params, x, at_once, count) == dense
    assert not solver._is_dense(problem, few, x[:, :5], 5, 30)
    assert il.FunctionSpace(optax.sgd(0.1), kernel="dense")._is_dense(problem, few, x[:, :5], 5, 1)
