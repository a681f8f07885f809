"""Parameters by name: a PyTree's paths with dots, chosen by patterns as the shell has them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import jax

from relin._core.types import Params


def parameter_names(params: Params) -> tuple[str, ...]:
    """The paths of a PyTree's leaves with dots, such as `encoder.layers.0.kernel`, in order.

    **Raises:** `ValueError` if two have the same.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path in paths)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"Parameters must have different names, got two called {twice[0]!r}; leave dots out of keys.")
    return names


def matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern)


def check_patterns(names: Sequence[str], patterns: Sequence[str]) -> None:
    """Raises `ValueError` for a pattern that matches no name."""
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise ValueError(f"Each pattern must match a parameter, got {pattern!r}; the names are {some(names)}.")


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
