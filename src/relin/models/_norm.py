"""Normalisation, and convolutions followed by it."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from relin.models._convolution import Convolution
from relin.models._layers import GroupNorm

Norm = Literal["batch", "group", "none"]
NORMS = ("batch", "group", "none")
State = eqx.nn.State | None
BATCH_AXIS = "batch"
_MOMENTUM = 0.9
"""What running statistics keep at each forward pass in training, as is usual."""


class BatchNorm(eqx.Module):
    """`eqx.nn.BatchNorm` of one example, channels last (Ioffe & Szegedy 2015, arXiv:1502.03167).

    Equinox corrects the running mean for its start at 0, and by the same factor the running variance, which starts
    at 1: in the first fifty forward passes the network as it is evaluated has too large a variance.

    **Arguments:**

    - `channels`: C; inputs are `(…, C)`, of one example of a mapped batch.

    **Raises:** `ValueError` when it is called without its state.
    """

    norm: eqx.nn.BatchNorm

    def __init__(self, channels: int):
        self.norm = eqx.nn.BatchNorm(channels, BATCH_AXIS, momentum=_MOMENTUM, mode="batch")

    def __call__(self, x: Float[Array, "*positions C"], state: State) -> tuple[Float[Array, "*positions C"], State]:
        if state is None:
            raise ValueError(
                'A network with norm="batch" must be called with its state; pass it to relin.from_equinox with '
                'statistics="batch" or "frozen".'
            )
        normalised, state = self.norm(jnp.moveaxis(x, -1, 0), state)
        return jnp.moveaxis(normalised, 0, -1), state


def make_norm(norm: Norm, channels: int) -> BatchNorm | GroupNorm | None:
    return {"batch": BatchNorm, "group": GroupNorm, "none": lambda channels: None}[norm](channels)


def normalise(
    layer: BatchNorm | GroupNorm | None, x: Float[Array, "*positions C"], state: State
) -> tuple[Float[Array, "*positions C"], State]:
    """A normalised input and the state after it; the input as it is where there is no normalisation."""
    if isinstance(layer, BatchNorm):
        return layer(x, state)
    return (x if layer is None else layer(x)), state


class NormalisedConvolution(eqx.Module):
    """A convolution, followed by normalisation instead of a bias if the network is normalised."""

    convolution: Convolution
    norm: BatchNorm | GroupNorm | None

    def __init__(self, inputs: int, outputs: int, size: int, norm: Norm, **options: Any):
        self.convolution = Convolution(inputs, outputs, (size, size), use_bias=norm == "none", **options)
        self.norm = make_norm(norm, outputs)

    def __call__(
        self, x: Float[Array, "height width inputs"], state: State
    ) -> tuple[Float[Array, "rows columns outputs"], State]:
        return normalise(self.norm, self.convolution(x), state)


def with_state(outputs: Float[Array, " C"], state: State) -> Any:
    """What a network returns: its outputs, and its state if it was called with one."""
    return outputs if state is None else (outputs, state)
