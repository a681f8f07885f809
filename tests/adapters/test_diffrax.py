"""Neural differential equations of Diffrax: which of its adjoints can be linearised, and what is said of the others."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
Y = jnp.sin(X)
SGD = il.WeightSpace(optax.sgd(0.1))


class Flow(eqx.Module):
    field: eqx.nn.Linear
    adjoint: diffrax.AbstractAdjoint = eqx.field(static=True)

    def __call__(self, x):
        term = diffrax.ODETerm(lambda t, y, _: jnp.tanh(self.field(y)))
        solver, controller = diffrax.Heun(), diffrax.PIDController(rtol=1e-3, atol=1e-5)
        options = {"stepsize_controller": controller, "max_steps": 64, "adjoint": self.adjoint}
        return diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, x, **options).ys[-1]


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


def test_the_default_adjoint_is_refused_with_the_one_to_pass():
    """Its rule is a loop of unknown length, which JAX cannot transpose."""
    task, params = problem(diffrax.RecursiveCheckpointAdjoint())
    with pytest.raises(ValueError, match=r"adjoint=diffrax\.DirectAdjoint\(\)\), which is differentiated") as error:
        il.train(task, SGD, il.Every(3), params, (X, Y), num_steps=3, key=jax.random.key(0))
    assert "\n" not in str(error.value)
    assert "Reverse-mode differentiation does not work" in str(error.value)
