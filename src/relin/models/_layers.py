"""Dense layers, normalisation, pooling and activations."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from relin.models._initial import Initial, initial_weight, ready

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "erf": jax.scipy.special.erf,
    "tanh": jnp.tanh,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


def affine(
    product: Float[Array, "*positions C"], scale: float, bias: Float[Array, " C"] | Initial | None
) -> Float[Array, "*positions C"]:
    """scale · product + bias, as the last part of a layer."""
    if scale != 1.0:
        product = product * scale
    return product if bias is None else product + jnp.broadcast_to(ready(bias), product.shape)


class Dense(eqx.Module):
    """x ↦ √(c_w / fan_in) x W + b in NTK parametrisation, x W + b in the standard one; b starts at zero.

    Its arrays are drawn by `initialise`.

    **Arguments:**

    - `inputs`, `outputs`: the sizes; called with x `(inputs,)` it gives `(outputs,)`.
    - `c_w`: the variance of the weights, times fan_in.
    - `parametrisation`: `"standard"`, or `"ntk"`, in which the factor √(c_w / fan_in) is outside the weights.
    """

    weight: Float[Array, "inputs outputs"] | Initial
    bias: Float[Array, " outputs"] | Initial
    scale: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, c_w: float = 1.0, parametrisation: str = "standard"):
        self.weight, self.scale = initial_weight((inputs, outputs), c_w, parametrisation)
        self.bias = Initial((outputs,))

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return affine(x @ ready(self.weight), self.scale, self.bias)


class GroupNorm(eqx.Module):
    """Group normalisation of one example, channels last (Wu & He 2018, arXiv:1803.08494).

    `groups` is lowered to the largest of its divisors that leaves groups of equal size and more than one channel.
    Its arrays are drawn by `initialise`.

    **Arguments:**

    - `channels`: C; inputs are `(…, C)`, of one example.
    - `groups`: at most so many.
    - `epsilon`: added to the variance.
    """

    weight: Float[Array, " C"] | Initial
    bias: Float[Array, " C"] | Initial
    groups: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, *, groups: int = 32, epsilon: float = 1e-5):
        self.weight = Initial((channels,), mean=1.0)
        self.bias = Initial((channels,))
        # Narrow networks have fewer groups, never uneven ones, and no group of one channel, which would be constant
        # where only one position is left.
        divisors = (n for n in range(1, channels) if channels % n == groups % n == 0)
        self.groups = max(divisors, default=1)
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*positions C"]) -> Float[Array, "*positions C"]:
        grouped = x.reshape(-1, self.groups, x.shape[-1] // self.groups)
        centred = grouped - grouped.mean(axis=(0, 2), keepdims=True)
        variance = jnp.square(centred).mean(axis=(0, 2), keepdims=True)
        normalised = (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        weight, bias = (jnp.broadcast_to(ready(array), x.shape) for array in (self.weight, self.bias))
        return normalised * weight + bias


class LayerNorm(eqx.Module):
    """Layer normalisation over the channels of every position (Ba et al. 2016, arXiv:1607.06450).

    **Arguments:**

    - `channels`: C; inputs are `(…, C)`.
    - `epsilon`: added to the variance.

    Its arrays are drawn by `initialise`.
    """

    weight: Float[Array, " C"] | Initial
    bias: Float[Array, " C"] | Initial
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        self.weight, self.bias = Initial((channels,), mean=1.0), Initial((channels,))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*positions C"]) -> Float[Array, "*positions C"]:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        weight, bias = (jnp.broadcast_to(ready(array), x.shape) for array in (self.weight, self.bias))
        return centred * jax.lax.rsqrt(variance + self.epsilon) * weight + bias


def average_pool(x: Float[Array, "*positions C"], size: int = 2) -> Float[Array, "*pooled C"]:
    """Means over disjoint windows of `size` positions along every axis but the last; remainders are dropped.

    A reshape and a mean: XLA on CPU is slow in the gradient of `reduce_window`, above all inside a loop.
    """
    positions = [n // size for n in x.shape[:-1]]
    whole = x[tuple(slice(n * size) for n in positions)]
    split = whole.reshape(*(n for pooled in positions for n in (pooled, size)), x.shape[-1])
    return split.mean(axis=tuple(range(1, 2 * len(positions), 2)))


def max_pool(x: Float[Array, "*positions C"], size: int = 2) -> Float[Array, "*pooled C"]:
    """The largest value of each of the disjoint windows of `size` positions along every axis but the last of `x`,
    `(…, C)`; remainders are dropped.

    By pairs: the derivative of a maximum over an axis divides by how many entries equal it, which is nothing where the
    compiler rounds them once more.
    """
    for axis in range(x.ndim - 1):
        whole = jax.lax.slice_in_dim(x, 0, x.shape[axis] // size * size, axis=axis)
        parts = [jax.lax.slice_in_dim(whole, start, None, size, axis) for start in range(size)]
        x = functools.reduce(jnp.maximum, parts)
    return x


def global_average_pool(x: Float[Array, "*positions C"]) -> Float[Array, " C"]:
    return x.mean(axis=tuple(range(x.ndim - 1)))
