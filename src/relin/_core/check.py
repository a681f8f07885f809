"""What is wrong with an argument that many take, in one sentence."""

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from relin._common.words import listed
from relin._core.types import Key, Params


def params(tree: Params) -> None:
    """Raises unless every leaf is a floating-point array and there is at least one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError("`params` holds no array; pass the network's parameters.")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = type(leaf).__name__ if dtype is None else dtype
            raise TypeError(
                f"Every leaf of `params` must be a floating-point array, got {kind} at "
                f"params{jax.tree_util.keystr(path)}; keep what is not trained inside `apply`."
            )


def single_precision(tree: Params, solver: str) -> None:
    """Raises `ValueError` for parameters of lower precision."""
    low = [leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.finfo(leaf.dtype).bits < 32]
    if low:
        raise ValueError(
            f"{solver} must be given parameters of at least single precision, got {low[0]}; cast them to float32, and "
            "inside `apply` to what the network computes in."
        )


def key(value: Any) -> Key:
    """One typed random key; a raw one as `jax.random.PRNGKey` makes is wrapped."""
    if isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.shape == (2,):
        return jax.random.wrap_key_data(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim == 0:
        return value
    raise TypeError(f"`key` must be one random key such as jax.random.key(0), got {value!r}; make one from a seed.")


def optimiser(value: Any) -> None:
    """Raises unless it is an Optax gradient transformation."""
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise TypeError(
            f"`optimiser` must be an Optax gradient transformation, got {value!r}; "
            "pass for example optax.sgd(0.1, momentum=0.9)."
        )


def numeric(data: Any) -> None:
    """Raises `TypeError` for inputs or targets that are text or other objects."""
    for name, part in zip(("inputs", "targets"), data, strict=False):
        for leaf in jax.tree.leaves(part):
            if isinstance(leaf, str | bytes) or getattr(getattr(leaf, "dtype", None), "kind", "") in (
                "U",
                "S",
                "O",
                "T",
            ):
                example = leaf if isinstance(leaf, str | bytes) else np.ravel(leaf)[0]
                raise TypeError(
                    f"The {name} must be numbers, got {str(example)[:40]!r}; number classes from 0, for example with "
                    "numpy.unique(y, return_inverse=True)[1]."
                )


_FRAMEWORKS = {
    "torch.nn.modules.module.Module": "from_torch",
    "flax.nnx.module.Module": "from_nnx",
    "flax.linen.module.Module": "from_linen",
}


def adapter(value: Any) -> str | None:
    """The name of the adapter for a module of another library, or for a class of these; `None` for what is none."""
    kind = value if isinstance(value, type) else type(value)
    names = [_FRAMEWORKS.get(f"{base.__module__}.{base.__qualname__}") for base in kind.__mro__]
    return "from_equinox" if issubclass(kind, eqx.Module) else next(filter(None, names), None)


def takes(function: Any, *arguments: Any) -> bool:
    """Whether it may be called with as many positional arguments; so it is taken to be where none can tell."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


LARGEST_COUNT = 10**9
"""Of steps: twice as many is an integer of 32 bits, in which programs count."""


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any, condition: Callable[[float], bool]) -> bool:
    """Whether it is one number, of Python or an array, for which a condition holds. What is traced, as in a lane, is
    taken for one."""
    if isinstance(value, Tracer):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        return False
    return np.ndim(value) == 0 and condition(float(value))


def choice(value: Any, name: str, known: Sequence[str]) -> None:
    """Raises `ValueError` unless `value` is one of the known ones."""
    if not (isinstance(value, str) and value in known):
        raise ValueError(f"`{name}` must be one of {listed(map(repr, known))}, got {value!r}; pass one of these.")


def count(value: Any, name: str, remedy: str, least: int = 1) -> int:
    """`value`, an integer of Python or NumPy, as Python's; raises unless it is one, and at least `least`."""
    if not is_integer(value):
        raise TypeError(f"`{name}` must be an integer, got {value!r}; {remedy}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}; {remedy}.")
    return operator.index(value)
