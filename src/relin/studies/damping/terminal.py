"""What terminals show of the damping study: each period beside the damping λ = 1/(ηK)."""

from relin.report._terminal import COUNTS, Terminal, untrained_note
from relin.studies.damping.result import DampingResult
from relin.studies.damping.table import damping_terminal_table


def terminal(result: DampingResult) -> Terminal:
    apart = "apart: both outputs at λ = 1/(ηK), in percent of their movement; kernel: its distance from the start"
    return Terminal(
        lambda _: [damping_terminal_table(result)], [apart, f"{COUNTS}, each at chance", untrained_note(result)]
    )
