"""The drawings of the frequency study: accuracy against K and feature updates, learning curves, linearity."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relin.report import _text as text
from relin.report._accuracy import (
    SMALL,
    accuracy_axis,
    band_labels,
    band_values,
    draw_bands,
    draw_mean,
    draw_schedule,
    ends,
    floor,
    is_far_below,
    legend_below,
    limits,
    name_axis,
    note_untrained,
    par_handles,
    point_below,
    shown_values,
    turn_axis,
)
from relin.report._axes import BESIDE_INCHES, UpdatesAxis
from relin.report._curves import Line, learning_curves
from relin.report._labels import Name, label_right, name_marks
from relin.report._style import Theme, new_figure
from relin.studies.frequency.data import (
    FrequencyRecords,
    Schedules,
    answer_of,
    sparse_period,
    stands_beside,
    with_period,
)
from relin.studies.frequency.result import FrequencyResult
from relin.study._abstract import Against
from relin.study._result import Interval, ScheduleOutcome
from relin.study._scale import Scale

COMPARISONS = {"equal-steps": "equal steps", "equal-distance": "equal learning rate × steps"}
"""What a comparison keeps equal, in words."""
PERIOD = "K, steps between feature updates"


def accuracy_against_period(records: FrequencyRecords, theme: Theme) -> Figure:
    """Test accuracy against K: means with intervals, one dot a seed, bands of ordinary and lazy training."""
    beside = sum(map(stands_beside, records.result.outcomes))
    width = 11.5 + BESIDE_INCHES * max(0, beside - 2)
    figure = new_figure(width, 6.2)
    schedules = Schedules(records.result.outcomes, inches=width - 3.0)
    _draw_periods([figure.subplots()], [schedules], [records], theme)
    _legend(figure, schedules, records.result, theme)
    return figure


def both_comparisons(answers: Sequence[FrequencyRecords], theme: Theme) -> Figure:
    """Test accuracy against K in a panel for each comparison, on one axis of accuracy."""
    figure = new_figure(15.0, 6.6)
    panels = figure.subplots(1, len(answers), sharey=True)
    schedules = [Schedules(records.result.outcomes, beside=False, inches=4.9) for records in answers]
    _draw_periods(panels, schedules, answers, theme)
    for axes, records in zip(panels, answers, strict=True):
        axes.set_title(COMPARISONS[records.result.comparison], pad=28)  # K* is written between title and axes
    _legend(figure, schedules[0], answers[0].result, theme)
    return figure


def _draw_periods(
    panels: Sequence[Axes], schedules: Sequence[Schedules], answers: Sequence[FrequencyRecords], theme: Theme
) -> None:
    """Every schedule in a panel for each answer, the means of the preset joined, and K*."""
    values, rows = list[float](), 0
    for axes, own, records in zip(panels, schedules, answers, strict=True):
        own.axis.draw(axes, theme, PERIOD, text.period)
        values += band_values(records.result)
        for outcome in own.all:
            place, colour, marker = own.at(outcome), own.colour(outcome, theme), own.marker(outcome)
            width = min(0.28, 0.018 * own.axis.extent)
            values += draw_schedule(axes, place, outcome, records, colour, theme, width, marker)
        near = [o for o in own.sparse if sparse_period(o) != math.inf and not is_far_below(o, records.result)]
        joined = [(own.at(o), records.result.scale.factor * o.test_accuracy.mean) for o in near]
        axes.plot(*np.array(joined).reshape(-1, 2).T, color=theme.accent, linewidth=1.6, zorder=1.5)
        rows = max(rows, note_untrained(axes, [(own.at(o), o) for o in own.all], records, theme))
    first = answers[0].result
    panels[0].set_ylim(*limits(values, first, min(floor(records.result) for records in answers), rows))
    name_axis(panels[0], first)
    for axes, own, records in zip(panels, schedules, answers, strict=True):
        draw_bands(axes, records.result, theme)
        label_right(axes, band_labels(records.result, theme))
        star = answer_of(records.result)
        if star is not None:
            place = (own.at(star), records.result.scale.factor * star.test_accuracy.mean)
            _mark_answer(axes, place, f"K* = {text.period(star.period)}", theme)


def accuracy_against_updates(
    result: FrequencyResult,
    theme: Theme,
    against: Against = "n",
    steps: Callable[[ScheduleOutcome], int | None] = lambda outcome: None,
) -> Figure:
    """Test accuracy against the feature updates of a run, which takes T steps unless `steps` says otherwise."""
    axis = UpdatesAxis(against, result.num_steps)
    at = {o.schedule: axis.at(o.feature_updates, steps(o)) for o in result.outcomes}
    figure = new_figure(11.5, 6.2)
    axes, schedules = figure.subplots(), Schedules(result.outcomes)
    near, scale = [o for o in schedules.all if not is_far_below(o, result)], result.scale
    lines = [_points([o for o in series if o in near], at, scale) for series in (schedules.periods, schedules.sparse)]
    for line, colour in zip(lines, (theme.grid, theme.accent), strict=True):
        axes.plot(*np.array(line).reshape(-1, 2).T, color=colour, linewidth=2, zorder=1)
    axis.draw(axes, max(at.values()), axis.named("feature updates during training, n = T/K − 1"))
    for outcome in schedules.all:
        x, colour = at[outcome.schedule], schedules.colour(outcome, theme)
        if outcome in near:
            draw_mean(axes, x, outcome, result.scale, colour, theme, schedules.marker(outcome))
        else:
            point_below(axes, x, outcome, result.scale, colour, theme)
    accuracy_axis(axes, result, [value for o in near for value in shown_values(o, scale)], theme)
    ordinary, star = with_period(result.outcomes, 1.0), answer_of(result)
    if ordinary is not None:
        margin = scale.factor * (ordinary.test_accuracy.mean - result.margin)
        lines.append([(x, margin) for x in axes.get_xlim()])
    if star is not None:
        answer = f"{text.count(result.sufficient_feature_updates)} suffice"
        place = (at[star.schedule], scale.factor * star.test_accuracy.mean)
        lines.append(_mark_answer(axes, place, answer, theme))
    _legend(figure, schedules, result, theme)
    names = [
        Name(*_points([o], at, scale)[0], *ends(o.test_accuracy, scale), _short_name(o), schedules.colour(o, theme))
        for o in (reversed(near) if axis.is_turned else near)
    ]
    name_marks(axes, names, lines, theme, SMALL - 0.5)
    return figure


def _points(outcomes: Sequence[ScheduleOutcome], at: dict[str, float], scale: Scale) -> list[tuple[float, float]]:
    return [(at[o.schedule], scale.factor * o.test_accuracy.mean) for o in outcomes]


def _short_name(outcome: ScheduleOutcome) -> str:
    """A name beside a mark, which tells the preset from other periods by its form."""
    sparse = sparse_period(outcome)
    return text.schedule(outcome) if sparse is None else f"K = {text.period(sparse)}"


def _mark_answer(axes: Axes, place: tuple[float, float], answer: str, theme: Theme) -> list[tuple[float, float]]:
    """A dotted line from the outcome of K* to the top of the axes, with the answer in words above; returns the line."""
    line = [place, (place[0], axes.get_ylim()[1])]
    axes.plot(*zip(*line, strict=True), color=theme.ink, linewidth=1.4, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        answer,
        (place[0], 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
        annotation_clip=False,
    )
    return line


def selection(result: FrequencyResult) -> list[ScheduleOutcome]:
    """At most six periods that tell the story: ordinary, on the way, K*, beyond it, the largest, lazy."""
    finite = sorted((o for o in result.outcomes if o.period and o.period < math.inf), key=lambda o: o.period or 0)
    lazy = with_period(result.outcomes, math.inf)
    star = next((i for i, o in enumerate(finite) if o.period == result.k_star), 0)
    last = len(finite) - 1
    wanted = sorted({i for i in (0, star, star + 1, (star + 1 + last) // 2, last) if 0 <= i <= last})
    return [finite[i] for i in wanted] + ([lazy] if lazy else [])


def period_curves(records: FrequencyRecords, theme: Theme) -> Figure:
    """Learning curves of some periods."""
    result, schedules = records.result, Schedules(records.result.outcomes)
    shown = selection(result) or result.outcomes[:6]
    lines = [Line(outcome, text.schedule(outcome), schedules.colour(outcome, theme)) for outcome in shown]
    return learning_curves(result, records, lines, theme)


def _legend(figure: Figure, schedules: Schedules, result: FrequencyResult, theme: Theme) -> None:
    """What faces mean, and the marks of the kinds of schedules where there is more than one."""
    kinds = (
        ("every K steps", schedules.periods),
        ("preset sparse", schedules.sparse),
        ("other schedules", schedules.others),
    )
    shown = [(name, outcomes[0]) for name, outcomes in kinds if outcomes]
    handles, style = par_handles(result, theme), {"linestyle": "", "markeredgewidth": 2, "markersize": 9}
    for name, outcome in shown if len(shown) > 1 else []:
        colour = theme.middle if outcome.period is not None else schedules.colour(outcome, theme)
        handles.append(Line2D([], [], marker=schedules.marker(outcome), color=colour, label=name, **style))
    legend_below(figure, handles, theme, columns=len(handles))


def linearity(records: FrequencyRecords, theme: Theme) -> Figure:
    """Accuracy of both predictors, linearisation error and parameter movement, each against K."""
    outcomes = records.result.outcomes
    figure = new_figure(13.5, 6.4)
    panels = figure.subplot_mosaic([["accuracy", "error"], ["accuracy", "movement"]], width_ratios=[1.35, 1])
    # The panels have no room for names, unless those are all there is.
    schedules = Schedules(outcomes, beside=all(stands_beside(o) for o in outcomes), inches=6.0)
    accuracy, apart = panels["accuracy"], min(0.12, 0.008 * schedules.axis.extent)
    factor = records.result.scale.factor
    trained, network = (
        [_times(factor, getattr(o, f"{of}test_accuracy")) for o in schedules.all] for of in ("", "network_")
    )
    _series(accuracy, schedules, trained, theme.ink, "o", "-", -apart, "linearised network, as trained")
    _series(accuracy, schedules, network, theme.accent, "s", "--", apart, "network at the same parameters")
    handles = accuracy.get_legend_handles_labels()[0]
    if schedules.sparse:
        style = {"linestyle": "", "markeredgewidth": 1.8, "markersize": 7.5, "markerfacecolor": theme.background}
        handles.append(Line2D([], [], marker="o", color=theme.ink, label="hollow: preset sparse", **style))
    legend_below(figure, handles, theme, columns=3)
    accuracy.set_title(records.result.scale.axis("test accuracy"))
    turn_axis(accuracy, records.result)
    schedules.axis.draw(accuracy, theme, PERIOD, text.period)
    quantities = (
        ("error", "linearisation_error", "linearisation error at the end", "v"),
        ("movement", "parameter_movement", "parameter movement, ‖θ − θ₀‖ / ‖θ₀‖", "^"),
    )
    for panel, column, name, marker in quantities:
        values = [records.final(outcome, column) for outcome in schedules.all]
        _series(panels[panel], schedules, values, theme.ink, marker, "-", 0.0, name)
        panels[panel].set_title(name)
        known = [value for i in values for value in (i.mean, i.high) if math.isfinite(value)]
        highest = max(known, default=0.0) or 1.0
        panels[panel].set_ylim(-0.06 * highest, 1.12 * highest)
        schedules.axis.draw(panels[panel], theme, "K" if panel == "movement" else "", text.period, most=7)
    return figure


def _times(factor: float, interval: Interval) -> Interval:
    return Interval(mean=factor * interval.mean, low=factor * interval.low, high=factor * interval.high)


def _series(
    axes: Axes,
    schedules: Schedules,
    values: Sequence[Interval],
    colour: str,
    marker: str,
    style: str,
    shift: float,
    name: str,
) -> None:
    """Means with intervals; lines join the finite K and stop at the break before ∞. The preset's marks are hollow."""
    x = np.array([schedules.at(outcome) for outcome in schedules.all]) + shift
    mean, low, high = np.array([(i.mean, i.low, i.high) for i in values]).T
    axes.vlines(x, np.where(np.isfinite(low), low, mean), np.where(np.isfinite(high), high, mean), color=colour, lw=2)
    kinds = [(sparse_period(o) is not None, sparse_period(o) or o.period) for o in schedules.all]
    drawn = {"marker": marker, "markersize": 7.5, "markeredgewidth": 1.8, "linewidth": 1.8, "zorder": 3}
    for preset in (False, True):
        finite = [kind == preset and period is not None and period < math.inf for kind, period in kinds]
        alone = [kind == preset and (period is None or period == math.inf) for kind, period in kinds]
        drawn |= {"color": colour, "markerfacecolor": axes.get_facecolor() if preset else colour}
        axes.plot(x[finite], mean[finite], style, label=None if preset else name, **drawn)
        axes.plot(x[alone], mean[alone], linestyle="", **drawn)


def widest_gap(result: FrequencyResult) -> tuple[float, str]:
    """The largest difference in accuracy between the two predictors and the schedule that has it."""
    gaps = [(abs(o.test_accuracy.mean - o.network_test_accuracy.mean), o.label) for o in result.outcomes]
    return max(((gap if math.isfinite(gap) else 0.0, label) for gap, label in gaps), key=lambda pair: pair[0])
