"""The table of the width study: for the page, for the terminal, and in full precision for the file."""

from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.report._html import Column, Html, Row, table
from relin.report._tables import csv_of, interval_columns
from relin.report._terminal import Layout, plain_table
from relin.studies.width.result import WidthOutcome, WidthResult
from relin.study._scale import Scale


def width_table(result: WidthResult) -> Html:
    """Every width as HTML."""
    scale = result.scale
    columns = [
        Column("Width", numeric=False),
        Column("Learning rate", "K = 1"),
        Column("Learning rate", "K = ∞"),
        Column("Test accuracy K = 1", scale.headed("± 95 % interval")),
        Column("Test accuracy K = ∞", scale.headed("± 95 % interval")),
        Column("K = 1 less K = ∞", scale.headed("95 % interval", difference=True)),
        Column("Relative kernel change", "K = 1, ± 95 % interval"),
        Column("Kernel distance", "K = 1, ± 95 % interval"),
        Column("Initial deviation", "from width ∞"),
        Column("Diverged", "K = 1"),
        Column("Failed to train", "K = 1"),
        Column("Diverged", "K = ∞"),
        Column("Failed to train", "K = ∞"),
    ]
    rows = [Row(_cells(at, scale)) for at in result.widths]
    caption = (
        f"Every width at the learning rates chosen for it, {result.num_seeds} seeds. {text.EDGES_MEAN}. All numbers in "
        "full precision are in table.csv beside this page."
    )
    return table(caption, columns, rows)


def _cells(at: WidthOutcome, scale: Scale) -> list[str]:
    ordinary, lazy = at.ordinary, at.lazy
    return [
        text.count(at.width),
        text.chosen_rate(ordinary),
        text.chosen_rate(lazy),
        scale.plus_minus(ordinary.test_accuracy),
        scale.plus_minus(lazy.test_accuracy),
        scale.with_interval(at.gap),
        text.measured(at.change),
        text.measured(at.distance),
        text.measured(at.deviation),
        f"{ordinary.num_diverged} of {ordinary.num_seeds}",
        f"{ordinary.num_failed} of {ordinary.num_seeds}",
        f"{lazy.num_diverged} of {lazy.num_seeds}",
        f"{lazy.num_failed} of {lazy.num_seeds}",
    ]


def width_csv(result: WidthResult) -> str:
    """Every width as CSV: three columns (mean, `_low`, `_high`) per interval, fractions or in the measure's unit."""
    return csv_of([_record(at, result.scale) for at in result.widths])


def _record(at: WidthOutcome, scale: Scale) -> dict[str, Any]:
    record: dict[str, Any] = {"width": at.width}
    for name, outcome in (("ordinary", at.ordinary), ("lazy", at.lazy)):
        record |= {
            f"{name}_schedule": outcome.schedule,
            f"{name}_learning_rate": outcome.learning_rate,
            f"{name}_num_seeds": outcome.num_seeds,
            f"{name}_rate_edge": outcome.rate_edge,
            f"{name}_num_diverged": outcome.num_diverged,
            f"{name}_num_failed": outcome.num_failed,
        }
        record |= interval_columns(f"{name}_test_accuracy", scale.own(outcome.test_accuracy))
    record |= interval_columns("gap", scale.own(at.gap))
    record["num_kernel_seeds"] = at.num_seeds
    for name in ("change", "distance", "deviation"):
        record |= interval_columns(f"kernel_{name}", getattr(at, name))
    return record


def width_terminal_table(result: WidthResult, layout: Layout) -> Table:
    """Every width for a terminal."""
    scale, digits, gap, wrap = result.scale, layout.digits, layout.gap, layout.wrap
    columns: dict[str, Callable[[WidthOutcome], str]] = {
        "rates\n1, ∞": lambda at: f"{text.chosen_rate(at.ordinary)}, {text.chosen_rate(at.lazy)}",
        f"K = 1\n{scale.unit}": lambda at: scale.value(at.ordinary.test_accuracy.mean, digits),
        f"K = ∞\n{scale.unit}": lambda at: scale.value(at.lazy.test_accuracy.mean, digits),
        f"difference{wrap}\n{scale.points}": lambda at: (
            f"{scale.signed(at.gap.mean, digits)}{wrap}{scale.bracket(at.gap, digits).replace('+', '')}"
        ),
        "kernel\nchange": lambda at: text.measured(at.change, gap),
        "initial\ndeviation": lambda at: text.measured(at.deviation, gap),
        text.UNTRAINED_HEADING: lambda at: text.untrained_counts(
            at.ordinary.num_diverged + at.lazy.num_diverged, at.ordinary.num_failed + at.lazy.num_failed
        ),
    }
    title = f"{result.model} on {result.data}, {result.num_steps:,} steps, {result.num_seeds} seeds"
    shown = plain_table(title, ["width", *(heading.replace("\n\n", "\n") for heading in columns)])
    for at in result.widths:
        shown.add_row(text.count(at.width), *(Text(cell(at)) for cell in columns.values()))
    return shown
