"""The placements as a table: for the page, and in full precision for files."""

from relin.report import _text as text
from relin.report._html import Column, Html, Row, table
from relin.report._tables import csv_of, record_of
from relin.studies.timing.result import TimingResult


def placements_table(result: TimingResult) -> Html:
    """Every placement of every number of feature updates as HTML; the best of each number is marked."""
    scale = result.scale
    columns = [
        Column("Feature updates that may be spent", numeric=False),
        Column("Placement", numeric=False),
        Column("Schedule", numeric=False),
        Column("Feature updates", "spent, mean"),
        Column("Test accuracy", scale.headed("± 95 % interval")),
        Column("Difference to even", scale.headed("95 % interval", difference=True)),
        Column("On par", "with K = 1"),
    ]
    rows = []
    for placement in result.placements:
        outcome = result.outcome(placement.schedule)
        if outcome is None:
            continue
        cells = [
            text.count(placement.budget),
            placement.placement,
            outcome.label,
            text.count(placement.feature_updates),
            scale.plus_minus(outcome.test_accuracy),
            scale.with_interval(placement.versus_even),
            text.on_par(outcome.on_par),
        ]
        rows.append(Row(cells, marked=result.best.get(placement.budget) == placement.placement))
    caption = (
        "Every way of spending a number of feature updates; marked rows have the best mean test accuracy of their "
        "number. Differences to the even placement are paired by seed, without correction for the number of "
        "comparisons. All numbers in full precision are in placements.csv beside this page."
    )
    return table(caption, columns, rows)


def placements_csv(result: TimingResult) -> str:
    """The placements as CSV, as `outcomes_csv` has the outcomes."""
    return csv_of([record_of(placement, result.scale) for placement in result.placements])
