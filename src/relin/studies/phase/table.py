"""The tables of the phase study: for the page, for the terminal, and in full precision for the file."""

from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.report._html import Column, Html, Row, prose, table
from relin.report._tables import csv_of, interval_columns, outcomes_table, record_of
from relin.report._terminal import Layout, plain_table
from relin.studies.phase.result import PhaseCell, PhaseResult, TotalOutcome
from relin.study._result import ScheduleOutcome
from relin.study._scale import Scale


def phase_tables(result: PhaseResult) -> list[Html]:
    """A table of how many updates suffice in each T, and one of every schedule for each T."""
    tables = [_totals_table(result)]
    for own in result.totals:
        cells = {cell.outcome.schedule: cell for cell in result.at(own.total)}
        part = result.model_copy(update={"outcomes": outcomes_of(result, own.total)})
        marked = [name for name, cell in cells.items() if cell.updates == own.enough_updates]
        tables += [
            Html(f'<h3 style="margin-top: 2rem">{prose(f"T = {own.total:,} steps")}</h3>'),
            outcomes_table(part, marked, "Marked: n*, the fewest updates that suffice.", _extra(cells, result.scale)),
        ]
    return tables


def outcomes_of(result: PhaseResult, total: int) -> list[ScheduleOutcome]:
    """Every schedule of a T, those without a place on the map too, with T left out of their labels."""
    prefix = f"T = {total}, "
    own = [outcome for outcome in result.outcomes if outcome.label.startswith(prefix)]
    return [outcome.model_copy(update={"label": outcome.label.removeprefix(prefix)}) for outcome in own]


def _extra(cells: dict[str, PhaseCell], scale: Scale) -> list[tuple[Column, Callable[[ScheduleOutcome], str]]]:
    def versus(outcome: ScheduleOutcome) -> str:
        cell = cells.get(outcome.schedule)
        return text.DASH if cell is None else scale.with_interval(cell.versus_best)

    def reaches(outcome: ScheduleOutcome) -> str:
        cell = cells.get(outcome.schedule)
        return text.DASH if cell is None else text.on_par(cell.reaches_best)

    return [
        (Column("Difference to the best T", scale.headed("95 % interval", difference=True)), versus),
        (Column("On par", "with the best T"), reaches),
    ]


def _totals_table(result: PhaseResult) -> Html:
    columns = [
        Column("Steps T", numeric=False),
        Column("n*", "updates that suffice"),
        Column("K", "of n*"),
        Column("Share", "n* of T − 1, %"),
        Column("n + 1", "where the mean loss is the margin"),
        Column("Test accuracy K = 1", result.scale.headed("± 95 % interval")),
        Column("Learning rate", "K = 1"),
    ]
    rows = [Row(_total_cells(result, own), marked=own.total == result.best_total) for own in result.totals]
    caption = (
        "How many feature updates suffice in each number of steps. Marked: the T whose ordinary training is best on "
        f"validation data. {text.EDGES_MEAN}."
    )
    return table(caption, columns, rows)


def _total_cells(result: PhaseResult, own: TotalOutcome) -> list[str]:
    share = None if own.enough_updates is None else own.enough_updates / (own.total - 1)
    ordinary = result.at(own.total)[-1].outcome
    return [
        text.count(own.total),
        text.count(own.enough_updates),
        text.period(own.period),
        text.percent(share, 1),
        text.significant(own.crossing),
        result.scale.plus_minus(ordinary.test_accuracy),
        text.chosen_rate(ordinary),
    ]


def phase_csv(result: PhaseResult) -> str:
    """Every cell of the map as CSV, then the schedules beside it: three columns an interval, fractions or in the
    measure's unit."""
    rows = []
    for own in result.totals:
        cells = {cell.outcome.schedule: cell for cell in result.at(own.total)}
        for outcome in outcomes_of(result, own.total):
            cell = cells.get(outcome.schedule)
            place = {"total": own.total, "updates": cell and cell.updates}
            versus = interval_columns("versus_best", result.scale.own(cell and cell.versus_best))
            best = {"p_value_best": cell and cell.p_value_best, "reaches_best": cell and cell.reaches_best}
            rows.append(place | record_of(outcome, result.scale) | versus | best)
    return csv_of(rows)


def totals_csv(result: PhaseResult) -> str:
    """How many updates suffice in each T, as CSV."""
    return csv_of([own.model_dump() for own in result.totals])


def phase_terminal_table(result: PhaseResult, layout: Layout) -> Table:
    """Every T for a terminal."""
    scale = result.scale
    heading = f"{result.model} on {result.data}, up to {result.num_steps:,} steps, {result.num_seeds} seeds"
    columns: dict[str, Callable[[TotalOutcome, list[PhaseCell]], str]] = {
        "n*": lambda own, _: text.count(own.enough_updates),
        "K": lambda own, _: text.period(own.period),
        "n + 1 at\nmargin": lambda own, _: text.significant(own.crossing),
        "rate\nK = 1": lambda _, cells: text.chosen_rate(cells[-1].outcome),
        f"K = 1\n{scale.unit}": lambda _, cells: scale.plus_minus(
            cells[-1].outcome.test_accuracy, layout.digits, layout.gap
        ),
        f"fewest updates\n{scale.points}": lambda _, cells: _fewest(cells, layout, scale),
        text.UNTRAINED_HEADING: lambda _, cells: text.untrained_counts(
            sum(cell.outcome.num_diverged for cell in cells), sum(cell.outcome.num_failed for cell in cells)
        ),
    }
    shown = plain_table(heading, ["T", *columns], layout.padding)
    for own in result.totals:
        shown.add_row(text.count(own.total), *(Text(cell(own, result.at(own.total))) for cell in columns.values()))
    return shown


def _fewest(cells: list[PhaseCell], layout: Layout, scale: Scale) -> str:
    """What the fewest updates tested lose."""
    first = cells[0]
    if first.outcome.difference is None:
        return text.DASH
    return f"{scale.signed(first.outcome.difference.mean, layout.digits)} (n = {text.count(first.updates)})"
