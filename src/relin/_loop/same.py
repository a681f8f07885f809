"""When two functions are surely the same: of one library, with the same code and equal values closed over.

`optax.adam(1e-3)` makes functions anew at each call, and Python compares functions by identity: every call would be
compiled again. What is not understood here is compared by identity too, so that functions that differ never compare
equal.
"""

import sys
from collections.abc import Hashable
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

_LIBRARIES = {"optax"}
"""Their functions depend on what they close over alone: no global of theirs is assigned anew."""
_PLAIN: Any = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_MOST_NUMBERS = 1000


class _Itself:
    """An object by identity. Keeps it alive, so that no other takes its place."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def identity(function: Any) -> Any:
    """What compares equal for functions that are surely the same; the value itself if it is no function of a library
    that is known to be pure."""
    if not isinstance(function, FunctionType) or not _is_known(function):
        return function
    return _of_function(function, frozenset())


def _is_known(function: FunctionType) -> bool:
    module = function.__module__ or ""
    own = getattr(sys.modules.get(module), "__dict__", None)
    return module.split(".")[0] in _LIBRARIES and function.__globals__ is own


def _of_function(function: FunctionType, outer: frozenset[int]) -> Hashable:
    if id(function) in outer or not _is_known(function):
        return _Itself(function)
    inside = outer | {id(function)}
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # not assigned yet
        return _Itself(function)
    held = (cells, function.__defaults__, function.__kwdefaults__, vars(function))
    return function.__module__, function.__code__, _of_value(held, inside)


def _of_value(value: Any, outer: frozenset[int]) -> Hashable:
    kind: type[Any] = type(value)
    if kind in _PLAIN:
        return kind, repr(value)  # apart: 0.0 and −0.0, 1 and True
    if kind is FunctionType:
        return _of_function(value, outer)
    if kind in (tuple, list) or (issubclass(kind, tuple) and hasattr(value, "_fields")):
        return kind, tuple(_of_value(part, outer) for part in value)
    if kind is dict:
        return kind, tuple((_of_value(key, outer), _of_value(part, outer)) for key, part in value.items())
    if kind is partial:
        return kind, _of_value((value.func, value.args, value.keywords), outer)
    if kind is np.ndarray or issubclass(kind, np.generic):
        plain = value.dtype.kind in "biufc" and value.size <= _MOST_NUMBERS
        return (kind, value.dtype.str, value.shape, value.tobytes()) if plain else _Itself(value)
    return _Itself(value)
