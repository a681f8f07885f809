"""Any lineax operator as a function of flat vectors."""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from relin._core import finite as _finite
from relin._core.compiler import check_sums
from relin.kernel._operator import NTKOperator

_VECTORS_AT_ONCE = 16  # in one product: wide enough for matrix multiplications, and it bounds their memory


class FlatOperator(eqx.Module):
    """Products of a square operator with rows of numbers, in single precision at least."""

    operator: lx.AbstractLinearOperator

    @property
    def size(self) -> int:
        return self.operator.in_size()

    @property
    def dtype(self) -> Any:
        return jnp.result_type(jnp.float32, *jax.tree.leaves(self.operator.in_structure()))

    def rows(self, vectors: Float[Array, "k n"]) -> Float[Array, "k n"]:
        """A v of each row v."""
        return jax.lax.map(self._product, vectors, batch_size=min(_VECTORS_AT_ONCE, vectors.shape[0]))

    def unflatten(self, vectors: Float[Array, "k n"]) -> Any:
        """Rows as a PyTree of the operator's inputs, each with a leading axis of rows."""
        leaves, structure = jax.tree.flatten(self.operator.in_structure())
        ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])[:-1]
        parts = jnp.split(vectors, ends, axis=1)
        shaped = [a.reshape(-1, *leaf.shape).astype(leaf.dtype) for a, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped)

    def _product(self, vector: Float[Array, " n"]) -> Float[Array, " n"]:
        inputs = jax.tree.map(lambda a: a[0], self.unflatten(vector[None]))
        outputs = jax.tree.leaves(self.operator.mv(inputs))
        return jnp.concatenate([a.reshape(-1).astype(self.dtype) for a in outputs])


def as_operator(operator: Any, *, symmetric: bool) -> lx.AbstractLinearOperator:
    """The operator itself or, of a tuple (apply, params, x), its NTK; raises unless it is square, and symmetric."""
    check_sums()
    if isinstance(operator, tuple) and len(operator) == 3:
        operator = NTKOperator(*operator)
    if not isinstance(operator, lx.AbstractLinearOperator):
        raise TypeError(
            f"`operator` must be a lineax operator or a tuple (apply, params, x), got {type(operator).__name__}; "
            "pass for example relin.kernel.NTKOperator(apply, params, x)."
        )
    if eqx.tree_equal(operator.in_structure(), operator.out_structure()) is not True:
        raise ValueError(
            f"`operator` must be square, got one from {operator.in_size()} to {operator.out_size()} numbers or between "
            "different PyTrees; compose it with its transpose."
        )
    if symmetric and not lx.is_symmetric(operator):
        raise ValueError(
            f"`operator` must be symmetric, got a {type(operator).__name__} that is not tagged so; if it is, pass "
            "lineax.TaggedLinearOperator(operator, lineax.symmetric_tag)."
        )
    return operator


Found = TypeVar("Found")


def finite(found: Found, operator: lx.AbstractLinearOperator) -> Found:
    """What was found of an operator; raises `ValueError`, with the place, if it is not finite, but not under a
    transformation such as `jax.jit`."""
    leaves = jax.tree.leaves(found)
    if any(isinstance(leaf, Tracer) for leaf in leaves) or _finite.everywhere(leaves):
        return found
    place = ""
    if isinstance(operator, NTKOperator):
        features = operator.features
        place = _finite.in_network(features.apply, features.params, features.x)
    raise ValueError(
        f"`operator` must have finite products, got some that are not: {place or 'they overflow, or hold nan'}."
    )


def flat(operator: lx.AbstractLinearOperator) -> FlatOperator:
    """The operator on flat vectors; what its products have in common is computed once."""
    try:
        return FlatOperator(lx.linearise(operator))
    except NotImplementedError:  # lineax asks operators of other libraries to register this, but not all do
        return FlatOperator(operator)
