"""What terminals show of the stability study: up to which rate each schedule trains."""

from rich.text import Text

from relin.report import _text as text
from relin.report._terminal import Cell, Terminal, accuracy_columns, grid_terminal, on_par_note, par_columns
from relin.studies.stability.result import StabilityResult


def terminal(result: StabilityResult) -> Terminal:
    largest = {limit.schedule: limit.largest_rate for limit in result.limits}
    limit: Cell = lambda outcome, _: Text(text.rate(largest.get(outcome.schedule)))  # noqa: E731
    notes = ["trains to: the largest learning rate at which every run trained", on_par_note(result)]
    return grid_terminal(
        result, lambda layout: {"trains\nto": limit} | accuracy_columns(layout, result.scale) | par_columns(), notes
    )
