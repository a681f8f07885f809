"""What terminals show of the phase study: a row for each number of steps."""

from relin.report._terminal import Terminal, grid_notes, on_par_note
from relin.studies.phase.result import PhaseResult
from relin.studies.phase.table import phase_terminal_table


def terminal(result: PhaseResult) -> Terminal:
    notes = [
        on_par_note(result),
        "n*: fewest feature updates on par together with every larger number tested",
        "n + 1 at margin: where the mean loss reaches the margin",
    ]
    return Terminal(lambda layout: [phase_terminal_table(result, layout)], grid_notes(result, notes))
