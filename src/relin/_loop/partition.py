"""PyTrees as arrays and a hashable rest, as static arguments of compiled functions have to be."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from relin._loop.same import identity


class StaticTree:
    """The part of a PyTree that is no arrays.

    Equal parts are equal, so that a second run with the same ones finds the compiled program; Optax's functions are
    compared by what they close over, see `same.py`.
    """

    def __init__(self, tree: PyTree):
        self.tree = tree
        leaves, structure = jax.tree.flatten(tree)
        self.identity = (tuple(map(identity, leaves)), structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticTree) and self.identity == other.identity

    def __hash__(self) -> int:
        try:
            return hash(self.identity)
        except TypeError:  # a static leaf without a hash: equal parts still compare equal
            return hash(self.identity[1])


def hashable_partition(tree: PyTree) -> tuple[PyTree, StaticTree]:
    """The arrays of a PyTree, and the rest."""
    arrays, static = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return arrays, StaticTree(static)


def hashable_combine(arrays: PyTree, static: StaticTree) -> Any:
    """The PyTree of which these are the parts."""
    return eqx.combine(arrays, static.tree)
