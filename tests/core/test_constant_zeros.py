"""XLA on CPUs multiplies constant zeros wrongly (docs/known-problems.md): no displacement of ours is one."""

import jax
import jax.numpy as jnp
import optax
import pytest

import relin as il

pytestmark = pytest.mark.as_shipped

X = jax.random.normal(jax.random.key(0), (256, 10, 10, 16), jnp.float32)
PARAMS = {
    "a": jax.random.normal(jax.random.key(1), (16, 16), jnp.float32) / 4,
    "w": jax.random.normal(jax.random.key(2), (400, 120), jnp.float32) / 20,
}


def apply(params, x):
    hidden = jnp.tanh(x @ params["a"]).reshape(len(x), 5, 2, 5, 2, 16)
    return hidden.mean((2, 4)).reshape(len(x), -1) @ params["w"]


PROBLEM = il.Problem(apply, il.SquaredError())


@pytest.mark.parametrize("solver", [il.WeightSpace(optax.sgd(0.1)), il.SpectralDescent(0.1), il.GaussNewton(0.1)])
@pytest.mark.parametrize("relinearised", [False, True])
def test_at_an_anchor_both_predictors_agree(solver, relinearised):
    def outputs(params, x):
        state = solver.init(params)
        state = solver.relinearise(state) if relinearised else state
        return PROBLEM.linearise(state.anchor).value(state.displacement, x)

    found = jax.jit(outputs)(PARAMS, X)
    assert jnp.allclose(found, PROBLEM.apply(PARAMS, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relinearised", [False, True])
def test_the_iterate_that_is_averaged_begins_at_the_anchor(relinearised):
    solver = il.WeightSpace(optax.sgd(0.1), averaging=il.UniformAverage())

    def outputs(params, x):
        state = solver.init(params)
        state = solver.relinearise(state) if relinearised else state
        return PROBLEM.linearise(state.anchor).value(state.iterates.last, x)

    found = jax.jit(outputs)(PARAMS, X)
    assert jnp.allclose(found, PROBLEM.apply(PARAMS, X), rtol=1e-5, atol=1e-5)


def test_sharpness_where_a_program_begins_at_an_anchor():
    targets = jnp.zeros((len(X), 120), jnp.float32)
    solver = il.WeightSpace(optax.sgd(1e-3), rate_cap=il.RateCap(0.5, 1e-3, products=30))
    solution = il.train(
        PROBLEM, solver, 2, PARAMS, (X, targets), num_steps=5, batch_size=256, key=jax.random.key(2), record_every=1
    )
    alone = il.Sharpness((X, targets), tolerance=1e-4)  # not in one program with an anchor's first step
    wanted = il.train(
        PROBLEM,
        il.WeightSpace(optax.sgd(0.0)),
        il.Never(),
        PARAMS,
        (X, targets),
        num_steps=1,
        key=jax.random.key(2),
        observers=[alone],
        drive="host",
    )
    assert jnp.allclose(solution.records["anchor_sharpness"][1], wanted.records["sharpness"][0], rtol=1e-2)
