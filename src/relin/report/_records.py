"""The records that belong to a result, as the arrays its figures show; a run that did not train counts at chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

import numpy as np
import polars as pl

from relin.report import _text as text
from relin.study._judged import DIVERGED, FAILED, trained
from relin.study._measured import at_untrained, scored
from relin.study._records import in_order
from relin.study._result import GridResult, Interval, ScheduleOutcome
from relin.study._statistics import known_interval

COLUMNS = (
    "data",
    "model",
    "schedule",
    "learning_rate",
    "seed",
    "step",
    "feature_updates",
    "train_loss",
    "validation_accuracy",
    "test_accuracy",
    "result",
    "diverged_at",
)


@dataclass(frozen=True)
class Curve:
    """Mean and two-sided 95 % interval over seeds at each recorded step; all arrays have shape (steps,)."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Cell:
    """All runs of one schedule at one learning rate."""

    validation_accuracy: float
    num_runs: int
    num_diverged: int
    num_failed: int

    @property
    def untrained(self) -> str:
        """How many did not train, as figures mark it; empty where all did."""
        return text.untrained_mark(self.num_diverged, self.num_failed, self.num_runs)

    @property
    def hatch(self) -> str | None:
        """Of a cell of which no run trained: another one where none of them diverged."""
        if self.num_diverged + self.num_failed < self.num_runs:
            return None
        return "//" if self.num_diverged else ".."


Result = TypeVar("Result", bound=GridResult)


