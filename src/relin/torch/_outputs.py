"""Tensors in a module's inputs and outputs: in tuples, lists, dictionaries, dataclasses, and what PyTorch registers."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """The real and complex floating-point tensors in a tree, those in its dataclasses too."""
    for leaf in [tree] if isinstance(tree, Tensor) else _pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            if _is_inexact(leaf):
                yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            for field in dataclasses.fields(leaf):
                yield from tensors_of(getattr(leaf, field.name))


def mapped(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """A copy of a module's outputs with the function of each real or complex floating-point tensor.

    **Raises:** `TypeError` for an output that holds tensors where they are not found.
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf) if _is_inexact(leaf) else leaf
        if isinstance(leaf, _PLAIN):
            return leaf
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            made = copy.copy(leaf)
            for field in dataclasses.fields(leaf):
                object.__setattr__(made, field.name, mapped(function, getattr(leaf, field.name)))
            return made
        if _holds_tensors(leaf, 4):
            raise TypeError(
                "A linearised module must return tensors, or tuples, lists, dictionaries or dataclasses of them, got "
                f"{type(leaf).__name__}, which holds some of its own; leave it out, such as with use_cache=False."
            )
        return leaf

    return one(tree) if isinstance(tree, Tensor) else _pytree.tree_map(one, tree)


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _holds_tensors(value: Any, depth: int) -> bool:
    if isinstance(value, Tensor):
        return _is_inexact(value)
    if isinstance(value, _PLAIN) or depth == 0:
        return False
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    return any(_holds_tensors(part, depth - 1) for part in parts)
