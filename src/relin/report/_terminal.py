"""What a study concluded, for a terminal: one line a schedule where the width allows it, the verdict below."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast, final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.report._answers import answers, what_answers
from relin.report._descent_table import damping_terminal_table, interpolation_terminal_table
from relin.report._kernel_table import interval_of
from relin.report._width_table import width_terminal_table
from relin.study._descent_result import DampingResult, DescentResult, InterpolationResult
from relin.study._kernel_result import KernelResult, WidthResult
from relin.study._result import FrequencyResult, GridResult, ScheduleOutcome, StabilityResult, StudyResult


@dataclass(frozen=True)
class _Layout:
    """How densely the table is set."""

    digits: int
    padding: int
    gap: str
    """Around ±."""
    wrap: str
    """Between a difference and its interval."""
    parts: str = " "
    """Between a schedule and its parts."""


_LAYOUTS = (
    _Layout(digits=2, padding=1, gap=" ", wrap=" "),
    _Layout(digits=2, padding=0, gap=" ", wrap=" "),
    _Layout(digits=2, padding=0, gap="", wrap=" "),
    _Layout(digits=2, padding=0, gap="", wrap=" ", parts="\n"),
    _Layout(digits=2, padding=0, gap="", wrap="\n"),
    _Layout(digits=2, padding=0, gap="", wrap="\n", parts="\n"),
    _Layout(digits=1, padding=0, gap="", wrap="\n", parts="\n"),
)


# A rule below the heading and a blank between columns.
_HEAD = box.Box("    \n    \n ── \n    \n    \n    \n    \n    \n")

_Cell = Callable[[ScheduleOutcome, _Layout], Text]


@final
class _Summary:
    """Picks the roomiest layout that fits when it is rendered, so that from 70 characters on no number is cut."""

    def __init__(self, result: StudyResult):
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tables = _tables(self._result, _LAYOUTS[-1])
        for layout in _LAYOUTS:
            candidates = _tables(self._result, layout)
            wide = options.update(max_width=10_000)
            if all(Measurement.get(console, wide, table).maximum <= options.max_width for table in candidates):
                tables = candidates
                break
        shown: list[RenderableType] = [Padding(table, (0, 0, 1, 0)) for table in tables]
        yield Group(*shown, _verdict(self._result))


def terminal_summary(result: StudyResult) -> _Summary:
    """The result of any study as something `rich.print` shows: the table of every schedule, the verdict in a panel.

    Accuracies are in percent, differences, intervals and bounds in percentage points.

    Raises:
        ValueError: the result has no outcome.
    """
    if isinstance(result, GridResult) and not result.outcomes:
        raise ValueError(
            f"Expected at least one schedule in the result of study {result.study!r}, got no outcome; "
            "run the study before asking for its summary."
        )
    return _Summary(result)


def _tables(result: StudyResult, layout: _Layout) -> list[Table]:
    """One, or two where a study compares both with equal steps and with more steps at smaller rates."""
    if isinstance(result, FrequencyResult) and result.equal_distance is not None:
        more = "up to more at smaller learning rates"
        return [_table(result, layout), _table(result.equal_distance, layout, more)]
    if isinstance(result, WidthResult):
        return [width_terminal_table(result, layout.digits, layout.gap, layout.wrap, _HEAD)]
    if isinstance(result, DampingResult):
        return [damping_terminal_table(result, _HEAD)]
    if isinstance(result, InterpolationResult):
        return [interpolation_terminal_table(result, layout.gap, _HEAD)]
    return [_table(cast(GridResult, result), layout)]


def _table(result: GridResult, layout: _Layout, more: str = "") -> Table:
    steps = f"{result.num_steps:,} steps{more and ', ' + more}"
    title = Text(f"{result.model} on {result.data}, {steps}, {result.num_seeds} seeds")
    # Padding on one side and no edge: only so do nine columns fit 80 characters.
    table = Table(title=title, title_justify="left", box=_HEAD, padding=(0, layout.padding, 0, 0))
    table.show_edge, table.pad_edge = False, False
    table.add_column("K" if isinstance(result, FrequencyResult) else "schedule", no_wrap=True)
    columns = _columns(result, layout)
    for heading in columns:
        table.add_column(Text(heading, justify="right"), justify="right", no_wrap=True)
    bold = answers(result)
    for outcome in result.outcomes:
        cells = [cell(outcome, layout) for cell in columns.values()]
        style = "bold" if outcome.schedule in bold else ""
        table.add_row(_name(result, outcome, layout), *cells, style=style)
    return table


def _columns(result: GridResult, layout: _Layout) -> dict[str, _Cell]:
    """The columns after the name; where the question is up to which rate a schedule trains, that is one of them."""
    columns: dict[str, _Cell] = {
        "rate": lambda outcome, _: Text(text.chosen_rate(outcome)),
        "up-\ndates": lambda outcome, _: Text(text.count(outcome.feature_updates).replace(",", "")),
        "accuracy\n%": lambda outcome, own: Text(text.plus_minus(outcome.test_accuracy, own.digits, own.gap)),
        f"difference{layout.wrap}to K = 1\npoints": _difference,
    }
    tested: dict[str, _Cell] = {
        "bound": lambda outcome, own: Text(text.signed(outcome.bound, own.digits)),
        "Holm\np": lambda outcome, _: Text(text.p_value(outcome.p_value_holm)),
    }
    if isinstance(result, KernelResult):
        return _kernel_columns(result, layout)
    if isinstance(result, StabilityResult):
        largest = {limit.schedule: limit.largest_rate for limit in result.limits}
        limit: _Cell = lambda outcome, _: Text(text.optional_rate(largest.get(outcome.schedule)))  # noqa: E731
        columns = {"trains\nto": limit} | columns
    else:
        columns |= tested
    return columns | {
        "on\npar": _on_par,
        text.LOST_HEADING: _counts,
    }


def _counts(outcome: ScheduleOutcome, _: _Layout) -> Text:
    counts = text.lost_counts(outcome.num_diverged, outcome.num_failed)
    return Text(counts, style="yellow" if outcome.num_untrained else "")


def _kernel_columns(result: KernelResult, layout: _Layout) -> dict[str, _Cell]:
    """What the kernel did, in the place of the difference and its test."""
    metrics = {"kernel\ndistance": "distance", "relative\nchange": "change", "align-\nment": "alignment"}

    def cell(field: str) -> _Cell:
        return lambda outcome, own: Text(text.measured(interval_of(result, outcome, field), own.gap))

    return {
        "rate": lambda outcome, _: Text(text.chosen_rate(outcome)),
        "up-\ndates": lambda outcome, _: Text(text.count(outcome.feature_updates).replace(",", "")),
        "accuracy\n%": lambda outcome, own: Text(text.plus_minus(outcome.test_accuracy, own.digits, own.gap)),
        **{heading: cell(field) for heading, field in metrics.items()},
        text.LOST_HEADING: _counts,
    }


def _name(result: GridResult, outcome: ScheduleOutcome, layout: _Layout) -> Text:
    if isinstance(result, FrequencyResult) and outcome.period is not None:
        return Text(text.period(outcome.period))
    return Text(outcome.label.replace(", ", "," + layout.parts))


def _difference(outcome: ScheduleOutcome, layout: _Layout) -> Text:
    difference = outcome.difference
    if difference is None:
        return Text(text.DASH)
    interval = text.bracket(difference, layout.digits).replace("+", "").replace(", ", "," + layout.gap)
    return Text(f"{text.signed(difference.mean, layout.digits)}{layout.wrap}{interval}")


def _on_par(outcome: ScheduleOutcome, _: _Layout) -> Text:
    par = text.on_par(outcome.on_par)
    return Text(par, style={"✓": "green", "✗": "red"}.get(par, ""))


def _verdict(result: StudyResult) -> Panel:
    clauses = _descent_notes(result) if isinstance(result, DescentResult) else _notes(cast(GridResult, result))
    note = Text("; ".join(clauses), style="dim")
    return Panel(Group(Text(result.verdict, style="bold"), note), title="verdict", title_align="left")


def _descent_notes(result: DescentResult) -> list[str]:
    if isinstance(result, DampingResult):
        apart = "apart: both outputs at λ = 1/(ηK), in percent of their movement; kernel: its distance from the start"
    else:
        apart = "distances in units of that between ordinary training and NTK regression"
    return [apart, f"{_COUNTS}, each at chance", _lost(result)]


_COUNTS = "div., fail: runs that diverged, and that failed to train"


def _lost(result: DescentResult | GridResult) -> str:
    lost = text.lost_words(result.num_diverged, result.num_failed)
    return f"of {result.num_runs} runs {lost}" if lost else f"all {result.num_runs} runs trained"


def _notes(result: GridResult) -> list[str]:
    clauses = [
        f"on par: the one-sided {100 * result.confidence:g} % bound excludes a loss of {text.points(result.margin)} "
        "(Holm-corrected)",
        f"{_COUNTS}, at the chosen rate, each at chance",
        f"{_lost(result)} at any rate",
    ]
    if any(outcome.rate_edge is not None for outcome in result.outcomes):
        clauses.append(text.EDGES_MEAN)
    if isinstance(result, WidthResult):
        clauses[0] = (
            "rates: of K = 1 and K = ∞; difference: K = 1 less K = ∞; kernel change: relative, at K = 1; deviation: "
            "from the kernel of infinite width"
        )
    if isinstance(result, KernelResult):
        clauses[0] = "distance and change: of the kernel, from step 0; alignment: with the targets, at the end"
    if isinstance(result, StabilityResult):
        clauses.insert(0, "trains to: the largest learning rate at which every run trained")
    if not isinstance(result, FrequencyResult) and what_answers(result):
        clauses.append(f"in bold: {what_answers(result)}")
    return clauses
