"""What is measured while training."""

import abc

import equinox as eqx
from jaxtyping import Array, Shaped

from relin._context import Context
from relin._types import State


class AbstractObserver(eqx.Module):
    """Measures something at every record. Arrays it needs (a test set, a probe) are its fields."""

    def init(self, context: Context) -> State:
        """The observer's state before step 0, for example a copy of the initial parameters."""
        return ()

    @abc.abstractmethod
    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        """Named scalars for the record, and the new state."""
