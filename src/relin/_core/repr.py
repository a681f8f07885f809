"""Objects on one line."""

from dataclasses import MISSING, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_LONGEST = 60


def one_line(value: Any) -> str:
    """A dataclass by its public fields that are not their defaults: arrays by type and shape, numbers by value."""
    shown = [field for field in fields(value) if field.repr and not field.name.startswith("_")]
    parts = [(field.name, getattr(value, field.name), field.default) for field in shown]
    inside = ", ".join(f"{name}={short(part)}" for name, part, default in parts if not _is(part, default))
    return f"{type(value).__name__}({inside})"


def _is(part: Any, default: Any) -> bool:
    plain = isinstance(part, bool | int | float | str | None | tuple)
    return default is not MISSING and (part is default or (plain and type(part) is type(default) and part == default))


def short(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, dict | list | tuple) and not hasattr(value, "_fields"):
        leaves = jax.tree.leaves(value)
        if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
            count = sum(getattr(leaf, "size", 1) for leaf in leaves)
            return f"<{len(leaves)} arrays of {count:,} numbers>"
    if hasattr(value, "init") and hasattr(value, "update"):
        return f"<{type(value).__name__}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"<{value.__qualname__}>"
    text = repr(value)
    return text if "\n" not in text and len(text) <= _LONGEST else f"<{type(value).__name__}>"


def _array(value: Any) -> str:
    concrete = not isinstance(value, Tracer) and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
    if concrete and value.ndim <= 1 and value.size <= 8:
        return repr(np.asarray(value).tolist())
    return f"{value.dtype}{list(value.shape)}"
