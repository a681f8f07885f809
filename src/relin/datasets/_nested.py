"""Inputs of several arrays: dictionaries and tuples of them, without JAX."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Inputs = Any
"""An array with the example first, or a dictionary or tuple, nested or not, of such arrays."""


def leaves(tree: Inputs, name: str = "x") -> Iterator[tuple[str, Any]]:
    """Each array with its name, such as `x['left']`."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from leaves(inner, f"{name}[{key!r}]")
    elif isinstance(tree, tuple):
        for number, inner in enumerate(tree):
            yield from leaves(inner, f"{name}[{number}]")
    else:
        yield name, tree


def mapped(function: Callable[[str, Any], Any], tree: Inputs, name: str = "x") -> Inputs:
    """The same structure, with `function(name, array)` for each array."""
    if isinstance(tree, dict):
        return {key: mapped(function, inner, f"{name}[{key!r}]") for key, inner in tree.items()}
    if isinstance(tree, tuple):
        inner = [mapped(function, part, f"{name}[{number}]") for number, part in enumerate(tree)]
        return tree._make(inner) if hasattr(tree, "_make") else tuple(inner)  # pyright: ignore[reportAttributeAccessIssue]
    return function(name, tree)


def selected(tree: Inputs, examples: np.ndarray | slice) -> Inputs:
    """The chosen examples of each array."""
    return mapped(lambda _, array: array[examples], tree)


def num_examples(tree: Inputs) -> int:
    """The number of examples of the first array."""
    return len(next(leaves(tree))[1])
