"""H of one row an example, by the compiler as it is shipped: docs/known-problems.md."""

import jax
import numpy as np
import pytest

from relin._core.loss import OneRowCrossEntropy
from relin._solver._spaces import _dense

pytestmark = pytest.mark.as_shipped


def test_a_dense_hessian_is_right_when_compiled():
    """Without the flag that relin sets it was wrong by 0.3 here, on CPUs."""
    random = np.random.default_rng(0)
    f, y = random.normal(size=(1000, 10)).astype(np.float32), random.integers(0, 10, 1000)
    found = jax.jit(lambda f, y: _dense(lambda v: OneRowCrossEntropy().hessian_product(f, y, v), f))(f, y)
    odds = np.exp(f.astype(np.float64))
    rows, own = np.arange(1000), np.eye(10)[y]
    p = (odds[rows, y] / odds.sum(axis=1))[:, None, None]
    others = np.where(own > 0, 0, odds)
    g = own - others / others.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, p * (1 - p) * g[:, :, None] * g[:, None, :], atol=1e-6)
