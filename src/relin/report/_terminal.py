"""What a study concluded, for a terminal: one line a schedule where the width allows it, the verdict below."""

from dataclasses import dataclass
from typing import final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.study._result import FrequencyResult, ScheduleOutcome


@dataclass(frozen=True)
class _Layout:
    """How densely the table is set."""

    digits: int
    padding: int
    gap: str
    """Around ±."""
    wrap: str
    """Between a difference and its interval."""


_LAYOUTS = (
    _Layout(digits=2, padding=1, gap=" ", wrap=" "),
    _Layout(digits=2, padding=0, gap=" ", wrap=" "),
    _Layout(digits=2, padding=0, gap="", wrap=" "),
    _Layout(digits=2, padding=0, gap="", wrap="\n"),
    _Layout(digits=1, padding=0, gap="", wrap="\n"),
)


# A rule below the heading and a blank between columns.
_HEAD = box.Box("    \n    \n ── \n    \n    \n    \n    \n    \n")


@final
class _Summary:
    """Picks the roomiest layout that fits when it is rendered, so that from 70 characters on no number is cut."""

    def __init__(self, result: FrequencyResult):
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table(self._result, _LAYOUTS[-1])
        for layout in _LAYOUTS:
            candidate = _table(self._result, layout)
            if Measurement.get(console, options.update(max_width=10_000), candidate).maximum <= options.max_width:
                table = candidate
                break
        yield Group(table, Padding(_verdict(self._result), (1, 0, 0, 0)))


def terminal_summary(result: FrequencyResult) -> _Summary:
    """The result as something `rich.print` shows: the table of every schedule and the verdict in a panel.

    Accuracies are in percent, differences, intervals and bounds in percentage points.

    Raises:
        ValueError: the result has no outcome.
    """
    if not result.outcomes:
        raise ValueError(
            f"Expected at least one schedule in the result of study {result.study!r}, got no outcome; "
            "run the study before asking for its summary."
        )
    return _Summary(result)


def _table(result: FrequencyResult, layout: _Layout) -> Table:
    title = Text(f"{result.model} on {result.data}, {result.num_steps:,} steps, {result.num_seeds} seeds")
    # Padding on one side and no edge: only so do nine columns fit 80 characters.
    table = Table(title=title, title_justify="left", box=_HEAD, padding=(0, layout.padding, 0, 0))
    table.show_edge, table.pad_edge = False, False
    table.add_column("K", no_wrap=True)
    difference = f"difference{layout.wrap}to K = 1\npoints"
    headings = ("rate", "up-\ndates", "accuracy\n%", difference, "bound", "Holm\np", "on\npar", "div.")
    for heading in headings:
        table.add_column(Text(heading, justify="right"), justify="right", no_wrap=True)
    for outcome in result.outcomes:
        star = outcome.period is not None and outcome.period == result.k_star
        table.add_row(*_cells(outcome, layout), style="bold" if star else "")
    return table


def _cells(outcome: ScheduleOutcome, layout: _Layout) -> list[Text]:
    difference = outcome.difference
    if difference is None:
        compared = text.DASH
    else:
        interval = text.bracket(difference, layout.digits).replace("+", "").replace(", ", "," + layout.gap)
        compared = f"{text.signed(difference.mean, layout.digits)}{layout.wrap}{interval}"
    par = text.on_par(outcome.on_par)
    name = outcome.label if outcome.period is None else text.period(outcome.period)
    return [
        Text(name),
        Text(text.rate(outcome.learning_rate)),
        Text(text.count(outcome.feature_updates).replace(",", "")),
        Text(text.plus_minus(outcome.test_accuracy, layout.digits, layout.gap)),
        Text(compared),
        Text(text.signed(outcome.bound, layout.digits)),
        Text(text.p_value(outcome.p_value_holm)),
        Text(par, style={"✓": "green", "✗": "red"}.get(par, "")),
        Text(str(outcome.num_diverged), style="yellow" if outcome.num_diverged else ""),
    ]


def _verdict(result: FrequencyResult) -> Panel:
    runs = sum(outcome.num_runs_all_rates for outcome in result.outcomes)
    diverged = sum(outcome.num_diverged_all_rates for outcome in result.outcomes)
    note = Text(
        f"on par: the one-sided {100 * result.confidence:g} % bound excludes a loss of {text.points(result.margin)} "
        f"(Holm-corrected); div.: diverged runs at the chosen rate, each at chance; {diverged} of {runs} runs "
        "diverged at any rate",
        style="dim",
    )
    return Panel(Group(Text(result.verdict, style="bold"), note), title="verdict", title_align="left")
