"""Any sizes give the kernel of the explicit Jacobians."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from ntk_oracle import assert_close, dense, normal, select

from relin.kernel._ntk import ntk

SIZES = st.integers(1, 5)


def apply(p, x):
    """Two layers over positions, the second convolved: x `(batch, positions, inputs)`."""
    h = jnp.tanh(x @ p["w"] + jnp.broadcast_to(p["b"], (*x.shape[:2], p["b"].shape[0])))
    layout = ("NHC", "HIO", "NHC")
    h = jnp.sin(jax.lax.conv_general_dilated(h, p["kernel"], (1,), "SAME", dimension_numbers=layout))
    return h.mean(1) @ p["v"].T


@pytest.mark.slow
@settings(max_examples=7, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=SIZES,
    columns=st.none() | SIZES,
    batch_size=st.none() | st.integers(1, 7),
    positions=SIZES,
    channels=st.tuples(SIZES, SIZES, SIZES, SIZES),
    outputs=st.sampled_from(["full", "mean", "diagonal", 0]),
)
def test_any_sizes(rows, columns, batch_size, positions, channels, outputs):
    inputs, width, depth, classes = channels
    shapes = {"w": (inputs, width), "b": (width,), "kernel": (2, width, depth), "v": (classes, depth)}
    params = {name: normal(seed, *shape) for seed, (name, shape) in enumerate(shapes.items())}
    x1 = normal(4, rows, positions, inputs)
    x2 = None if columns is None else normal(5, columns, positions, inputs)
    made = ntk(apply, params, x1, x2, outputs=outputs, batch_size=batch_size)
    assert_close(made, select(dense(apply, params, x1, x2), outputs))
