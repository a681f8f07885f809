"""H of a loss with a `hessian_product` of its own, by the compiler as it is shipped: docs/known-problems.md."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relin as il
from relin._solver._spaces import _dense

pytestmark = pytest.mark.as_shipped


class TrueAgainstRest(il.CrossEntropy):
    """The curvature of the right class against the rest, p (1 − p) g gᵀ."""

    def hessian_product(self, outputs, targets, vector):
        own = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        p = jnp.sum(own * jax.nn.softmax(outputs), axis=-1, keepdims=True)
        g = own - jax.nn.softmax(jnp.where(own > 0, -jnp.inf, outputs))
        return p * (1 - p) * g * jnp.sum(g * vector, axis=-1, keepdims=True)


def test_a_dense_hessian_is_right_when_compiled():
    """Without the flag that relin sets it was wrong by 0.3 here, on CPUs."""
    random = np.random.default_rng(0)
    f, y = random.normal(size=(1000, 10)).astype(np.float32), random.integers(0, 10, 1000)
    found = jax.jit(lambda f, y: _dense(lambda v: TrueAgainstRest().hessian_product(f, y, v), f))(f, y)
    odds = np.exp(f.astype(np.float64))
    rows, own = np.arange(1000), np.eye(10)[y]
    p = (odds[rows, y] / odds.sum(axis=1))[:, None, None]
    others = np.where(own > 0, 0, odds)
    g = own - others / others.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, p * (1 - p) * g[:, :, None] * g[:, None, :], atol=1e-6)
