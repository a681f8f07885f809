"""What a study concluded, for a terminal: one line a schedule where the width allows it, the verdict below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, final

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from relin.report import _text as text
from relin.study._registry import find
from relin.study._result import GridResult, ScheduleOutcome, StudyResult
from relin.study._scale import Scale
from relin.study._verdict import in_measure


@dataclass(frozen=True)
class Layout:
    """How densely a table is set."""

    digits: int
    """After the point."""
    padding: int
    """Spaces between columns."""
    gap: str
    """Around ±."""
    wrap: str
    """Between a difference and its interval."""
    parts: str = " "
    """Between a schedule and its parts."""


_LAYOUTS = (
    Layout(digits=2, padding=1, gap=" ", wrap=" "),
    Layout(digits=2, padding=0, gap=" ", wrap=" "),
    Layout(digits=2, padding=0, gap="", wrap=" "),
    Layout(digits=2, padding=0, gap="", wrap=" ", parts="\n"),
    Layout(digits=2, padding=0, gap="", wrap="\n"),
    Layout(digits=2, padding=0, gap="", wrap="\n", parts="\n"),
    Layout(digits=1, padding=0, gap="", wrap="\n", parts="\n"),
)


# A rule below the heading and a blank between columns.
_HEAD = box.Box("    \n    \n ── \n    \n    \n    \n    \n    \n")

Cell = Callable[[ScheduleOutcome, Layout], Text]


@dataclass(frozen=True)
class Terminal:
    """What a study shows on a terminal beside its verdict."""

    tables: Callable[[Layout], list[Table]]
    """The tables, set as densely as the layout says."""
    notes: Sequence[str]
    """What the tables' words mean, below the verdict."""


@final
class _Summary:
    """Picks the roomiest layout that fits when it is rendered, so that from 70 characters on no number is cut."""

    def __init__(self, result: StudyResult, shown: Terminal):
        self._verdict, self._shown, self._measure = result.verdict, shown, result.measure

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tables = self._shown.tables(_LAYOUTS[-1])
        for layout in _LAYOUTS:
            candidates = self._shown.tables(layout)
            wide = options.update(max_width=10_000)
            if all(Measurement.get(console, wide, table).maximum <= options.max_width for table in candidates):
                tables = candidates
                break
        for column in (column for table in tables for column in table.columns):
            column.header = Text(in_measure(str(column.header), self._measure), justify=column.justify)
        shown: list[RenderableType] = [Padding(table, (0, 0, 1, 0)) for table in tables]
        note = Text(in_measure("; ".join(self._shown.notes), self._measure), style="dim")
        verdict = Group(Text(self._verdict, style="bold"), note)
        yield Group(*shown, Panel(verdict, title="verdict", title_align="left"))


def terminal_summary(result: StudyResult) -> _Summary:
    """The result of any study as something `rich.print` shows: its tables, and the verdict in a panel.

    Accuracies are in percent, differences, intervals and bounds in percentage points; measures of one's own in their
    unit.

    **Raises:** `ValueError`: the result has no outcome, or there is no study of its name.

    **Arguments:**

    - `result`: of any study.
    """
    if isinstance(result, GridResult) and not result.outcomes:
        raise ValueError(
            f"Expected at least one schedule in the result of study {result.study!r}, got no outcome; "
            "run the study before asking for its summary."
        )
    shown = find(result.study).terminal(result) or grid_terminal(cast(GridResult, result))
    return _Summary(result, shown)


def grid_terminal(
    result: GridResult,
    columns: Callable[[Layout], dict[str, Cell]] | None = None,
    notes: Sequence[str] | None = None,
) -> Terminal:
    """The table of every schedule.

    **Arguments:**

    - `result`: what was concluded.
    - `columns`: those after the name, by heading; `accuracy_columns` and `test_columns` by default.
    - `notes`: in the place of what *on par* means.
    """
    own = columns or (lambda layout: accuracy_columns(layout, result.scale) | test_columns(result.scale))
    return Terminal(lambda layout: [schedules_table(result, layout, own(layout))], grid_notes(result, notes))


def plain_table(title: str, headings: Sequence[str], padding: int = 1, names: int = 0) -> Table:
    """A table without edges; the first `names` columns are left-aligned.

    **Arguments:**

    - `title`: stands above it.
    - `headings`: one a column.
    - `padding`: spaces after each cell.
    - `names`: how many columns, the first, are left-aligned.
    """
    # Padding on one side and no edge: only so do nine columns fit 80 characters.
    table = Table(title=Text(title), title_justify="left", box=_HEAD, padding=(0, padding, 0, 0))
    table.show_edge, table.pad_edge = False, False
    for place, heading in enumerate(headings):
        side = "left" if place < names else "right"
        table.add_column(Text(heading, justify=side), justify=side, no_wrap=True)
    return table


