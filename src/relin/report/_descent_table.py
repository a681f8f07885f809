"""The tables of the studies of full-batch descent: for the page, for the terminal, and in full precision for files."""

import math
from typing import Any

import polars as pl
from rich import box
from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.report._page import Column, Html, Row, table
from relin.report._table import interval_columns
from relin.study._descent_result import DampingResult, DampingRun, InterpolationResult, PeriodOutcome
from relin.study._result import Interval

NAMES = {"every": "K steps at an anchor", "gauss-newton": "Gauss–Newton"}


def damping_table(result: DampingResult) -> Html:
    columns = [
        Column("Method", numeric=False),
        Column("K, κ"),
        Column("Test accuracy", "%, ± 95 % interval"),
        Column("At equal loss", "%, ± 95 % interval"),
        Column("Training loss", "log₁₀"),
        Column("Kernel distance", "± 95 % interval"),
        Column("Diverged"),
        Column("Failed to train"),
    ]
    chosen = {("gauss-newton", result.gauss_newton.best), ("every", result.descent.best)}
    rows = [Row([NAMES[run.way], *_damping_cells(run)], marked=(run.way, run.number) in chosen) for run in result.runs]
    return table("Both methods at every damping; marked: the best on validation data.", columns, rows)


def _damping_cells(run: DampingRun) -> list[str]:
    return [
        text.short(run.number),
        text.plus_minus(run.test_accuracy),
        text.DASH if run.reached is None else text.plus_minus(run.reached),
        text.measured(run.train_loss),
        text.measured(run.kernel_distance),
        text.count(run.num_diverged),
        text.count(run.num_failed),
    ]


def damping_csv(result: DampingResult) -> str:
    rows = []
    for run in result.runs:
        row: dict[str, Any] = {"method": run.way, "number": run.number}
        row |= {"num_diverged": run.num_diverged, "num_failed": run.num_failed}
        row["validation_accuracy"] = run.validation_accuracy
        for name in ("test_accuracy", "reached", "train_loss", "kernel_distance"):
            row |= interval_columns(name, getattr(run, name))
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()


def distances_csv(result: DampingResult) -> str:
    rows = [
        {"after": ridge.after, "period": period, "kappa": kappa, "distance": distance}
        for ridge in result.ridges
        for period, row in zip(result.periods, ridge.distances, strict=True)
        for kappa, distance in zip(result.kappas, row, strict=True)
    ]
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()


def damping_terminal_table(result: DampingResult, frame: box.Box) -> Table:
    """Each period beside the damping λ = 1/(ηK), for a terminal."""
    title = f"{result.model} on {result.data}, {result.num_steps} outer steps, {result.num_seeds} seeds"
    shown = Table(title=Text(title), title_justify="left", box=frame, padding=(0, 1, 0, 0))
    shown.show_edge, shown.pad_edge = False, False
    headings = ["K", *(f"apart at\nstep {r.after}, %" for r in result.ridges), "K steps\ntest %", "Newton\ntest %"]
    for heading in [*headings, "K steps\nkernel", "Newton\nkernel", text.LOST_HEADING]:
        shown.add_column(Text(heading, justify="right"), justify="right", no_wrap=True)
    for place, period in enumerate(result.periods):
        descent, newton = result.run("every", period), result.run("gauss-newton", period)
        apart = [ridge.on_line[place] for ridge in result.ridges]
        shown.add_row(
            text.short(period),
            *(text.percent(None if i is None else i.mean, 1) for i in apart),
            text.percent(descent.test_accuracy.mean, 1),
            text.percent(newton.test_accuracy.mean, 1),
            *(text.significant(None if run.kernel_distance is None else run.kernel_distance.mean)
              for run in (descent, newton)),
            text.lost_counts(descent.num_diverged + newton.num_diverged, descent.num_failed + newton.num_failed),
        )  # fmt: skip
    return shown


def period(K: float) -> str:
    return "∞" if math.isinf(K) else text.short(K)


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
                period(at.period),
                _distance(at.to_ordinary),
                _distance(at.to_regression),
                text.plus_minus(at.test_accuracy),
                text.plus_minus(at.network_test_accuracy),
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

    return pl.DataFrame([row(at) for at in result.periods], infer_schema_length=None).write_csv()


def interpolation_terminal_table(result: InterpolationResult, gap: str, frame: box.Box) -> Table:
    """Every K for a terminal."""
    title = f"{result.model} on {result.data}, {result.num_steps:,} steps, {result.num_seeds} seeds"
    shown = Table(title=Text(title), title_justify="left", box=frame, padding=(0, 1, 0, 0))
    shown.show_edge, shown.pad_edge = False, False
    for heading in (
        "K",
        "to ordinary\ntraining",
        "to NTK\nregression",
        "accuracy\n%",
        "network's\n%",
        text.LOST_HEADING,
    ):
        shown.add_column(Text(heading, justify="right"), justify="right", no_wrap=True)
    for at in result.periods:
        shown.add_row(
            period(at.period),
            _distance(at.to_ordinary, gap),
            _distance(at.to_regression, gap),
            text.plus_minus(at.test_accuracy, 1, gap),
            text.plus_minus(at.network_test_accuracy, 1, gap),
            text.lost_counts(at.num_diverged, at.num_failed),
        )
    return shown
