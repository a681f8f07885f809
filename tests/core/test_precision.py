"""Half precision, and optimisers that ask for more than the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

X, Y = oracles.data(il.CrossEntropy())


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_running_loss_of_many_half_precision_steps_is_a_mean(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), oracles.mlp_params())
    x, y = X.astype(dtype), Y
    still = il.WeightSpace(optax.sgd(0.0))
    problem = il.Problem(oracles.mlp, il.CrossEntropy())
    observers = [il.Performance((x, y)), il.Movement()]
    solution = il.train(
        problem, still, il.Every(7), params, (x, y), num_steps=3000, key=oracles.KEY, observers=observers
    )
    # Nothing moves, so the mean of the losses is the loss.
    np.testing.assert_allclose(solution.records["training_loss"][-1], solution.records["test_loss"][-1], rtol=2e-2)
    assert solution.records["training_loss"].dtype == solution.records["test_accuracy"].dtype == np.float32
    assert jax.tree.leaves(solution.params)[0].dtype == dtype


def test_a_norm_of_large_half_precision_numbers_is_finite():
    params = {"w": jnp.full(24, 100.0, jnp.float16)}
    solution = il.train(
        il.Problem(lambda p, x: x @ p["w"][:, None] * 1e-4, il.SquaredError()),
        il.WeightSpace(optax.sgd(1.0)),
        il.Never(),
        params,
        (jnp.ones((4, 24), jnp.float16), jnp.zeros((4, 1), jnp.float16)),
        num_steps=3,
        key=oracles.KEY,
        observers=[il.Movement()],
    )
    moved = float(jnp.linalg.norm(solution.displacement["w"].astype(jnp.float32)))
    assert moved > 0
    np.testing.assert_allclose(solution.records["displacement_norm"][-1], moved, rtol=1e-3)
    np.testing.assert_allclose(solution.records["parameter_movement"][-1], moved / (100 * 24**0.5), rtol=1e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_an_optimiser_that_asks_for_the_loss_is_given_it(k):
    optimiser = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=2, factor=0.5, rtol=0.9))
    problem = il.Problem(oracles.mlp, il.CrossEntropy())
    data = X, Y
    solution = il.train(
        problem, il.WeightSpace(optimiser), il.Every(k), oracles.mlp_params(), data, num_steps=12, key=oracles.KEY
    )
    assert float(solution.optimiser_state[-1].scale) < 1  # no loss falls by nine tenths a step: the rate was reduced
    if k == 1:
        params, state = oracles.mlp_params(), optimiser.init(oracles.mlp_params())
        for _ in range(12):
            loss, gradient = jax.value_and_grad(lambda p: problem.loss.mean(oracles.mlp(p, data[0]), data[1]))(params)
            updates, state = optimiser.update(gradient, state, params, value=loss)
            params = optax.apply_updates(params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), solution.params, params)


def test_integer_one_hot_targets_can_be_smoothed():
    outputs, hot = oracles.mlp(oracles.mlp_params(), X), jax.nn.one_hot(Y, 3, dtype=int)
    loss = il.CrossEntropy(label_smoothing=0.1)
    np.testing.assert_allclose(loss(outputs, hot), loss(outputs, Y), rtol=1e-12)
