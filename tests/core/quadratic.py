"""The dense quadratic model of a loss, and one Gauss–Newton step to hold against it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import relin as il
from core import oracles

SQUARED, ENTROPY = il.SquaredError(), il.CrossEntropy()


class Huber(il.AbstractLoss):
    """Without curvature, but not without slope, where |f − y| > 1."""

    def __call__(self, outputs, targets):
        size = jnp.abs(outputs - targets)
        return jnp.sum(jnp.where(size < 1, 0.5 * size**2, size - 0.5), axis=-1)

    def correct(self, outputs, targets):
        return None


HUBER = Huber()


def derivatives(loss, outputs, y):
    """∂ℓ/∂f and ∂²ℓ/∂f² of every example in closed form, `(N, C)` and `(N, C, C)`."""
    outputs, y, eye = np.asarray(outputs), np.asarray(y), np.eye(outputs.shape[1])
    if loss is ENTROPY:
        exp = np.exp(outputs - outputs.max(1, keepdims=True))
        p = exp / exp.sum(1, keepdims=True)
        return p - eye[y], p[:, :, None] * (eye - p[:, None, :])
    if loss is SQUARED:
        return outputs - y, np.broadcast_to(eye, (*outputs.shape, len(eye)))
    return np.clip(outputs - y, -1, 1), (np.abs(outputs - y) < 1)[:, :, None] * eye


def values(loss, outputs, y):
    return float(loss.mean(outputs, y) if loss is HUBER else oracles.mean_loss(loss, outputs, y))


class Model:
    """The dense quadratic model of the loss at θ."""

    def __init__(self, loss, theta, x, y):
        dense = oracles.dense_of(oracles.mlp)
        self.jacobian, self.outputs = (np.asarray(f(theta, x)) for f in (dense.jacobian, dense.value))
        self.cotangent, self.hessian = derivatives(loss, self.outputs, y)
        self.gradient = np.einsum("ncp,nc->p", self.jacobian, self.cotangent) / len(x)
        self.gauss_newton = np.einsum("ncp,ncd,ndq->pq", self.jacobian, self.hessian, self.jacobian) / len(x)

    def step(self, damping):
        if damping == 0:
            return -np.linalg.pinv(self.gauss_newton, rcond=1e-12) @ self.gradient
        return -np.linalg.solve(self.gauss_newton + damping * np.eye(len(self.gradient)), self.gradient)

    def decrease(self, step):
        return -(self.gradient @ step + 0.5 * step @ self.gauss_newton @ step)


def duplicated(loss, count=4):
    """Each example twice: Θ and G are singular for every loss, also among as many directions as there are outputs."""
    x, y = oracles.data(SQUARED if loss is HUBER else loss)
    return jnp.concatenate([x[:count]] * 2), jnp.concatenate([y[:count]] * 2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def stepped(loss, options, damping, params, x, y):
    solver = il.GaussNewton(damping, **dict(options))
    state, value = solver.step(il.Problem(oracles.mlp, loss), solver.init(params), x, y)
    return state.displacement, solver.measures(state), value


def one_step(loss, damping, data, params=None, **options):
    params = oracles.mlp_params() if params is None else params
    displacement, measures, value = stepped(loss, tuple(options.items()), damping, params, *data)
    return oracles.flat(displacement), {name: float(number) for name, number in measures.items()}, float(value)


def assert_near(found, wanted, tolerance):
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)
