"""The second-order expansion between two re-linearisations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import relin as il
from core import oracles
from core.oracles import KEY

LOSSES = [il.CrossEntropy(), il.SquaredError()]
PARAMS = oracles.mlp_params()
FLAT, UNFLATTEN = ravel_pytree(PARAMS)
DIRECTION = jnp.asarray(np.random.default_rng(5).normal(size=FLAT.shape))


@pytest.mark.parametrize("order", [1, 2])
def test_the_error_falls_with_the_power_after_the_order(order):
    x, _ = oracles.data(il.SquaredError())
    expansion = il.Linearisation(oracles.mlp, PARAMS, il.Taylor(order))

    def error(epsilon):
        delta = UNFLATTEN(epsilon * DIRECTION)
        return jnp.linalg.norm(expansion.network(delta, x) - expansion.value(delta, x))

    slope = math.log10(error(1e-2) / error(1e-3))
    assert slope == pytest.approx(order + 1, abs=0.05)


def trained(loss, schedule, order=2, num_steps=7, **options):
    solver = options.pop("solver", il.WeightSpace(optax.sgd(0.05, momentum=0.9)))
    problem = il.Problem(oracles.mlp, loss, il.Taylor(order))
    return il.train(problem, solver, schedule, PARAMS, oracles.data(loss), num_steps=num_steps, key=KEY, **options)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("period", [2, 3, 100])
def test_training_is_that_of_a_dense_oracle(loss, period):
    """Dense first and second derivatives of every output, and momentum by hand."""
    x, y = oracles.data(loss)

    def outputs(flat):
        return oracles.mlp(UNFLATTEN(flat), x).ravel()

    anchor, delta, velocity = FLAT, jnp.zeros_like(FLAT), jnp.zeros_like(FLAT)
    for step in range(7):
        if step and step % period == 0:
            anchor, delta = anchor + delta, jnp.zeros_like(FLAT)
        f, first, second = outputs(anchor), jax.jacfwd(outputs)(anchor), jax.jacfwd(jax.jacrev(outputs))(anchor)
        expanded = f + first @ delta + 0.5 * jnp.einsum("kij,i,j->k", second, delta, delta)
        slope = first + jnp.einsum("kij,j->ki", second, delta)
        cotangent = jax.grad(lambda o: oracles.mean_loss(loss, o.reshape(len(x), -1), y))(expanded)
        velocity = 0.9 * velocity + slope.T @ cotangent
        delta = delta - 0.05 * velocity
    solution = trained(loss, il.Every(period))
    np.testing.assert_allclose(ravel_pytree(solution.params)[0], anchor + delta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("drive", ["host", "compiled"])
def test_it_records_what_it_trains(drive):
    loss = il.CrossEntropy()
    observers = [il.Performance(oracles.data(loss)), il.LinearisationError(oracles.data(loss)[0])]
    first, second = (
        trained(loss, il.Never(), order, 40, observers=observers, drive=drive, solver=il.WeightSpace(optax.sgd(0.3)))
        for order in (1, 2)
    )
    assert second.records["linearisation_error"][-1] < first.records["linearisation_error"][-1]
    model = il.Linearisation(oracles.mlp, PARAMS, il.Taylor(2))
    x, y = oracles.data(loss)
    expected = loss.mean(model.value(second.displacement, x), y)
    np.testing.assert_allclose(second.records["test_loss"][-1], expected, rtol=1e-9)


def test_ordinary_training_is_the_same_at_every_order():
    first, second = (trained(il.CrossEntropy(), il.Every(1), order, batch_size=5) for order in (1, 2))
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("solver", [il.FunctionSpace(optax.sgd(0.1)), il.SpectralDescent(0.1), il.GaussNewton(1.0)])
def test_solvers_of_the_linearised_problem_refuse_it(solver):
    with pytest.raises(ValueError, match=r"solves the linearised problem, got Taylor\(order=2\); leave `taylor` out"):
        trained(il.SquaredError(), il.Never(), solver=solver)
    with pytest.raises(ValueError, match=r"`order` must be 1 or 2, got 3; 1 is the linearised network"):
        il.Taylor(3)
