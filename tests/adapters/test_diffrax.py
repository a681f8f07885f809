"""Neural differential equations of Diffrax: which of its adjoints can be linearised, and what is said of the others."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
import relin.equinox

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
Y = jnp.sin(X)
SGD = il.WeightSpace(optax.sgd(0.1))


class Flow(eqx.Module):
    field: eqx.nn.Linear
    adjoint: diffrax.AbstractAdjoint = eqx.field(static=True)

    def __call__(self, x):
        term = diffrax.ODETerm(lambda t, y, field: jnp.tanh(field(y)))
        solver, controller = diffrax.Heun(), diffrax.PIDController(rtol=1e-3, atol=1e-5)
        options = {"stepsize_controller": controller, "max_steps": 1024, "adjoint": self.adjoint}
        return diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, x, self.field, **options).ys[-1]


def problem(adjoint):
    apply, params = il.from_equinox(Flow(eqx.nn.Linear(2, 2, key=jax.random.key(0)), adjoint))
    return il.Problem(apply, il.SquaredError()), params


@pytest.mark.slow
def test_the_direct_adjoint_trains():
    task, params = problem(diffrax.DirectAdjoint())
    solution = il.train(task, SGD, il.Every(3), params, (X, Y), num_steps=9, key=jax.random.key(0))
    assert solution.final_loss < float(task.loss.mean(task.apply(params, X), Y))
    linearised, delta = il.Linearisation(task.apply, params), jax.tree.map(jnp.ones_like, params)
    forward, same = problem(diffrax.ForwardMode())
    ones = jax.tree.map(jnp.ones_like, same)
    expected = jax.jvp(lambda p: forward.apply(p, X), (same,), (ones,))[1]
    np.testing.assert_allclose(linearised.jvp(delta, X), expected, rtol=1e-10)


def same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_default_adjoint_trains():
    """Its rule is a loop of unknown length, which JAX cannot transpose: J v is forward mode's."""
    (task, params), (direct, same_params) = map(
        problem, (diffrax.RecursiveCheckpointAdjoint(), diffrax.DirectAdjoint())
    )
    found, expected = (
        il.train(p, SGD, il.Every(3), start, (X, Y), num_steps=9, key=jax.random.key(0))
        for p, start in ((task, params), (direct, same_params))
    )
    same(found.params, expected.params)
    ones = jax.tree.map(jnp.ones_like, params)
    forward, start = problem(diffrax.ForwardMode())
    expected = jax.jvp(lambda p: forward.apply(p, X), (start,), (jax.tree.map(jnp.ones_like, start),))[1]
    same(il.Linearisation(task.apply, params).jvp(ones, X), expected)


def test_the_default_adjoint_in_a_loop_of_ones_own():
    def gradient(adjoint):
        model = relin.equinox.Linearised(Flow(eqx.nn.Linear(2, 2, key=jax.random.key(0)), adjoint))
        params = eqx.filter(model, eqx.is_inexact_array)
        model = eqx.apply_updates(model, jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), params))
        loss = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2)))
        return loss(model)

    same(*map(gradient, (diffrax.RecursiveCheckpointAdjoint(), diffrax.DirectAdjoint())))


def test_an_adjoint_that_is_not_the_derivative_is_refused():
    """`BacksolveAdjoint` solves the adjoint equation anew, in steps that depend on the cotangent."""
    task, params = problem(diffrax.BacksolveAdjoint())
    with pytest.raises(ValueError, match="this adjoint is not the solver's derivative; pass") as error:
        il.train(task, SGD, il.Every(3), params, (X, Y), num_steps=3, key=jax.random.key(0))
    assert "\n" not in str(error.value)
