"""Every network of `models`, and a Transformer with a shared embedding, against explicit Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ntk_oracle import assert_close, dense_parts, normal, select

from relin import models
from relin.adapters import from_equinox
from relin.kernel._ntk import ntk

pytestmark = pytest.mark.slow

# name of the network, shape of an example, options, kind of kernel
NETWORKS = [
    ("mlp", (4, 2), {"width": 9, "depth": 2}, "full"),
    ("mlp", (5,), {"width": 9, "depth": 1, "activation": "erf", "parametrisation": "ntk"}, "mean"),
    ("mlp", (5,), {"depth": 0}, "diagonal"),
    ("cnn", (9, 2), {"width": 3, "convolution": "patches", "parametrisation": "ntk"}, "full"),
    ("cnn", (9, 2), {"width": 3, "convolution": "lax"}, "diagonal"),
    ("cnn", (7, 6, 2), {"width": 3, "convolution": "patches"}, 1),
    ("cnn", (7, 6, 2), {"width": 3, "convolution": "lax", "activation": "gelu", "parametrisation": "ntk"}, "full"),
    ("lenet5", (28, 28, 1), {"convolution": "lax"}, "mean"),
    ("resnet18", (6, 6, 1), {"width": 2, "convolution": "lax"}, "full"),
]


@pytest.mark.parametrize(("name", "shape", "options", "outputs"), NETWORKS)
def test_networks(name, shape, options, outputs):
    apply, params = from_equinox(models.build(name, shape, 3, key=jax.random.key(0), **options))
    params = jax.tree.map(lambda a: a + 0.1 * normal(a.size, *a.shape), params)  # no bias at zero, no scale at one
    x1, x2 = normal(1, 3, *shape), normal(2, 2, *shape)
    parts = dense_parts(apply, params, x1, x2)
    made = ntk(apply, params, x1, x2, outputs=outputs, per_layer=True)
    assert made.keys() == parts.keys()
    for path, part in parts.items():
        assert_close(made[path], select(part, outputs))


def transformer(p, tokens):
    """A block of causal attention of two heads, pre-normalisation; the embedding is the read-out too."""
    width, length = p["embedding"].shape[1], tokens.shape[1]

    def normalise(h, scale, shift):
        centred = h - h.mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
        return centred / deviation * scale[None, None] + shift[None, None]

    def attention(h, block):
        q, k, v = jnp.split(h @ block["qkv"], 3, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], 2, -1) for a in (q, k, v))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(width // 2)
        scores = jnp.where(jnp.tril(jnp.ones((1, 1, length, length), bool)), scores, -1e30)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)
        return jnp.einsum("bthd,hde->bte", mixed, block["out"])

    h = p["embedding"][tokens] + p["position"][None, :length]
    for block in p["blocks"]:
        h = h + attention(normalise(h, *block["norm"][:2]), block)
        hidden = jax.nn.gelu(normalise(h, *block["norm"][2:]) @ block["up"] + block["bias"][None, None])
        h = h + hidden @ block["down"]
    return normalise(h, *p["last"])[:, -1] @ p["embedding"].T


def test_transformer_with_a_shared_embedding():
    seeds = iter(range(100))
    draw = lambda *shape: normal(next(seeds), *shape) / np.sqrt(shape[0])  # noqa: E731
    blocks = [
        {
            "qkv": draw(8, 24),
            "out": draw(2, 4, 8),
            "norm": 1 + draw(4, 8),
            "up": draw(8, 16),
            "bias": draw(16),
            "down": draw(16, 8),
        }
        for _ in range(1)
    ]
    params = {"embedding": draw(11, 8), "position": draw(6, 8), "blocks": blocks, "last": 1 + draw(2, 8)}
    rng = np.random.default_rng(0)
    x1, x2 = jnp.asarray(rng.integers(0, 11, (4, 5))), jnp.asarray(rng.integers(0, 11, (2, 5)))
    parts = dense_parts(transformer, params, x1, x2)
    for outputs in ("full", "mean"):
        made = ntk(transformer, params, x1, x2, outputs=outputs, per_layer=True)
        for path, part in parts.items():
            assert_close(made[path], select(part, outputs))
