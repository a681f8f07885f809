"""The forms of a convolution against each other and against SciPy; the layers against plain formulas."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from relin.models import Convolution, Dense, GroupNorm, initialise
from relin.models._layers import average_pool

CASES = [
    ((9, 2), 3, 1, "SAME"),
    ((10, 2), 4, 2, "SAME"),
    ((10, 1), 5, 2, "VALID"),
    ((3, 2), 5, 2, "SAME"),
    ((7, 6, 2), 3, 1, "SAME"),
    ((7, 6, 2), 3, 2, "SAME"),
    ((6, 8, 1), 5, 1, "VALID"),
    ((9, 8, 3), 2, 2, "VALID"),
    ((8, 8, 3), 1, 2, "SAME"),
]


@pytest.mark.parametrize(("shape", "size", "stride", "padding"), CASES)
def test_patches_are_the_convolution(shape, size, stride, padding):
    """Values, jvp and vjp in weight, bias and input, mapped over a batch."""
    kernel = (size,) * (len(shape) - 1)
    random = np.random.default_rng(0)
    x, v = (jnp.asarray(random.normal(size=(3, *shape))) for _ in range(2))
    layers = {
        form: Convolution(shape[-1], 4, kernel, stride=stride, padding=padding, convolution=form, parametrisation="ntk")
        for form in ("patches", "lax")
    }
    numbers = [random.normal(size=(*kernel, shape[-1], 4)), random.normal(size=4)]

    def outputs(form):
        structure = jax.tree.structure(layers[form])

        def function(arrays, x):
            return jax.vmap(structure.unflatten(arrays))(x)

        def everything(arrays, tangent, x, v):
            y, dy = jax.jvp(function, (arrays, x), (tangent, v))
            return y, dy, jax.vjp(function, arrays, x)[1](jnp.cos(y))

        arrays = [jnp.asarray(n) for n in numbers]
        return jax.tree.leaves(jax.jit(everything)(arrays, [jnp.cos(a) for a in arrays], x, v))

    for patches, lax in zip(outputs("patches"), outputs("lax"), strict=True):
        assert patches.shape == lax.shape
        np.testing.assert_allclose(patches, lax, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["patches", "lax"])
@pytest.mark.parametrize(("shape", "kernel"), [((11, 2), (4,)), ((7, 9, 2), (3, 5))])
def test_convolution_is_scipys_correlation(form, shape, kernel):
    layer = initialise(Convolution(2, 3, kernel, padding="VALID", convolution=form), jax.random.key(1))
    x = np.random.default_rng(0).normal(size=shape)
    weight = np.asarray(layer.weight)
    expected = [
        sum(correlate(x[..., c], weight[..., c, o], mode="valid", method="direct") for c in range(2)) for o in range(3)
    ]
    np.testing.assert_allclose(
        jax.jit(layer.__call__)(jnp.asarray(x)), np.stack(expected, axis=-1), rtol=1e-12, atol=1e-12
    )


def test_auto_is_patches_on_cpu_only(monkeypatch):
    layer = initialise(Convolution(1, 2, (3,)), jax.random.key(0))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(layer)(jnp.ones((8, 1))))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in str(jax.make_jaxpr(layer.__call__)(jnp.ones((8, 1))))


@pytest.mark.parametrize("option", [{"convolution": "patch"}, {"padding": "REFLECT"}, {"parametrisation": "mup"}])
def test_unknown_option_of_a_convolution_is_refused(option):
    with pytest.raises(
        ValueError, match=f"`{next(iter(option))}` must be one of .*, got '{next(iter(option.values()))}'"
    ):
        Convolution(1, 2, (3,), **option)


def test_average_pool_is_the_mean_of_windows():
    x = np.random.default_rng(0).normal(size=(5, 6, 2))
    pooled = average_pool(jnp.asarray(x))
    assert pooled.shape == (2, 3, 2)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(pooled[i, j], x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((0, 1)), rtol=1e-13)


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (9, 1), (64, 32), (32, 16), (48, 16)])
def test_group_norm_normalises_each_group_of_channels(channels, groups):
    norm = GroupNorm(channels)
    assert norm.groups == groups
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(4, 5, channels))
    weight, bias = np.random.default_rng(1).normal(size=(2, channels))
    initial = initialise(norm, jax.random.key(0))
    np.testing.assert_array_equal([initial.weight, initial.bias], [np.ones(channels), np.zeros(channels)])
    y = eqx.tree_at(lambda n: (n.weight, n.bias), initial, (jnp.asarray(weight), jnp.asarray(bias)))(jnp.asarray(x))
    size = channels // groups
    for start in range(0, channels, size):
        part = x[..., start : start + size]
        expected = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        expected = expected * weight[start : start + size] + bias[start : start + size]
        np.testing.assert_allclose(y[..., start : start + size], expected, rtol=1e-12, atol=1e-12)


def test_layers_of_one_draw_are_independent_and_scaled():
    """One key for all layers: no two share numbers, and each has its own deviation."""
    layers = [Dense(40, 30), Dense(40, 30), Dense(40, 30, c_w=2.0, parametrisation="ntk"), Convolution(4, 30, (10,))]
    weights = [np.ravel(layer.weight) for layer in initialise(layers, jax.random.key(0))]
    correlations = np.corrcoef(weights) - np.eye(4)
    assert np.abs(correlations).max() < 4 / math.sqrt(1200)
    for weight, deviation in zip(weights, [40**-0.5, 40**-0.5, 1.0, 40**-0.5], strict=True):
        assert abs(weight.std() / deviation - 1) < 4 / math.sqrt(2400)
    assert layers[2].scale == math.sqrt(2 / 40)


def test_layers_must_be_initialised_before_use():
    for layer, x in (
        (Dense(3, 2), jnp.ones(3)),
        (Convolution(1, 2, (3,)), jnp.ones((8, 1))),
        (GroupNorm(2), jnp.ones((4, 2))),
    ):
        with pytest.raises(
            ValueError, match=r"must be initialised before it is called, got .*; call relin\.models\.initialise"
        ):
            layer(x)