def schedules_table(
    result: GridResult,
    layout: Layout,
    columns: dict[str, Cell],
    first: str = "schedule",
    name: Callable[[ScheduleOutcome], str] = lambda outcome: outcome.label,
    more: str = "",
) -> Table:
    """A row for each schedule, those that answer the question in bold; `more` says more of the steps."""
    steps = f"{result.num_steps:,} steps{more and ', ' + more}"
    title = f"{result.model} on {result.data}, {steps}, {result.num_seeds} seeds"
    table = plain_table(title, [first, *columns], layout.padding, names=1)
    for outcome in result.outcomes:
        label = Text(name(outcome).replace(", ", "," + layout.parts))
        style = "bold" if outcome.schedule in result.answers else ""
        table.add_row(label, *(cell(outcome, layout) for cell in columns.values()), style=style)
    return table


def run_columns(scale: Scale) -> dict[str, Cell]:
    """Learning rate, feature updates and accuracy."""
    return {
        "rate": lambda outcome, _: Text(text.chosen_rate(outcome)),
        "up-\ndates": lambda outcome, _: Text(text.count(outcome.feature_updates).replace(",", "")),
        f"accuracy\n{scale.unit}": lambda outcome, own: Text(
            scale.plus_minus(outcome.test_accuracy, own.digits, own.gap)
        ),
    }


def accuracy_columns(layout: Layout, scale: Scale) -> dict[str, Cell]:
    """These, and the difference to ordinary training."""
    return run_columns(scale) | {f"difference{layout.wrap}to K = 1\n{scale.points}": partial(_difference, scale)}


def test_columns(scale: Scale) -> dict[str, Cell]:
    """Bound and p-value of the test against the margin, its outcome, and runs that did not train."""
    return {
        "bound": lambda outcome, own: Text(scale.signed(outcome.bound, own.digits)),
        "Holm\np": lambda outcome, _: Text(text.p_value(outcome.p_value_holm)),
    } | par_columns()


def par_columns() -> dict[str, Cell]:
    """Whether a schedule is on par, and its runs that did not train."""
    return {"on\npar": _on_par} | untrained_columns()


def untrained_columns() -> dict[str, Cell]:
    return {text.UNTRAINED_HEADING: _counts}


def _counts(outcome: ScheduleOutcome, _: Layout) -> Text:
    counts = text.untrained_counts(outcome.num_diverged, outcome.num_failed)
    return Text(counts, style="yellow" if outcome.num_untrained else "")


def _difference(scale: Scale, outcome: ScheduleOutcome, layout: Layout) -> Text:
    difference = outcome.difference
    if difference is None:
        return Text(text.DASH)
    interval = scale.bracket(difference, layout.digits).replace("+", "").replace(", ", "," + layout.gap)
    return Text(f"{scale.signed(difference.mean, layout.digits)}{layout.wrap}{interval}")


def _on_par(outcome: ScheduleOutcome, _: Layout) -> Text:
    par = text.on_par(outcome.on_par)
    return Text(par, style={"✓": "green", "✗": "red"}.get(par, ""))


COUNTS = "div., fail: runs that diverged, and that failed to train"


def untrained_note(result: Any) -> str:
    """How many of the runs of a result did not train."""
    untrained = text.untrained_words(result.num_diverged, result.num_failed)
    return f"of {result.num_runs} runs {untrained}" if untrained else f"all {result.num_runs} runs trained"


def grid_notes(result: GridResult, first: Sequence[str] | None = None, bold: bool = True) -> list[str]:
    """What the words of a table of schedules mean; `first` stands in the place of what *on par* means."""
    scale = result.scale
    par = (
        f"on par: the one-sided {100 * result.confidence:g} % bound excludes a {scale.loss} of {scale.margin_words()} "
        "(Holm-corrected)"
    )
    clauses = [
        *([par] if first is None else first),
        f"{COUNTS}, at the chosen rate, each at chance",
        f"{untrained_note(result)} at any rate",
    ]
    if any(outcome.rate_edge is not None for outcome in result.outcomes):
        clauses.append(text.EDGES_MEAN)
    if bold and result.what_answers:
        clauses.append(f"in bold: {result.what_answers}")
    return clauses


def on_par_note(result: GridResult) -> str:
    return grid_notes(result)[0]
