"""What terminals show of the interpolation study: where every K ended."""

from relin.report._terminal import COUNTS, Terminal, untrained_note
from relin.studies.interpolation.result import InterpolationResult
from relin.studies.interpolation.table import interpolation_terminal_table


def terminal(result: InterpolationResult) -> Terminal:
    apart = "distances in units of that between ordinary training and NTK regression"
    notes = [apart, f"{COUNTS}, each at chance", untrained_note(result)]
    return Terminal(lambda layout: [interpolation_terminal_table(result, layout.gap)], notes)
