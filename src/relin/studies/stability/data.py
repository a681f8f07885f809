"""The schedules of a stability study by the modifiers they have, and what their sharpness is held against."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relin.report import _text as text
from relin.studies.stability.result import RateLimit, StabilityResult
from relin.study._condition import Condition, parse_condition
from relin.study._optimisers import RateCourse
from relin.study._result import ScheduleOutcome
from relin.study._schedules import AbstractNamedSchedule, AbstractTolerance, Every

PLAIN = "K alone"


@dataclass(frozen=True)
class Group:
    """Schedules that differ in their number only: periods with the same modifiers, or tolerances of one kind."""

    name: str
    kind: type[AbstractNamedSchedule]
    outcomes: Sequence[ScheduleOutcome]

    @property
    def is_periodic(self) -> bool:
        return self.kind is Every

    @property
    def axis(self) -> str:
        """What the numbers are."""
        return "K" if self.is_periodic else "tolerance" if issubclass(self.kind, AbstractTolerance) else "number"

    def numbers(self) -> list[float]:
        """K, or the tolerance, of each schedule; infinity for lazy training."""
        return [parse_condition(outcome.schedule).value for outcome in self.outcomes]

    def ticks(self) -> list[str]:
        return [text.period(number) for number in self.numbers()]


def groups(result: StabilityResult) -> list[Group]:
    """All schedules, plain periods first, in the order of the outcomes, each group by increasing number."""
    members: dict[tuple[str, type[AbstractNamedSchedule]], list[ScheduleOutcome]] = {}
    for outcome in result.outcomes:
        condition = parse_condition(outcome.schedule)
        members.setdefault((_name(condition), type(condition.schedule)), []).append(outcome)
    ordered = sorted(members.items(), key=lambda item: item[0][0] != PLAIN)
    return [
        Group(name, kind, sorted(own, key=lambda o: parse_condition(o.schedule).value)) for (name, kind), own in ordered
    ]


def _name(condition: Condition) -> str:
    modifiers, schedule = [modifier.label for modifier in condition.modifiers], condition.schedule
    if isinstance(schedule, Every):
        return ", ".join(modifiers) or PLAIN
    how = f"by {schedule.measure}" if isinstance(schedule, AbstractTolerance) else schedule.kind
    return ", ".join([how, *modifiers])


def limit_of(result: StabilityResult, outcome: ScheduleOutcome) -> RateLimit:
    """Up to which rate this schedule trains. Raises `ValueError` where the result does not say."""
    found = next((limit for limit in result.limits if limit.schedule == outcome.schedule), None)
    if found is None:
        raise ValueError(
            f"Expected a limit of the learning rate for every schedule, got none for {outcome.schedule!r}; "
            "pass the result as the study concluded it."
        )
    return found


def trains_as_far(result: StabilityResult) -> tuple[int, int]:
    """How many schedules other than ordinary training train at its largest rate, and of how many."""
    ordinary = next((limit for limit in result.limits if limit.schedule == "every-1"), None)
    others = [limit for limit in result.limits if limit.schedule != "every-1"]
    if ordinary is None or ordinary.largest_rate is None:
        return 0, len(others)
    return sum((limit.largest_rate or 0.0) >= ordinary.largest_rate for limit in others), len(others)


@dataclass(frozen=True)
class Descent:
    """What decides which sharpness is stable: gradient descent with momentum β, and the rate's course over the run."""

    momentum: float | None
    """None of an optimiser that is not gradient descent: which sharpness is stable for it is not known."""
    course: RateCourse
    num_steps: int

    @property
    def factor(self) -> float | None:
        """1 + β: stable are rates below this times 2/λ_max."""
        return None if self.momentum is None else 1 + self.momentum

    def stable_sharpness(self, rate: float, steps: np.ndarray) -> np.ndarray:
        """2 (1 + β)/η_t at each step, infinite where the rate is zero and where none is known; shape (steps,)."""
        current = rate * self.course.shares(steps, self.num_steps)
        limit = np.full(current.shape, math.inf)
        if self.factor is None:
            return limit
        return np.divide(2 * self.factor, current, out=limit, where=current > 1e-12 * rate)


def descent(spec: Mapping[str, Any], result: StabilityResult) -> Descent:
    """From the settings of the study. Raises `ValueError` where they lack momentum or decay."""
    if missing := [name for name in ("momentum", "decay") if name not in spec]:
        raise ValueError(
            f"Expected the settings momentum and decay of study {result.study!r}, got none named "
            f"{', '.join(missing)}; pass the settings that the study was run with."
        )
    return Descent(spec["momentum"], RateCourse(spec["decay"], spec.get("warm_up", 0.0)), result.num_steps)


def best_gain(result: StabilityResult) -> tuple[float, ScheduleOutcome] | None:
    """Largest mean test accuracy of a period with modifiers minus that of the same period alone; none to compare."""
    everything = groups(result)
    alone = {n: o for g in everything if g.name == PLAIN for n, o in zip(g.numbers(), g.outcomes, strict=True)}
    gains = [
        (outcome.test_accuracy.mean - alone[number].test_accuracy.mean, outcome)
        for group in everything
        if group.is_periodic and group.name != PLAIN
        for number, outcome in zip(group.numbers(), group.outcomes, strict=True)
        if number in alone
    ]
    return max(gains, key=lambda pair: pair[0], default=None)
