"""Equinox modules as `(apply, params)`."""

import inspect
from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from relin.adapters._closed import AbstractApply
from relin.adapters._trainable import PartialApply, Trainable, restricted


class EquinoxApply(AbstractApply):
    """`apply(params, x)`: an Equinox module that was separated from its parameters, mapped over a batch.

    Everything but the parameters is closed over, see `AbstractApply`.
    """

    constants: tuple[Shaped[Array, "..."], ...]
    _others: tuple[Hashable, ...] = eqx.field(static=True)
    _structure: Any = eqx.field(static=True)

    def __init__(self, static: PyTree):
        leaves, self._structure = jax.tree.flatten(static)
        self.constants = tuple(leaf for leaf in leaves if _is_array(leaf))
        self._others = tuple(_CONSTANT if _is_array(leaf) else leaf for leaf in leaves)

    def __call__(
        self, params: PyTree[Float[Array, "..."]], x: PyTree[Shaped[Array, "batch ..."]]
    ) -> PyTree[Shaped[Array, "batch ..."]]:
        return jax.vmap(self.combine(params))(x)

    def combine(self, params: PyTree[Float[Array, "..."]]) -> Any:
        """The Equinox module with these parameters, for one example."""
        constants = iter(self.constants)
        leaves = [next(constants) if leaf is _CONSTANT else leaf for leaf in self._others]
        return eqx.combine(params, jax.tree.unflatten(self._structure, leaves))

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._structure, self._others


class _Constant:
    """Holds the place of an array among the static leaves."""

    def __repr__(self) -> str:
        return "<array>"


_CONSTANT = _Constant()


def from_equinox(
    module: eqx.Module, *, trainable: Trainable | None = None
) -> tuple[EquinoxApply | PartialApply, PyTree[Float[Array, "..."]]]:
    """Separates an Equinox module into a function and its parameters.

    It may be called on a module that is being initialised under `jax.jit` or `jax.vmap`, for example one for
    each seed.

    **Arguments:**

    - `module`: maps one example to its outputs, `module(x)`, with no batch axis.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.

    **Returns:** `apply` and `params`. `apply(params, x)` takes inputs with a leading batch axis;
    `apply.combine(params)` is a module again. `params` is the PyTree of the module's floating-point arrays;
    all else, integer and boolean arrays included, is closed over by `apply`.

    **Raises:** `TypeError` if `module` is not a callable Equinox module; `ValueError` if it has no
    floating-point array or needs more than an input: a key, a state (`eqx.nn.BatchNorm`), dropout in training
    mode.
    """
    if not isinstance(module, eqx.Module) or not callable(module):
        raise TypeError(
            f"`module` must be a callable equinox.Module, got {type(module).__name__}; pass functions of "
            "parameters and inputs to relin.Problem as they are."
        )
    _refuse_state(module)
    _refuse_dropout(module)
    _refuse_arguments(module)
    params, static = eqx.partition(module, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise ValueError(
            f"`module` must have at least one floating-point array to train, got {type(module).__name__} with "
            "none; cast its weights to a floating-point dtype."
        )
    return restricted(EquinoxApply(static), params, trainable)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _nodes(module: eqx.Module, kinds: type | tuple[type, ...]) -> list[Any]:
    """All parts of a module that are of a kind; a part inside another one of the kind is found as well."""
    found = []
    remaining: list[Any] = [module]
    while remaining:
        top = remaining.pop()
        for node in jax.tree.leaves(top, is_leaf=lambda n, top=top: n is not top and isinstance(n, kinds)):
            if isinstance(node, kinds):
                found.append(node)
                remaining.append(node)
    return [module, *found] if isinstance(module, kinds) else found


def _refuse_state(module: eqx.Module) -> None:
    for node in _nodes(module, (eqx.nn.StateIndex, eqx.nn.StatefulLayer)):
        if isinstance(node, eqx.nn.StateIndex) or node.is_stateful():
            stateful = [n for n in _nodes(module, eqx.nn.StatefulLayer) if not isinstance(n, eqx.nn.Sequential)]
            raise ValueError(
                f"`module` must be called as module(x) without a state, got {type(module).__name__} with "
                f"{type(stateful[0] if stateful else node).__name__}, which has one; replace it by a "
                "layer without state such as equinox.nn.GroupNorm."
            )


def _refuse_dropout(module: eqx.Module) -> None:
    for node in _nodes(module, eqx.nn.Dropout):
        if not node.inference and not (isinstance(node.p, int | float) and node.p == 0):
            raise ValueError(
                f"`module` must be deterministic, got {type(module).__name__} with Dropout in training "
                "mode, which needs a key; pass equinox.nn.inference_mode(module)."
            )


def _refuse_arguments(module: Any) -> None:
    parameters = inspect.signature(module.__call__).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional[1:] if p.default is p.empty]
    required += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_input = positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required or not takes_input:
        extra = f"needs {', '.join(f'`{name}`' for name in required)} as well" if required else "takes no input"
        raise ValueError(
            f"`module` must be called as module(x), got {type(module).__name__}, which {extra}; wrap it in "
            "a module whose `__call__` takes the input only."
        )
