"""Training a part of a network's parameters."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Shaped

from relin._core import check as _check
from relin._core.names import check_patterns, matches, parameter_names, some
from relin._core.network import AbstractNetwork, Variables, mode_of
from relin._core.repr import short
from relin._core.types import Inputs, Outputs, Params
from relin.adapters._closed import AbstractApply

Trainable = str | Iterable[str] | Callable[[str, Any], bool]


class PartialApply(AbstractApply):
    """`apply(params, x)`: a network of which some parameters are trained and the others closed over."""

    constants: tuple[Shaped[Array, "..."], ...]
    """The parameters that are not trained."""
    apply: Callable[[Params, Inputs], Outputs]
    _names: tuple[str, ...] = eqx.field(static=True)
    """Of all parameters, in the order of the PyTree."""
    _trained: frozenset[str] = eqx.field(static=True)
    _structure: Any = eqx.field(static=True)

    def __init__(self, apply: Callable[[Params, Inputs], Outputs], params: Params, trained: frozenset[str]):
        leaves, self._structure = jax.tree.flatten(params)
        self.apply, self._names, self._trained = apply, parameter_names(params), trained
        self.constants = tuple(leaf for name, leaf in zip(self._names, leaves, strict=True) if name not in trained)

    def __call__(self, params: dict[str, Float[Array, "..."]], x: Inputs) -> Outputs:
        return self.apply(self.full(params), x)

    @property
    def mode(self) -> str:
        return mode_of(self.apply)

    @property
    def variables(self) -> Variables | None:
        return self.apply.variables if isinstance(self.apply, AbstractNetwork) else None

    def forward(self, params: dict[str, Float[Array, "..."]], x: Inputs) -> tuple[Outputs, Variables | None]:
        if isinstance(self.apply, AbstractNetwork):
            return self.apply.forward(self.full(params), x)
        return self(params, x), None

    def with_variables(self, variables: Variables) -> "PartialApply":
        apply = self.apply.with_variables(variables) if isinstance(self.apply, AbstractNetwork) else self.apply
        return eqx.tree_at(lambda partial: partial.apply, self, apply)

    def full(self, params: dict[str, Float[Array, "..."]]) -> Params:
        """All parameters, in the network's own PyTree."""
        frozen = iter(self.constants)
        leaves = [params[name] if name in self._trained else next(frozen) for name in self._names]
        return jax.tree.unflatten(self._structure, leaves)

    def combine(self, params: dict[str, Float[Array, "..."]]) -> Any:
        """What the network's adapter makes of all parameters; of a plain function, these themselves."""
        full = self.full(params)
        return self.apply.combine(full) if isinstance(self.apply, AbstractApply) else full

    def _wrapped(self) -> str:
        return f"{len(self._trained)} of {len(self._names)} parameters of {short(self.apply)}"

    def _architecture(self) -> tuple[Hashable, ...]:
        return self.apply, self._names, self._trained, self._structure


def trainable(
    apply: Callable[[Params, Inputs], Outputs], params: Params, which: Trainable
) -> tuple[PartialApply, dict[str, Float[Array, "..."]]]:
    """Trains some of a network's parameters and freezes the others at their values.

    **Arguments:**

    - `apply`, `params`: from an adapter, or any function and its parameters.
    - `which`: names of what is trained: one or several patterns as the shell has them, such as `"head.*"`, or a
      predicate of a parameter's name and its array. A name is the path in `params` with dots, such as
      `encoder.layers.0.kernel`.

    **Returns:** `apply` and `params` again: a dictionary from names to the trained arrays. `apply.full(params)` are all
    parameters, `apply.combine(params)` what the network's adapter makes of these.

    **Raises:** `ValueError` if nothing is trained, or a pattern matches no name; `TypeError` if `which` is neither.
    """
    selected = _selected(dict(zip(parameter_names(params), jax.tree.leaves(params), strict=True)), which)
    return PartialApply(apply, params, frozenset(selected)), selected


def restricted(apply: Any, params: Params, which: Trainable | None) -> tuple[Any, Params]:
    """An adapter's result, with `trainable` where it was asked for. Raises unless it can be trained."""
    if which is not None:
        apply, params = trainable(apply, params, which)
    _check.params(params)
    return apply, params


def _selected(named: dict[str, Any], which: Trainable) -> dict[str, Any]:
    if callable(which):
        chosen = {name: leaf for name, leaf in named.items() if which(name, leaf)}
        if not chosen:
            raise ValueError(f"`which` must choose at least one parameter, got none of {some(tuple(named))}.")
        return chosen
    patterns = [which] if isinstance(which, str) else list(which) if isinstance(which, Iterable) else None
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            f'`which` must be patterns of names or a predicate, got {which!r}; pass for example "head.*" or '
            "lambda name, array: array.ndim > 1."
        )
    check_patterns(tuple(named), patterns)
    return {name: leaf for name, leaf in named.items() if any(matches(name, pattern) for pattern in patterns)}
