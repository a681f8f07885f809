"""What terminals show of the kernel study: what the kernel did, in the place of the difference and its test."""

from rich.text import Text

from relin.report import _text as text
from relin.report._terminal import Cell, Terminal, grid_terminal, run_columns, untrained_columns
from relin.studies.kernel.result import KernelResult
from relin.studies.kernel.table import interval_of


def terminal(result: KernelResult) -> Terminal:
    metrics = {"kernel\ndistance": "distance", "relative\nchange": "change", "align-\nment": "alignment"}

    def cell(field: str) -> Cell:
        return lambda outcome, own: Text(text.measured(interval_of(result, outcome, field), own.gap))

    own = {heading: cell(field) for heading, field in metrics.items()}
    notes = ["distance and change: of the kernel, from step 0; alignment: with the targets, at the end"]
    return grid_terminal(result, lambda _: run_columns(result.scale) | own | untrained_columns(), notes)