@final
class StudyRecords(Generic[Result]):
    """The records that belong to a result, checked once and then asked for what a figure needs."""

    def __init__(self, result: Result, records: pl.DataFrame, more_columns: Sequence[str] = ()):
        """Of a `result` and its `records`, a row per run and recorded step, with `more_columns` beside those of all.

        **Raises:** `ValueError`: there is nothing to show, or the records are not those of the result.
        """
        _check(result, records, (*COLUMNS, *more_columns))
        self.result = result
        self._records = in_order(scored(records))
        for outcome in result.outcomes:
            if self._chosen(outcome).is_empty():
                raise ValueError(
                    f"Expected records of {outcome.schedule!r} at learning rate {outcome.learning_rate:g}, got none; "
                    "pass the records that the result was computed from."
                )

    def _chosen(self, outcome: ScheduleOutcome) -> pl.DataFrame:
        close = (pl.col("learning_rate") / outcome.learning_rate - 1).abs() < 1e-9
        return self._records.filter((pl.col("schedule") == outcome.schedule) & close)

    def _last(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The last recorded row of each run, accuracies at chance where the run did not train."""
        last = frame.group_by("schedule", "learning_rate", "seed", maintain_order=True).last()
        accuracies = ("validation_accuracy", "test_accuracy")
        return last.with_columns(
            pl.when(trained()).then(pl.col(name)).otherwise(at_untrained(last, name, self.result.chance)).alias(name)
            for name in accuracies
        )

    def seeds(self, outcome: ScheduleOutcome) -> tuple[np.ndarray, np.ndarray]:
        """Final test accuracy of each run at the chosen rate and whether it trained, both of shape (seeds,)."""
        last = self._last(self._chosen(outcome))
        return last["test_accuracy"].to_numpy(), last.select(trained()).to_series().to_numpy()

    def untrained(self, outcome: ScheduleOutcome) -> str:
        """How many runs at the chosen rate did not train, as figures mark it; empty where all did."""
        results = self._last(self._chosen(outcome))["result"]
        return text.untrained_mark(int((results == DIVERGED).sum()), int((results == FAILED).sum()), len(results))

    def has(self, *columns: str) -> bool:
        """Whether each of these was recorded at all, which it need not be in runs that were made elsewhere."""
        own = self._records
        return all(name in own.columns and own[name].cast(pl.Float64).is_finite().any() for name in columns)

    @property
    def has_curves(self) -> bool:
        """Whether accuracy and training loss were recorded on the way."""
        return self.has("train_loss") and self._records["step"].n_unique() > 1

    def final(self, outcome: ScheduleOutcome, column: str) -> Interval:
        """Mean and interval of `column` at the last recorded step of the runs that trained."""
        last = self._last(self._chosen(outcome)).filter(trained())
        return self._interval(column, last[column].cast(pl.Float64).fill_null(math.nan).to_numpy())

    def run_steps(self, outcome: ScheduleOutcome) -> int:
        """Steps of a run at the chosen rate."""
        return int(self._chosen(outcome)["run_steps"][0])

    @property
    def longest(self) -> int:
        """Steps of the longest run at a chosen rate."""
        return max(self.run_steps(outcome) for outcome in self.result.outcomes)

    def curve(self, outcome: ScheduleOutcome, column: str) -> Curve:
        """`column` against the step at the chosen rate.

        From where a run diverged, and at the end of one that failed to train, its test accuracy counts at chance, as in
        every table; nothing else has such a value, so there the mean is over the runs that are left.
        """
        frame = self._chosen(outcome)
        untrained_from = pl.when(pl.col("result") == FAILED).then(pl.max("step").over("seed")).otherwise("diverged_at")
        frame = frame.with_columns(untrained_from=untrained_from)
        wide = frame.pivot("step", index=["seed", "untrained_from"], values=column, sort_columns=True)
        steps = np.array([int(name) for name in wide.columns[2:]])
        order = np.argsort(steps)
        values = wide.select(wide.columns[2:]).cast(pl.Float64).to_numpy().copy()[:, order]
        steps = steps[order]
        dead = steps[None, :] >= wide["untrained_from"].cast(pl.Float64).fill_null(math.inf).to_numpy()[:, None]
        values[dead] = self.result.chance if column == "test_accuracy" else math.nan
        intervals = [self._interval(column, at_step) for at_step in values.T]
        return Curve(steps, *np.array([(i.mean, i.low, i.high) for i in intervals]).T)

    def _interval(self, column: str, values: np.ndarray) -> Interval:
        """Only accuracies are rounded ratios: among small numbers of another kind no difference is too small."""
        return known_interval(values, self.result.scale.resolution if column.endswith("accuracy") else 0.0)

    def rates(self) -> list[float]:
        """Every learning rate of the records, increasing."""
        shown = pl.col("schedule").is_in([outcome.schedule for outcome in self.result.outcomes])
        return sorted(self._records.filter(shown)["learning_rate"].unique().to_list())

    def cells(self) -> dict[tuple[str, float], Cell]:
        """Mean final validation accuracy of every schedule at every learning rate it ran at."""
        grouped = self._last(self._records).group_by("schedule", "learning_rate", maintain_order=True)
        summary = grouped.agg(
            pl.col("validation_accuracy").mean(),
            pl.len().alias("num_runs"),
            (pl.col("result") == DIVERGED).sum().alias("num_diverged"),
            (pl.col("result") == FAILED).sum().alias("num_failed"),
        )
        return {(schedule, rate): Cell(*counted) for schedule, rate, *counted in summary.iter_rows()}


def _check(result: GridResult, records: pl.DataFrame, columns: Sequence[str]) -> None:
    if not result.outcomes:
        raise ValueError(
            f"Expected at least one schedule in the result of study {result.study!r}, got no outcome; "
            "run the study before asking for its report."
        )
    if records.is_empty():
        raise ValueError(
            f"Expected the records of study {result.study!r}, got no row; run the study before asking for its report."
        )
    if missing := [name for name in columns if name not in records.columns]:
        raise ValueError(
            f"Expected records with the columns {', '.join(columns)}, got none named {', '.join(missing)}; "
            "pass the records as the study's store returns them."
        )
    kinds = records.select("data", "model").unique(maintain_order=True).rows()
    if len(kinds) > 1:
        found = ", ".join(f"{model} on {data}" for data, model in kinds)
        raise ValueError(f"Expected records of one model on one data set, got {found}; filter them first.")
