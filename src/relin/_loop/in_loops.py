"""When a network that is linearised in a loop of the user's own re-linearises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relin._core.compiler import check_sums
from relin._core.types import Flag, Params, Step
from relin._schedule import AbstractSchedule


class When:
    """A schedule as a static part of a module: equal to another one of equal numbers. `None` is never."""

    def __init__(self, schedule: AbstractSchedule | None):
        _check(schedule)
        check_sums()
        leaves, structure = jax.tree.flatten(schedule)
        self.schedule = jax.tree.unflatten(
            structure, [np.asarray(leaf) if _is_array(leaf) else leaf for leaf in leaves]
        )
        self._identity = structure, tuple((np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, When) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return repr(self.schedule)

    @property
    def every_step(self) -> bool:
        """Whether it is ordinary training."""
        return self.schedule is not None and self.schedule.every_step

    def due(self, step: Step) -> Flag:
        """Whether to re-linearise before this step."""
        return False if self.schedule is None else self.schedule.due(step)

    def anchor(self, step: Step, params: Params, anchor: Params) -> Params:
        """The anchor of this step: θ where it is due."""
        due = self.due(step)
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), params, anchor)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _check(schedule: Any) -> None:
    if schedule is None:
        return
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(
            f"`schedule` must be a relin schedule or None, got {schedule!r}; pass for example relin.Every(64), or None "
            "to call relinearise() yourself."
        )
    if schedule.adaptive or schedule.partial:
        raise ValueError(
            f"`schedule` must depend on the step alone, got {type(schedule).__name__}, which looks at the network or "
            "at its parts; pass None and call relinearise() where a condition of your own holds, or use relin.train."
        )
