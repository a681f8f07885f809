"""A strided convolution behind a layer norm, which XLA on a CPU gets wrong under `jit(vmap(vjp))` of the batch from its
64th image on (docs/known-problems.md), compiled as for users."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from ntk_oracle import assert_close, normal, select

from relin.kernel import NTKOperator, features, ntk

pytestmark = pytest.mark.as_shipped

N, C = 20, 4  # 80 images where all outputs go back together
PARAMS = {"b": jnp.zeros((8, 1, 1)), "c": normal(0, 16, 8, 2, 2) / 6, "d": normal(1, 16, C) / 4}
PARAMS, X = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, normal(2, N, 8, 8, 8)))


def network(p, x):
    h = jnp.transpose(x + p["b"][None], (0, 2, 3, 1))
    h = (h - h.mean(-1, keepdims=True)) * jax.lax.rsqrt(h.var(-1, keepdims=True) + 1e-6)
    h = jnp.transpose(h, (0, 3, 1, 2))
    h = jax.lax.conv_general_dilated(h, p["c"], (2, 2), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return jax.nn.relu(h).mean((2, 3)) @ p["d"]


@pytest.fixture(scope="module")
def right():
    """J by tensor, `(N, C, size)`: one compiled pass for one output of one example."""
    single = jax.jit(lambda x, c: jax.vjp(lambda p: network(p, x[None])[0], PARAMS)[1](c)[0])
    made = [[single(x, c) for c in jnp.eye(C, dtype=jnp.float32)] for x in X]
    return {name: np.array([[row[name].reshape(-1) for row in one] for one in made], np.float64) for name in PARAMS}


def test_every_route_to_the_kernel(right):
    parts = {f"['{name}']": np.einsum("ncp,mdp->nmcd", J, J) for name, J in right.items()}
    kernel = sum(parts.values())
    for outputs in ("full", "mean"):
        for name, part in ntk(network, PARAMS, X, outputs=outputs, per_layer=True).items():
            assert_close(part, select(parts[name], outputs), 1e-5)
    assert_close(jax.jit(lambda p: ntk(network, p, X))(PARAMS), kernel, 1e-5)
    flat = kernel.transpose(0, 2, 1, 3).reshape(N * C, N * C)
    assert_close(jax.jit(lambda p: NTKOperator(network, p, X).as_matrix())(PARAMS), flat, 1e-5)
    assert_close(jax.jit(lambda p: lx.diagonal(NTKOperator(network, p, X)))(PARAMS), np.diag(flat), 1e-5)


def test_the_jacobian(right):
    made = jax.jit(lambda p: lx.materialise(features(network, p, X)).pytree)(PARAMS)
    for name, J in right.items():
        assert_close(made[name].reshape(J.shape), J, 1e-5)


def test_a_batch_as_a_whole(right):
    """Made dependent on nothing but the number of examples, so that all of them go through together."""
    made = ntk(lambda p, x: network(p, x) / x.shape[0], PARAMS, X, outputs="mean", coupled=True)
    assert_close(made, select(sum(np.einsum("ncp,mdp->nmcd", J, J) for J in right.values()), "mean") / N**2, 1e-5)
