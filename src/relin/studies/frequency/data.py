"""What the figures of a frequency study show of its records, and where its schedules stand on the axis of K."""

import math
import textwrap
from collections.abc import Sequence
from typing import final

import polars as pl

from relin.report._axes import NumberAxis
from relin.report._records import StudyRecords
from relin.report._style import Theme
from relin.studies.frequency.result import FrequencyResult
from relin.study._condition import parse_condition
from relin.study._modifiers import Sparse
from relin.study._result import ScheduleOutcome

FrequencyRecords = StudyRecords[FrequencyResult]
_COLUMNS = ("run_steps", "linearisation_error", "parameter_movement")
_ASIDE = 0.027  # of the axis, between a K and the same K of the preset
_LINE = 9  # characters of a name's line that fit the axis


def frequency_records(result: FrequencyResult, records: pl.DataFrame) -> FrequencyRecords:
    """The records that a result compares, out of those of one comparison or of both.

    **Raises:** `ValueError`: there is nothing to show, or the records are not those of the result.
    """
    own = of_comparison(result, records) if "run_steps" in records.columns else records
    return StudyRecords(result, own, _COLUMNS)


def of_comparison(result: FrequencyResult, records: pl.DataFrame) -> pl.DataFrame:
    """The records of the runs a result compares: of T steps each, or at each learning rate of the most steps.

    With equal learning rate × steps no run is shorter than T, so a run of T steps beside a longer one at the same rate
    belongs to the other comparison; where there is no longer one it belongs to both.
    """
    steps = (
        pl.lit(result.num_steps)
        if result.comparison == "equal-steps"
        else pl.col("run_steps").max().over("learning_rate")
    )
    return records.filter(pl.col("run_steps") == steps)


def answer_of(result: FrequencyResult) -> ScheduleOutcome | None:
    """The schedule of K*, if fewer feature updates than ordinary training's are shown to suffice: K* = 1 is none."""
    star = result.k_star
    return None if star is None or star <= 1 else with_period(result.outcomes, star)


def with_period(outcomes: Sequence[ScheduleOutcome], period: float | None) -> ScheduleOutcome | None:
    """The outcome of this K, if it was tested."""
    return next((outcome for outcome in outcomes if outcome.period is not None and outcome.period == period), None)


def sparse_period(outcome: ScheduleOutcome) -> float | None:
    """K of a schedule of the preset `sparse`, infinity for its `never`; none for every other schedule."""
    try:
        condition = parse_condition(outcome.schedule)
    except ValueError:
        return None
    return condition.schedule.period if condition.modifiers == (Sparse(),) else None


def stands_beside(outcome: ScheduleOutcome) -> bool:
    """Whether a schedule has no place on the axis of K: it is adaptive, say, or has modifiers."""
    return outcome.period is None and sparse_period(outcome) is None


def short_lines(label: str) -> str:
    """A label on short lines: `K = 64, clipped at 1` is `K = 64` over `clipped` over `at 1`."""
    lines = list[str]()
    for part in label.split(", "):
        if part.startswith("K = "):
            lines.append(part.removesuffix(" (lazy)"))
            continue
        words, sign, value = part.partition(" ≤ ")
        lines += [*textwrap.wrap(words, _LINE), *([f"≤ {value}"] if sign else [])]
    return "\n".join(lines)


@final
class Schedules:
    """The schedules of a result with their places on the axis of K."""

    def __init__(self, outcomes: Sequence[ScheduleOutcome], beside: bool = True, inches: float = 8.5):
        """`beside` keeps the schedules without a period; `inches` is the width of the axis; a K must be positive."""
        plain = [(o.period, o) for o in outcomes if o.period is not None]
        preset = sorted(((K, o) for o in outcomes if (K := sparse_period(o)) is not None), key=lambda pair: pair[0])
        self.periods, self.sparse = [o for _, o in plain], [o for _, o in preset]
        self.others = [o for o in outcomes if stands_beside(o)] if beside else []
        names = [short_lines(o.label) for o in self.others]
        self.axis = axis = NumberAxis([K for K, _ in [*plain, *preset]], names, inches)
        self._at = {o.schedule: axis.at(K) for K, o in plain}
        self._at |= {o.schedule: axis.at(K) + _ASIDE * axis.extent for K, o in preset}
        self._at |= {o.schedule: x for x, o in zip(axis.beside, self.others, strict=True)}

    @property
    def all(self) -> list[ScheduleOutcome]:
        return [*self.periods, *self.sparse, *self.others]

    def at(self, outcome: ScheduleOutcome) -> float:
        return self._at[outcome.schedule]

    def marker(self, outcome: ScheduleOutcome) -> str:
        """Circles for periods, squares for those of the preset, diamonds for what stands beside."""
        if outcome.period is not None:
            return "o"
        return "s" if sparse_period(outcome) is not None else "D"

    def colour(self, outcome: ScheduleOutcome, theme: Theme) -> str:
        """From the colour of ordinary training to that of lazy training as K grows; one for the preset."""
        if outcome.period is None:
            return theme.adaptive if stands_beside(outcome) else theme.accent
        if outcome.period in (1, math.inf):
            return theme.ordinary if outcome.period == 1 else theme.lazy
        return theme.between((1.0 + self.at(outcome)) / (2.0 + math.log2(max(self.axis.finite))))
