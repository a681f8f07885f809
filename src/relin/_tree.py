"""Vector algebra on parameter PyTrees."""

import jax
import jax.numpy as jnp

from relin._types import Flag, Params, Scalar


def add(a: Params, b: Params) -> Params:
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Params, b: Params) -> Params:
    return jax.tree.map(jnp.subtract, a, b)


def zeros_like(a: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, a)


def select(flag: Flag, a: Params, b: Params) -> Params:
    """`a` where `flag` holds, else `b`; both are evaluated."""
    return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)


def norm(a: Params) -> Scalar:
    """The Euclidean norm of a PyTree seen as one vector."""
    return jnp.sqrt(sum((jnp.sum(jnp.square(jnp.abs(leaf))) for leaf in jax.tree.leaves(a)), start=jnp.zeros(())))
