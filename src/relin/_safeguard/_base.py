"""How far to follow the displacement when re-linearising."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Int

from relin._core.context import Context
from relin._core.types import Inputs, Scalar, State, Targets

Probe = tuple[Inputs, Targets]


class StepScale(eqx.Module):
    """How far a safeguard lets a re-linearisation go, anchor ← anchor + scale · displacement; and what that cost."""

    scale: Scalar
    """In [0, 1]."""
    evaluations: Int[Array, ""]
    """Evaluations of the network on the probe that were made to decide."""


class AbstractSafeguard(eqx.Module):
    """Evaluates the network where a re-linearisation would put the anchor, and may stop short of it.

    Between two anchors the linearised problem may be solved far from where it is a good model of the network; a
    safeguard keeps the next anchor where the network itself is no worse.
    """

    @property
    def labelled(self) -> dict[str, Probe]:
        """The inputs and targets that the loss is shown, by name: they are checked before training as its data are."""
        probe = getattr(self, "probe", None)
        return {} if probe is None else {"probe": probe}

    @property
    def num_batches(self) -> int:
        """How many of the coming batches it is shown, that of the coming step first; there are fewer where every step
        sees the same batch, or an iterable ends."""
        return 1

    def init(self, context: Context) -> State:
        """The safeguard's state before step 0."""
        return ()

    @abc.abstractmethod
    def step_scale(self, context: Context, state: State) -> tuple[StepScale, State]:
        """At a re-linearisation: how far to go, and the new state. Not traced where `context.traced` is false."""


def check_safeguard(value: Any) -> None:
    """Raises `TypeError` unless `value` is a safeguard or `None`."""
    if not (value is None or isinstance(value, AbstractSafeguard)):
        raise TypeError(
            f"`safeguard` must be a relin safeguard or None, got {value!r}; pass for example relin.LineSearch()."
        )
