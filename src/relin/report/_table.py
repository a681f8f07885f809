"""The table of the frequency study: for the page in percent, for the file in full precision."""

from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._page import Column, Html, Row, table
from relin.study._result import FrequencyResult, Interval, ScheduleOutcome


def frequency_table(result: FrequencyResult) -> Html:
    """The table of every schedule as HTML; the row of K* is marked."""
    columns = [
        Column("Schedule", numeric=False),
        Column("On par"),
        Column("Feature updates", "mean of a run"),
        Column("Learning rate", "chosen"),
        Column("Test accuracy", "%, ± 95 % interval"),
        Column("Difference to K = 1", "points, 95 % interval"),
        Column("Bound", f"one-sided {100 * result.confidence:g} %"),
        Column("p", "Holm"),
        Column("Diverged", "of seeds"),
        Column("Diverged", "at any rate"),
        Column("Network accuracy", "%, f(·; θ)"),
        Column("Validation accuracy", "%"),
        Column("p", "uncorrected"),
    ]
    rows = [Row(_cells(o), marked=o.period is not None and o.period == result.k_star) for o in result.outcomes]
    caption = (
        f"Every schedule at the learning rate chosen for it, {result.num_seeds} seeds. The marked row is K*. "
        "All numbers in full precision are in table.csv beside this page."
    )
    return table(caption, columns, rows)


def _cells(outcome: ScheduleOutcome) -> list[str]:
    difference = outcome.difference
    return [
        outcome.label,
        text.on_par(outcome.on_par),
        text.count(outcome.feature_updates),
        text.rate(outcome.learning_rate),
        text.plus_minus(outcome.test_accuracy),
        text.DASH if difference is None else f"{text.signed(difference.mean)} {text.bracket(difference)}",
        text.signed(outcome.bound),
        text.p_value(outcome.p_value_holm),
        f"{outcome.num_diverged} of {outcome.num_seeds}",
        f"{outcome.num_diverged_all_rates} of {outcome.num_runs_all_rates}",
        text.plus_minus(outcome.network_test_accuracy),
        text.percent(outcome.validation_accuracy),
        text.p_value(outcome.p_value),
    ]


def frequency_csv(result: FrequencyResult) -> str:
    """The outcomes as CSV: a column per field, three (mean, `_low`, `_high`) per interval, fractions throughout."""
    return pl.DataFrame([_record(o) for o in result.outcomes], infer_schema_length=None).write_csv()


def _record(outcome: ScheduleOutcome) -> dict[str, Any]:
    record = {}
    for name in type(outcome).model_fields:
        value = getattr(outcome, name)
        if name in ("test_accuracy", "network_test_accuracy", "difference"):
            interval = value if isinstance(value, Interval) else None
            record[name] = interval and interval.mean
            record[f"{name}_low"] = interval and interval.low
            record[f"{name}_high"] = interval and interval.high
        else:
            record[name] = value
    return record
