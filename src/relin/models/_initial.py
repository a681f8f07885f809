"""Initialisation: layers say what their arrays start at, and a whole network draws them at once."""

import dataclasses
import itertools
import math
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from relin.models._checks import check_choice

PARAMETRISATIONS = ("standard", "ntk")
Layers = TypeVar("Layers", bound=PyTree)


@dataclasses.dataclass(frozen=True)
class Initial:
    """Stands for an array until `initialise` draws it, from N(mean, deviation²)."""

    shape: tuple[int, ...]
    deviation: float = 0.0
    mean: float = 0.0


def initialise(layers: Layers, key: PRNGKeyArray) -> Layers:
    """Layers, or any PyTree of them, with their arrays drawn.

    All of them come from one draw in one small program: one draw for each array would cost more than ten seconds of
    compilation for ResNet18.

    **Arguments:**

    - `layers`: the layers, as they are built, without numbers.
    - `key`: of the draw.
    """
    leaves, structure = jax.tree.flatten(layers)
    arrays = iter(_draw(key, tuple(leaf for leaf in leaves if isinstance(leaf, Initial))))
    return jax.tree.unflatten(structure, [next(arrays) if isinstance(leaf, Initial) else leaf for leaf in leaves])


@partial(jax.jit, static_argnums=1)
def _draw(key: PRNGKeyArray, initials: tuple[Initial, ...]) -> list[Array]:
    sizes = [math.prod(initial.shape) if initial.deviation else 0 for initial in initials]
    *starts, total = itertools.accumulate(sizes, initial=0)
    normal = jax.random.normal(key, (total,))
    return [
        initial.mean + initial.deviation * normal[start : start + size].reshape(initial.shape)
        if size
        else jnp.full(initial.shape, initial.mean, normal.dtype)
        for initial, start, size in zip(initials, starts, sizes, strict=True)
    ]


def ready(array: Float[Array, "..."] | Initial) -> Float[Array, "..."]:
    """The array, if it was drawn."""
    if isinstance(array, Initial):
        raise ValueError(
            f"a layer must be initialised before it is called, got an array of shape {array.shape} that was not drawn; "
            "call relin.models.initialise(layer, key) first."
        )
    return array


def gain(activation: str) -> float:
    """c_w: 2 for ReLU, which halves the second moment (He et al. 2015, arXiv:1502.01852), 1 for others."""
    return 2.0 if activation == "relu" else 1.0


def readout_gain(activation: str, parametrisation: str) -> float:
    """c_w of the last layer: 1 in standard parametrisation (LeCun), as in hidden layers in NTK parametrisation."""
    return gain(activation) if parametrisation == "ntk" else 1.0


def initial_weight(shape: tuple[int, ...], c_w: float, parametrisation: str) -> tuple[Initial, float]:
    """A weight with its outputs on the last axis, and the factor its product with the input is multiplied by.

    Standard: weight ~ N(0, c_w / fan_in), factor 1. NTK (Jacot et al. 2018, arXiv:1806.07572): weight ~ N(0, 1),
    factor √(c_w / fan_in), so that learning rates and kernels do not depend on the width.
    """
    check_choice("parametrisation", parametrisation, PARAMETRISATIONS)
    scale = math.sqrt(c_w / math.prod(shape[:-1]))
    return (Initial(shape, 1.0), scale) if parametrisation == "ntk" else (Initial(shape, scale), 1.0)
