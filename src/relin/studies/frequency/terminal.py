"""What terminals show of the frequency study: a table, or two where both comparisons are made."""

from rich.table import Table

from relin.report import _text as text
from relin.report._terminal import Layout, Terminal, accuracy_columns, grid_notes, schedules_table, test_columns
from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome


def terminal(result: FrequencyResult) -> Terminal:
    def tables(layout: Layout) -> list[Table]:
        shown = [_table(result, layout)]
        if result.equal_distance is not None:
            shown.append(_table(result.equal_distance, layout, "up to more at smaller learning rates"))
        return shown

    return Terminal(tables, grid_notes(result, bold=False))


def _table(result: FrequencyResult, layout: Layout, more: str = "") -> Table:
    columns = accuracy_columns(layout, result.scale) | test_columns(result.scale)
    return schedules_table(result, layout, columns, "K", _name, more)


def _name(outcome: ScheduleOutcome) -> str:
    return outcome.label if outcome.period is None else text.period(outcome.period)
