"""The tables of the interpolation study: for the page, for the terminal, and in full precision for files."""

from typing import Any

from rich.table import Table

from relin.report import _text as text
from relin.report._html import Column, Html, Row, table
from relin.report._tables import csv_of, interval_columns
from relin.report._terminal import plain_table
from relin.studies.interpolation.result import InterpolationResult, PeriodOutcome
from relin.study._result import Interval
from relin.study._scale import PERCENT


def interpolation_table(result: InterpolationResult) -> Html:
    columns = [
        Column("K", numeric=False),
        Column("To ordinary training", "± 95 % interval"),
        Column("To NTK regression", "± 95 % interval"),
        Column("Test accuracy", "%, ± 95 % interval"),
        Column("Network’s", "%, ± 95 % interval"),
        Column("Diverged"),
        Column("Failed to train"),
    ]
    rows = [
        Row(
            [
                text.short(at.period),
                _distance(at.to_ordinary),
                _distance(at.to_regression),
                PERCENT.plus_minus(at.test_accuracy),
                PERCENT.plus_minus(at.network_test_accuracy),
                text.count(at.num_diverged),
                text.count(at.num_failed),
            ]
        )
        for at in result.periods
    ]
    return table(f"Every K after {result.num_steps:,} steps, {result.num_seeds} seeds.", columns, rows)


def _distance(interval: Interval | None, gap: str = " ") -> str:
    """Mean ± half the interval, or a power of ten where it is next to nothing."""
    if interval is not None and interval.mean < 1e-4:
        return text.power(float(f"{interval.mean:.1g}"))
    return text.measured(interval, gap)


def interpolation_csv(result: InterpolationResult) -> str:
    def row(at: PeriodOutcome) -> dict[str, Any]:
        cells: dict[str, Any] = {"period": at.period, "num_diverged": at.num_diverged, "num_failed": at.num_failed}
        for name in ("to_ordinary", "to_regression", "test_accuracy", "network_test_accuracy"):
            cells |= interval_columns(name, getattr(at, name))
        return cells

    return csv_of([row(at) for at in result.periods])


def interpolation_terminal_table(result: InterpolationResult, gap: str) -> Table:
    """Every K for a terminal."""
    title = f"{result.model} on {result.data}, {result.num_steps:,} steps, {result.num_seeds} seeds"
    headings = ["K", "to ordinary\ntraining", "to NTK\nregression", "accuracy\n%", "network's\n%"]
    shown = plain_table(title, [*headings, text.UNTRAINED_HEADING])
    for at in result.periods:
        shown.add_row(
            text.short(at.period),
            _distance(at.to_ordinary, gap),
            _distance(at.to_regression, gap),
            PERCENT.plus_minus(at.test_accuracy, 1, gap),
            PERCENT.plus_minus(at.network_test_accuracy, 1, gap),
            text.untrained_counts(at.num_diverged, at.num_failed),
        )
    return shown
