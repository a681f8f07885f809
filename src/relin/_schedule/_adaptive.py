"""Schedules that look at the network."""

import jax
import numpy as np

from relin._context import Context
from relin._schedule._base import AbstractSchedule, check_count
from relin._types import Flag, Inputs, Scalar, State, Step


class WhenError(AbstractSchedule):
    """Re-linearises when the relative linearisation error passes a tolerance.

    The error is ‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ over a probe batch x.

    **Arguments:**

    - `tolerance`: re-linearise where the error is at least this; 0 re-linearises at every check.
    - `check_every`: steps between two looks at the error. A look costs about as much as 3/5 of a step on a probe of the
      batch's size.
    - `probe`: the inputs on which the error is measured; the coming step's batch if not given.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: Inputs | None = None

    def __check_init__(self):
        check_count(self.check_every, "`check_every`", 1, "pass the number of steps between two checks")
        if isinstance(self.tolerance, jax.Array | np.ndarray | np.generic):
            return
        number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not number or not self.tolerance >= 0:
            raise ValueError(
                f"`tolerance` must be a number of at least 0, got {self.tolerance!r}; typical values are 0.05 to 0.5."
            )

    @property
    def adaptive(self) -> bool:
        return True

    def due(self, step: Step) -> Flag:
        return step % self.check_every == 0

    def query(self, context: Context, state: State) -> tuple[Flag, State]:
        probe = context.inputs if self.probe is None else self.probe
        return context.linearisation_error(probe) >= self.tolerance, state
