"""Functions of parameters that close over the rest of a module."""

import abc
from collections.abc import Callable, Hashable
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Array, Shaped

from relin._core.names import some
from relin._core.network import AbstractNetwork
from relin._core.tree import numbers
from relin._core.types import Inputs, Params

Statistics = Literal["frozen", "batch"]
Output = Callable[[Any], Any] | int | str | None


class AbstractApply(AbstractNetwork):
    """`apply(params, x)`: a module that was separated from its parameters, for a batch of inputs.

    The arrays it closes over are its only PyTree leaves, the rest is static. Two of them compare equal, and have equal
    hashes, if their modules have the same architecture and equal closed-over values; so programs compiled for one serve
    the other, be it passed as a static argument of `jax.jit` or as part of a PyTree.
    """

    constants: eqx.AbstractVar[tuple[Shaped[Array, "..."], ...]]

    @abc.abstractmethod
    def combine(self, params: Params) -> Any:
        """What the adapter was given, with these parameters."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wrapped()}, mode={self.mode!r})"

    @abc.abstractmethod
    def _wrapped(self) -> str:
        """The module's class, or what else stands for it on a line."""

    @abc.abstractmethod
    def _architecture(self) -> tuple[Hashable, ...]:
        """What beside the constants makes two of them equal."""

    def __eq__(self, other: object) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        if type(other) is not type(self):
            return NotImplemented
        return self._identity() == other._identity() and all(
            a is b or np.array_equal(numbers(a), numbers(b))
            for a, b in zip(self.constants, other.constants, strict=True)
        )

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Hashable, ...]:
        return self._architecture(), tuple((c.shape, str(c.dtype)) for c in self.constants)


def called(function: Callable[..., Any], x: Inputs) -> Any:
    """`function` of a batch of inputs: a tuple is spread over its arguments, a dictionary over its keywords."""
    if isinstance(x, tuple):
        return function(*x)
    return function(**x) if isinstance(x, dict) else function(x)


def chosen(outputs: Any, output: Output) -> Any:
    """The output that the loss is of: all, an entry or attribute by name, an entry by position, a function's value."""
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    try:
        if isinstance(output, str) and not isinstance(outputs, dict):
            return getattr(outputs, output)
        return outputs[output]
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ValueError(
            f"`output` must name one of the network's outputs, got {output!r} of {_kind(outputs)}; {_TO_DO}"
        ) from None


_TO_DO = "pass a key, a position, or a function of the outputs."


def check_output(output: Any) -> None:
    """Raises `TypeError` unless it can choose an output."""
    if output is not None and not callable(output) and not isinstance(output, int | str):
        raise TypeError(f"`output` must choose one of the network's outputs, got {output!r}; {_TO_DO}")


def check_mode(statistics: Any, dropout: Any) -> None:
    """Raises `ValueError` unless they say how a network is trained."""
    if statistics not in (None, "frozen", "batch"):
        raise ValueError(
            f'`statistics` must be "frozen" or "batch", got {statistics!r}; with "frozen" BatchNorm uses its running '
            'statistics, with "batch" those of each batch.'
        )
    if not isinstance(dropout, bool):
        raise TypeError(f"`dropout` must be True or False, got {dropout!r}; say whether it is on in training.")


def without_counting(parts: Callable[[], dict[str, Any]], run: Callable[[], Any]) -> Any:
    """What `run`, a forward pass, returns. Raises where a number among the attributes of the module's parts, by their
    names, is another one after every pass: a compiled program would keep the first."""
    before = _numbers_of(parts())
    result = run()
    if _changed(before, _numbers_of(parts())):  # once, where a size is remembered
        before = _numbers_of(parts())
        run()
        if counters := _changed(before, _numbers_of(parts())):
            raise ValueError(
                f"The module must leave its numbers as they are, got one whose forward pass changes {some(counters)}, "
                "which a compiled program keeps; hold it in an array that the framework counts among its variables, or "
                "pass it with the inputs."
            )
    return result


def _numbers_of(parts: dict[str, Any]) -> dict[str, int | float]:
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in parts.items()
        for name, value in vars(part).items()
        if type(value) in (int, float)
    }


def _changed(before: dict[str, int | float], after: dict[str, int | float]) -> list[str]:
    return [name for name, value in after.items() if name in before and before[name] != value]


def _kind(outputs: Any) -> str:
    if isinstance(outputs, dict):
        return f"outputs named {some([str(name) for name in outputs])}"
    return f"{len(outputs)} outputs" if isinstance(outputs, tuple | list) else type(outputs).__name__
