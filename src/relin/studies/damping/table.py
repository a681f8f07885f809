"""The tables of the damping study: for the page, for the terminal, and in full precision for files."""

from typing import Any

from rich.table import Table

from relin.report import _text as text
from relin.report._html import Column, Html, Row, table
from relin.report._tables import csv_of, interval_columns
from relin.report._terminal import plain_table
from relin.studies.damping.result import DampingResult, DampingRun
from relin.study._scale import PERCENT

NAMES = {"every": "K steps at an anchor", "gauss-newton": "Gauss–Newton"}


def damping_table(result: DampingResult) -> Html:
    columns = [
        Column("Condition", numeric=False),
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
        PERCENT.plus_minus(run.test_accuracy),
        text.DASH if run.reached is None else PERCENT.plus_minus(run.reached),
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
    return csv_of(rows)


def distances_csv(result: DampingResult) -> str:
    rows = [
        {"after": ridge.after, "period": period, "kappa": kappa, "distance": distance}
        for ridge in result.ridges
        for period, row in zip(result.periods, ridge.distances, strict=True)
        for kappa, distance in zip(result.kappas, row, strict=True)
    ]
    return csv_of(rows)


def damping_terminal_table(result: DampingResult) -> Table:
    """Each period beside the damping λ = 1/(ηK), for a terminal."""
    title = f"{result.model} on {result.data}, {result.num_steps} outer steps, {result.num_seeds} seeds"
    headings = ["K", *(f"apart at\nstep {r.after}, %" for r in result.ridges), "K steps\ntest %", "Newton\ntest %"]
    shown = plain_table(title, [*headings, "K steps\nkernel", "Newton\nkernel", text.UNTRAINED_HEADING])
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
            text.untrained_counts(descent.num_diverged + newton.num_diverged, descent.num_failed + newton.num_failed),
        )  # fmt: skip
    return shown
