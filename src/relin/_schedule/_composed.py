"""Schedules made of another schedule."""

import equinox as eqx
from jaxtyping import Array, Int, PyTree, Shaped

from relin._core.context import Context
from relin._core.types import Flag, Flags, Params, State, Step
from relin._schedule._base import AbstractSchedule, check_count


class AbstractWithin(AbstractSchedule):
    """Another schedule where subclasses let it be due."""

    schedule: eqx.AbstractVar[AbstractSchedule]

    @property
    def adaptive(self) -> bool:
        return self.schedule.adaptive

    @property
    def partial(self) -> bool:
        return self.schedule.partial

    def init(self, context: Context) -> State:
        return self.schedule.init(context)

    def queried(self, step: Step, state: State) -> Flag:
        return self.schedule.queried(step, state)

    def query(self, context: Context, state: State) -> tuple[Flags, State]:
        return self.schedule.query(context, state)

    def relinearised(self, wanted: Flags, params: Params) -> PyTree[Flag]:
        return self.schedule.relinearised(wanted, params)

    def measures(self, state: State, feature_updates: Int[Array, ""]) -> dict[str, Shaped[Array, ""]]:
        return self.schedule.measures(state, feature_updates)


def innermost(schedule: AbstractSchedule) -> AbstractSchedule:
    """The schedule that `Until` and `After` limit; one that derives from these may do something else."""
    while type(schedule) in (After, Until):
        assert isinstance(schedule, AbstractWithin)
        schedule = schedule.schedule
    return schedule


class Until(AbstractWithin):
    """Another schedule before step n, then never: features are frozen from step n on.

    The inner schedule counts steps from the start of the run.

    **Arguments:**

    - `schedule`: the other schedule.
    - `step`: n, a whole number from 0, from which features are frozen; it may be traced.

    **Raises:** `TypeError` or `ValueError` for another `step`.
    """

    schedule: AbstractSchedule
    step: Step

    def __check_init__(self):
        check_count(self.step, "`step`", 0, "pass the step from which features stay frozen")

    def due(self, step: Step) -> Flag:
        return (step < self.step) & self.schedule.due(step)


class After(AbstractWithin):
    """Never before step n, then another schedule: features start to move at step n.

    The inner schedule counts steps from the start of the run, so that `After(Every(64), 100)` first re-linearises at
    step 128.

    **Arguments:**

    - `schedule`: the other schedule.
    - `step`: n, a whole number from 0, at which features start to move; it may be traced.

    **Raises:** `TypeError` or `ValueError` for another `step`.
    """

    schedule: AbstractSchedule
    step: Step

    def __check_init__(self):
        check_count(self.step, "`step`", 0, "pass the step from which features may move")

    def due(self, step: Step) -> Flag:
        return (step >= self.step) & self.schedule.due(step)
