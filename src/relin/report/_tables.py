"""The tables of studies: for the page in percent, for the files in full precision."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel

from relin.report import _text as text
from relin.report._html import Column, Html, Row, table
from relin.study._result import GridResult, Interval, ScheduleOutcome
from relin.study._scale import PERCENT, Scale

Extra = tuple[Column, Callable[[ScheduleOutcome], str]]
"""A column that only one study has, and its cell of each schedule."""


def outcomes_table(result: GridResult, marked: Collection[str], note: str, extra: Sequence[Extra] = ()) -> Html:
    """The table of every schedule as HTML.

    **Arguments:**

    - `result`: what was concluded.
    - `marked`: names of the schedules whose rows stand out.
    - `note`: says what is marked.
    - `extra`: columns of this study, after the test accuracy.
    """
    scale = result.scale
    columns = [
        Column("Schedule", numeric=False),
        Column("On par"),
        Column("Feature updates", "mean of a run"),
        Column("Learning rate", "chosen"),
        Column("Test accuracy", scale.headed("± 95 % interval")),
        *(column for column, _ in extra),
        Column("Difference to K = 1", scale.headed("95 % interval", difference=True)),
        Column("Bound", f"one-sided {100 * result.confidence:g} %"),
        Column("p", "Holm"),
        Column("Diverged", "of seeds"),
        Column("Failed to train", "of seeds"),
        Column("Diverged", "at any rate"),
        Column("Failed to train", "at any rate"),
        Column("Network accuracy", scale.headed("f(·; θ)")),
        Column("Validation accuracy", scale.unit),
        Column("p", "uncorrected"),
    ]
    rows = [Row(_cells(o, scale, [cell(o) for _, cell in extra]), marked=o.schedule in marked) for o in result.outcomes]
    caption = (
        f"Every schedule at the learning rate chosen for it, {result.num_seeds} seeds. {note} "
        f"{text.EDGES_MEAN}. All numbers in full precision are in table.csv beside this page."
    )
    return table(caption, columns, rows)


def _cells(outcome: ScheduleOutcome, scale: Scale, extra: Sequence[str]) -> list[str]:
    return [
        outcome.label,
        text.on_par(outcome.on_par),
        text.count(outcome.feature_updates),
        text.chosen_rate(outcome),
        scale.plus_minus(outcome.test_accuracy),
        *extra,
        scale.with_interval(outcome.difference),
        scale.signed(outcome.bound),
        text.p_value(outcome.p_value_holm),
        f"{outcome.num_diverged} of {outcome.num_seeds}",
        f"{outcome.num_failed} of {outcome.num_seeds}",
        f"{outcome.num_diverged_all_rates} of {outcome.num_runs_all_rates}",
        f"{outcome.num_failed_all_rates} of {outcome.num_runs_all_rates}",
        scale.plus_minus(outcome.network_test_accuracy),
        scale.value(outcome.validation_accuracy),
        text.p_value(outcome.p_value),
    ]


def outcomes_csv(
    outcomes: Sequence[ScheduleOutcome],
    extra: Mapping[str, Mapping[str, Any]] | None = None,
    scale: Scale = PERCENT,
) -> str:
    """The outcomes as CSV: a column per field, three (mean, `_low`, `_high`) per interval, fractions or in its unit.

    **Arguments:**

    - `outcomes`: of a result.
    - `extra`: by schedule, the columns that only one study has.
    - `scale`: of the result: where lower values are better, the file has the values and not their negatives.
    """
    more = extra or {}
    return csv_of([record_of(o, scale) | dict(more.get(o.schedule, {})) for o in outcomes])


def csv_of(records: Sequence[dict[str, Any]]) -> str:
    """`records`, mappings from columns to values, as a CSV file's text."""
    return pl.DataFrame(records, infer_schema_length=None).write_csv()


_INTERVALS = ("test_accuracy", "network_test_accuracy", "difference", "versus_even")


_SCORES = ("validation_accuracy", "bound")


def record_of(model: BaseModel, scale: Scale) -> dict[str, Any]:
    """The fields, with scores as the measure itself."""
    record = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name in _SCORES and scale.turned and value is not None:
            value = -value
        record |= interval_columns(name, scale.own(value)) if name in _INTERVALS else {name: value}
    return record


def interval_columns(name: str, interval: Interval | None) -> dict[str, float | None]:
    """The three columns of an interval, empty without one."""
    return {
        name: interval and interval.mean,
        f"{name}_low": interval and interval.low,
        f"{name}_high": interval and interval.high,
    }
