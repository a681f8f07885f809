"""The drawings of the stability study about accuracy: against feature updates, and what each part brings."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relin.report import _text as text
from relin.report._accuracy import (
    SMALL,
    band_handles,
    band_values,
    draw_bands,
    draw_mean,
    ends,
    floor,
    is_far_below,
    legend_below,
    limits,
    name_axis,
    par_handles,
    point_below,
    shown_values,
    turn_axis,
)
from relin.report._axes import UpdatesAxis
from relin.report._labels import label_right
from relin.report._style import Style, Theme, halo, new_figure, style_of
from relin.studies.stability.data import PLAIN, Group, groups
from relin.studies.stability.figures import name_rows, panel_grid
from relin.studies.stability.result import StabilityResult
from relin.study._result import ScheduleOutcome


def group_styles(result: StabilityResult, theme: Theme) -> dict[str, Style]:
    """The style of each group by its name; plain periods are drawn in ink."""
    names = [group.name for group in groups(result)]
    parts = [name for name in names if name != PLAIN]
    return {PLAIN: Style(theme.ink, "o")} | {name: style_of(index, theme) for index, name in enumerate(parts)}


def _colour(outcome: ScheduleOutcome, own: Style, theme: Theme) -> str:
    return {1.0: theme.ordinary, math.inf: theme.lazy}.get(outcome.period or 0.0, own.colour)


def accuracy_against_updates(result: StabilityResult, axis: UpdatesAxis, theme: Theme) -> Figure:
    """Test accuracy against feature updates of every schedule, coloured by part, with the Pareto front."""
    figure = new_figure(13.0, 7.4)
    axes = figure.subplots()
    styles, scale = group_styles(result, theme), result.scale
    values = band_values(result)
    for group in groups(result):
        own = styles[group.name]
        for outcome in group.outcomes:
            colour, x = _colour(outcome, own, theme), axis.at(outcome.feature_updates)
            if is_far_below(outcome, result):
                point_below(axes, x, outcome, result.scale, colour, theme)
                continue
            faint = outcome.schedule not in result.pareto
            draw_mean(axes, x, outcome, result.scale, colour, theme, marker=own.marker, size=8.5, faint=faint)
            values += [ends(outcome.test_accuracy, scale)[1], scale.factor * outcome.test_accuracy.mean]
    most = max(axis.at(outcome.feature_updates) for outcome in result.outcomes)
    axis.draw(axes, most, axis.named("feature updates during training"))
    name_axis(axes, result)
    axes.set_ylim(*limits(values, result, floor(result)))
    draw_bands(axes, result, theme)
    _draw_front(axes, result, axis, styles, theme)
    handles = [
        Line2D([], [], color=own.colour, marker=own.marker, linestyle="", markersize=8.5, label=name)
        for name, own in styles.items()
    ]
    legend_below(figure, [*handles, *par_handles(result, theme), *band_handles(result, theme)], theme, columns=5)
    return figure


def _draw_front(axes: Axes, result: StabilityResult, axis: UpdatesAxis, styles: dict[str, Style], theme: Theme) -> None:
    """A step line through the Pareto front; its members are numbered at their marks and named at the right."""
    front = [outcome for outcome in map(result.outcome, result.pareto) if outcome is not None]
    if not front:
        return
    by_schedule = {o.schedule: styles[group.name] for group in groups(result) for o in group.outcomes}
    x = [axis.at(outcome.feature_updates) for outcome in front]
    y = [result.scale.factor * outcome.test_accuracy.mean for outcome in front]
    axes.plot(x, y, drawstyle="steps-post", color=theme.ink, linewidth=1.8, alpha=0.55, zorder=1.5)
    labels = []
    for number, outcome in enumerate(front, start=1):
        colour = _colour(outcome, by_schedule[outcome.schedule], theme)
        place = (axis.at(outcome.feature_updates), result.scale.factor * outcome.test_accuracy.mean)
        axes.annotate(
            str(number),
            place,
            xytext=(-7, 5),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=SMALL,
            fontweight="bold",
            color=colour,
            path_effects=halo(theme),
            zorder=6,
        )
        labels.append((place[1], f"{number}  {outcome.label}", colour))
    label_right(axes, labels)


def what_parts_bring(result: StabilityResult, theme: Theme) -> Figure:
    """Test accuracy against K with each part, a panel each, beside the same periods alone."""
    everything = groups(result)
    plain = next((group for group in everything if group.name == PLAIN), None)
    shown = [group for group in everything if group.is_periodic and group.name != PLAIN]
    numbers = sorted({n for g in [*shown, *([plain] if plain else [])] for n in g.numbers() if 1 < n < math.inf})
    figure, panels = panel_grid(len(shown), 13.5, 2.9)
    styles, values = group_styles(result, theme), band_values(result)
    for axes, group in zip(panels, shown, strict=True):
        if plain is not None:
            values += _draw_periods(axes, result, plain, Style(theme.muted, "o"), theme, beside=-0.18)
        values += _draw_periods(axes, result, group, styles[group.name], theme, beside=0.18)
        draw_bands(axes, result, theme)
        axes.set_title(group.name, color=styles[group.name].colour, fontweight="bold")
        axes.set_xlabel("K")
        axes.set_xticks([math.log2(n) for n in numbers], [text.period(n) for n in numbers])
        axes.set_xlim(math.log2(numbers[0]) - 0.8, math.log2(numbers[-1]) + 0.8)
    panels[0].set_ylim(*limits(values, result, floor(result)))
    turn_axis(panels[0], result)
    name_rows(panels, result.scale.axis("test accuracy"))
    alone = Line2D([], [], color=theme.muted, marker="o", markersize=8, label=PLAIN)
    legend_below(figure, [alone, *band_handles(result, theme), *par_handles(result, theme)], theme, columns=3)
    return figure


def _draw_periods(
    axes: Axes, result: StabilityResult, group: Group, own: Style, theme: Theme, beside: float
) -> list[float]:
    """A line through the finite periods above 1; returns the accuracies that it shows, in percent."""
    numbered = zip(group.numbers(), group.outcomes, strict=True)
    members = [(math.log2(number) + beside, outcome) for number, outcome in numbered if 1 < number < math.inf]
    near = [(place, outcome) for place, outcome in members if not is_far_below(outcome, result)]
    x = [place for place, _ in near]
    axes.plot(
        x, [result.scale.factor * o.test_accuracy.mean for _, o in near], color=own.colour, linewidth=1.8, zorder=1
    )
    for place, outcome in members:
        if is_far_below(outcome, result):
            point_below(axes, place, outcome, result.scale, own.colour, theme)
        else:
            draw_mean(axes, place, outcome, result.scale, own.colour, theme, marker=own.marker, size=7.5)
    return [value for _, outcome in near for value in shown_values(outcome, result.scale)]
