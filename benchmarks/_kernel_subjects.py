"""The networks whose kernels are timed, in JAX, and the same in PyTorch."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import relin as il

SHAPES = {"mlp": (784,), "cnn-28": (28, 28, 1), "cnn-32": (32, 32, 3), "resnet18": (32, 32, 3), "transformer": (32,)}
CLASSES = 10
WORDS, MODEL, HEADS, LAYERS = 256, 64, 4, 2
"""Of the Transformer: vocabulary, width, heads, blocks."""


def network(name: str) -> tuple[Callable, Any]:
    """`apply` and parameters."""
    key = jax.random.key(0)
    if name == "transformer":
        return transformer, transformer_params(key)
    options = {"mlp": {"width": 512, "depth": 2}}.get(name, {})
    return il.from_equinox(il.models.build(name.split("-")[0], SHAPES[name], CLASSES, key=key, **options))


def inputs(name: str, number: int) -> jax.Array:
    shape = (number, *SHAPES[name])
    if name == "transformer":
        return jax.random.randint(jax.random.key(1), shape, 0, WORDS)
    return jax.random.normal(jax.random.key(1), shape)


def transformer_params(key: jax.Array) -> dict[str, Any]:
    """Of an encoder whose embedding is also its read-out, over the first words as classes."""

    def matrix(*shape: int) -> jax.Array:
        nonlocal key
        key, own = jax.random.split(key)
        return jax.random.normal(own, shape) / math.sqrt(shape[0])

    def block() -> dict[str, Any]:
        sizes = {"qkv": (MODEL, 3 * MODEL), "out": (MODEL, MODEL), "up": (MODEL, 4 * MODEL), "down": (4 * MODEL, MODEL)}
        return {"norms": jnp.ones((2, MODEL)), **{name: matrix(*shape) for name, shape in sizes.items()}}

    embedding, positions = matrix(WORDS, MODEL), matrix(SHAPES["transformer"][0], MODEL)
    return {"embedding": embedding, "positions": positions, "blocks": [block() for _ in range(LAYERS)]}


def transformer(params: dict[str, Any], words: jax.Array) -> jax.Array:
    x = params["embedding"][words] + params["positions"]
    for block in params["blocks"]:
        x = x + _attention(block, _normalised(x, block["norms"][0]))
        x = x + jax.nn.gelu(_normalised(x, block["norms"][1]) @ block["up"]) @ block["down"]
    return x.mean(axis=1) @ params["embedding"][:CLASSES].T


def _normalised(x: jax.Array, scale: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5) * scale


def _attention(block: dict[str, Any], x: jax.Array) -> jax.Array:
    batch, length, width = x.shape
    q, k, v = jnp.split((x @ block["qkv"]).reshape(batch, length, HEADS, 3 * width // HEADS), 3, axis=-1)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width // HEADS))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width) @ block["out"]


def torch_network(name: str) -> Any:
    """The same network as a PyTorch module, images with channels first; none of the larger two."""
    from torch import nn

    if name == "mlp":
        return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES))
    channels = SHAPES[name][-1]
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )
