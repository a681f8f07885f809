"""The drawings of the essential study: accuracy against when features freeze or start to move, learning curves."""

import math
from typing import Literal

from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import (
    accuracy_axis,
    draw_schedule,
    is_far_below,
    legend_below,
    note_untrained,
    par_handles,
)
from relin.report._axes import NumberAxis, UpdatesAxis
from relin.report._curves import Line, learning_curves
from relin.report._records import StudyRecords
from relin.report._style import Theme, new_figure
from relin.studies.essential.result import EssentialResult
from relin.study._abstract import Against
from relin.study._condition import parse_condition
from relin.study._result import ScheduleOutcome

Kind = Literal["until", "after"]
"""Features are frozen after a number of updates, or start to move at a step."""

KINDS: tuple[Kind, ...] = ("until", "after")

_AXES: dict[Kind, tuple[tuple[str, str], str]] = {
    "until": (("all\n(ordinary)", "none\n(lazy)"), "feature updates before features are frozen"),
    "after": (("first\n(ordinary)", "never\n(lazy)"), "step from which features move"),
}
"""The ends of ordinary and of lazy training, and what is between."""


def family(result: EssentialResult, kind: Kind) -> list[tuple[int, ScheduleOutcome]]:
    """The schedules of a kind without modifiers, by increasing number of updates or step."""
    conditions = [(parse_condition(outcome.schedule), outcome) for outcome in result.outcomes]
    own = [
        (int(condition.value), outcome)
        for condition, outcome in conditions
        if condition.kind == kind and not condition.modifiers
    ]
    return sorted((number, outcome) for number, outcome in own if number > 0)


def accuracy_against_number(
    result: EssentialResult, records: StudyRecords, kind: Kind, theme: Theme, against: Against = "n"
) -> Figure:
    """Test accuracy against the number of updates or the starting step, between lazy and ordinary training."""
    updates = UpdatesAxis(against, result.num_steps)
    members = [(updates.at(n) if kind == "until" else n, outcome) for n, outcome in family(result, kind)]
    lazy_right = kind == "after" or updates.is_turned
    ends, name = _AXES[kind]
    name = updates.named(name) if kind == "until" else name
    figure = new_figure(11.5, 6.2)
    axes = figure.subplots()
    axis = NumberAxis([0.0, *(number for number, _ in members), math.inf])
    ordinary, lazy = result.outcome("every-1"), result.outcome("never")
    at_left, at_right = (ordinary, lazy) if lazy_right else (lazy, ordinary)
    places = [*members, *((end, o) for end, o in ((0.0, at_left), (math.inf, at_right)) if o is not None)]
    axis.draw(axes, theme, name, ends=ends if lazy_right else (ends[1], ends[0]))
    joined = [(axis.at(number), outcome) for number, outcome in members if not is_far_below(outcome, result)]
    axes.plot(
        [x for x, _ in joined],
        [result.scale.factor * outcome.test_accuracy.mean for _, outcome in joined],
        color=theme.muted,
        alpha=0.4,
        zorder=1,
    )
    shown = list[float]()
    for number, outcome in places:
        share = axis.share(number)  # from the colour of ordinary training to that of lazy training
        colour = theme.between(share if lazy_right else 1 - share)
        shown += draw_schedule(axes, axis.at(number), outcome, records, colour, theme)
    rows = note_untrained(axes, [(axis.at(number), outcome) for number, outcome in places], records, theme)
    accuracy_axis(axes, result, shown, theme, rows)
    legend_below(figure, par_handles(result, theme), theme)
    return figure


def selection(result: EssentialResult) -> list[ScheduleOutcome]:
    """At most eight schedules that tell the story: ordinary, of each kind the ends and the answer, lazy."""
    chosen = [result.outcome("every-1")]
    for kind, answer in zip(KINDS, (result.enough_updates, result.latest_start), strict=True):
        members = family(result, kind)
        numbers = [number for number, _ in members]
        wanted = {0, len(members) - 1, numbers.index(answer) if answer in numbers else 0}
        chosen += [members[index][1] for index in sorted(wanted) if 0 <= index < len(members)]
    chosen.append(result.outcome("never"))
    return [outcome for outcome in chosen if outcome is not None]


def essential_curves(result: EssentialResult, records: StudyRecords, theme: Theme) -> Figure:
    """Learning curves of ordinary and lazy training, and between them of features frozen early or moved late."""
    shares = {"every-1": 0.0, "never": 1.0}
    for kind in KINDS:
        members = family(result, kind)
        for index, (_, outcome) in enumerate(members):
            share = (index + 1) / (len(members) + 1)
            shares[outcome.schedule] = 1 - share if kind == "until" else share
    lines = [
        Line(
            outcome,
            text.schedule(outcome),
            theme.between(shares[outcome.schedule]),
            "--" if parse_condition(outcome.schedule).kind == "after" else "-",
        )
        for outcome in selection(result)
    ]
    return learning_curves(result, records, lines, theme)
