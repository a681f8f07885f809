"""What the figures of a frequency study show of its records."""

from collections.abc import Sequence

import polars as pl

from relin.report._records import StudyRecords
from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome

FrequencyRecords = StudyRecords[FrequencyResult]
_COLUMNS = ("run_steps", "linearisation_error", "parameter_movement")


def frequency_records(result: FrequencyResult, records: pl.DataFrame) -> FrequencyRecords:
    """The records that a result compares, out of those of one comparison or of both.

    Raises:
        ValueError: there is nothing to show, or the records are not those of the result.
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


def answered(result: FrequencyResult) -> bool:
    """Whether fewer feature updates than ordinary training's are shown to suffice; K* = 1 says they are not."""
    return result.k_star is not None and result.k_star > 1


def with_period(outcomes: Sequence[ScheduleOutcome], period: float | None) -> ScheduleOutcome | None:
    """The outcome of this K, if it was tested."""
    return next((outcome for outcome in outcomes if outcome.period is not None and outcome.period == period), None)
