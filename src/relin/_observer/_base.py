"""What is measured while training."""

import abc

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Shaped

from relin._core.context import Context
from relin._core.problem import Problem
from relin._core.types import Inputs, Params, State, Targets

_NUMBERS_IN_CACHE = 50_000
"""Of inputs that go through a network at once on CPU: with more, activations leave the cache, 5 times slower."""


class AbstractObserver(eqx.Module):
    """Measures something at every record. Arrays it needs (a test set, a probe) are its fields."""

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        """The inputs and targets that the loss is shown, by name: they are checked before training as its data are."""
        return {}

    def init(self, context: Context) -> State:
        """The observer's state before step 0, for example a copy of the initial parameters."""
        return ()

    def check(self, problem: Problem, params: Params) -> None:
        """Raises, before training begins, where this network cannot be measured so."""

    @abc.abstractmethod
    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        """Named scalars for the record, and the new state."""


def chunk_of(inputs: Inputs, chunk_size: int | None) -> int:
    """How many examples go through the network at once: as asked for, else few enough for a CPU's cache, or 1000.

    **Raises:** `ValueError` unless it is at least 1.
    """
    if chunk_size is None:
        numbers = sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(inputs))
        largest = _NUMBERS_IN_CACHE // max(1, numbers) if jax.default_backend() == "cpu" else 1000
        return max(16, min(1000, largest))
    if not chunk_size >= 1:
        raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}; pass how many examples fit in memory.")
    return chunk_size
