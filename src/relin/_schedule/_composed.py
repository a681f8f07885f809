"""Schedules made of another schedule."""

from relin._context import Context
from relin._schedule._base import AbstractSchedule, check_count
from relin._types import Flag, State, Step


class Until(AbstractSchedule):
    """Another schedule before step n, then never: features are frozen from step n on.

    The inner schedule counts steps from the start of the run.
    """

    schedule: AbstractSchedule
    step: Step

    def __check_init__(self):
        check_count(self.step, "`step`", 0, "pass the step from which features stay frozen")

    @property
    def adaptive(self) -> bool:
        return self.schedule.adaptive

    def due(self, step: Step) -> Flag:
        return (step < self.step) & self.schedule.due(step)

    def init(self, context: Context) -> State:
        return self.schedule.init(context)

    def looks(self, step: Step, state: State) -> Flag:
        return self.schedule.looks(step, state)

    def query(self, context: Context, state: State) -> tuple[Flag, State]:
        return self.schedule.query(context, state)


class After(AbstractSchedule):
    """Never before step n, then another schedule: features start to move at step n.

    The inner schedule counts steps from the start of the run, so that `After(Every(64), 100)` first re-linearises at
    step 128.
    """

    schedule: AbstractSchedule
    step: Step

    def __check_init__(self):
        check_count(self.step, "`step`", 0, "pass the step from which features may move")

    @property
    def adaptive(self) -> bool:
        return self.schedule.adaptive

    def due(self, step: Step) -> Flag:
        return (step >= self.step) & self.schedule.due(step)

    def init(self, context: Context) -> State:
        return self.schedule.init(context)

    def looks(self, step: Step, state: State) -> Flag:
        return self.schedule.looks(step, state)

    def query(self, context: Context, state: State) -> tuple[Flag, State]:
        return self.schedule.query(context, state)
