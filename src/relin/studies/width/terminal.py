"""What terminals show of the width study: a row for each width."""

from relin.report._terminal import Terminal, grid_notes
from relin.studies.width.result import WidthResult
from relin.studies.width.table import width_terminal_table


def terminal(result: WidthResult) -> Terminal:
    notes = [
        "rates: of K = 1 and K = ∞; difference: K = 1 less K = ∞; kernel change: relative, at K = 1; deviation: "
        "from the kernel of infinite width"
    ]
    return Terminal(lambda layout: [width_terminal_table(result, layout)], grid_notes(result, notes))
