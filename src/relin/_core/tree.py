"""Vector algebra on parameter PyTrees."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from relin._core.types import Flag, Params, Scalar


def add(a: Params, b: Params) -> Params:
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Params, b: Params) -> Params:
    return jax.tree.map(jnp.subtract, a, b)


def zeros_like(a: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, a)


def no_displacement(params: Params) -> Params:
    """Zeros that XLA does not know to be zeros: on CPUs a product with constant ones may be unwritten memory, see
    docs/known-problems.md."""
    return jax.tree.map(lambda leaf: jnp.where(jnp.isnan(leaf), 0, jnp.minimum(jnp.abs(leaf), 0)), params)


def scale(factor: Scalar | float, a: Params) -> Params:
    """factor · a, in a's own types."""
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), a)


def select(flag: Flag, a: Params, b: Params) -> Params:
    """`a` where `flag` holds, else `b`; both are evaluated."""
    return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)


def select_each(flags: PyTree[Flag], a: Params, b: Params) -> Params:
    """The same with a flag for each leaf."""
    return jax.tree.map(jnp.where, flags, a, b)


def norm(a: Params) -> Scalar:
    """The Euclidean norm of a PyTree seen as one vector, in single precision at least."""

    def squares(leaf: Array) -> Array:
        return jnp.sum(jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))))

    return jnp.sqrt(sum((squares(leaf) for leaf in jax.tree.leaves(a)), start=jnp.zeros(())))


def dtype_of(a: Params) -> Any:
    """The type of a PyTree's numbers together, single precision at least."""
    return jnp.result_type(jnp.float32, *jax.tree.leaves(a))


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def numbers(leaf: Any) -> Any:
    """The numbers of an array; a random key's own, which NumPy does not read."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
