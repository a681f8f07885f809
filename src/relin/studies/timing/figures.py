"""The drawings of the timing study: accuracy of placements, where their updates lie, learning curves."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from relin.report import _text as text
from relin.report._accuracy import (
    SMALL,
    accuracy_axis,
    band_handles,
    band_values,
    draw_bands,
    draw_mean,
    draw_schedule,
    floor,
    is_far_below,
    legend_below,
    limits,
    name_axis,
    par_handles,
    point_below,
    shown_values,
)
from relin.report._axes import UpdatesAxis, step_axis
from relin.report._curves import Line, learning_curves
from relin.report._records import StudyRecords
from relin.report._style import Style, Theme, halo, new_figure, style_of
from relin.studies.timing.result import Placement, TimingResult
from relin.study._condition import parse_condition
from relin.study._result import ScheduleOutcome
from relin.study._schedules import AbstractPlaced

ORDER = ("early", "even", "geometric", "late", "adaptive")


def placed(result: TimingResult, budget: int) -> list[tuple[Placement, ScheduleOutcome]]:
    """The placements of a number of updates in the order of `ORDER`, each with its outcome."""
    own = [(p, result.outcome(p.schedule)) for p in result.placements if p.budget == budget]
    known = [(placement, outcome) for placement, outcome in own if outcome is not None]
    return sorted(known, key=lambda pair: ORDER.index(pair[0].placement))


def names(result: TimingResult) -> list[str]:
    """The placements that were compared, in the order of `ORDER`."""
    return [name for name in ORDER if any(p.placement == name for p in result.placements)]


def placement_style(name: str, theme: Theme) -> Style:
    return style_of((4, 1, 3, 2, 0)[ORDER.index(name)], theme)


def accuracy_of_placements(result: TimingResult, records: StudyRecords, theme: Theme) -> Figure:
    """Test accuracy of every placement, a panel for each number of updates: means, intervals, one dot a seed."""
    shown_names, budgets = names(result), list(result.best)
    rows = -(-len(budgets) // 3)
    columns = min(3, len(budgets))
    figure = new_figure(max(9.0, 2.2 + 3.9 * columns), 1.4 + rows * (0.75 + 0.62 * len(shown_names)))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = band_values(result)
    for axes, budget in zip(panels.flat, budgets, strict=False):
        for placement, outcome in placed(result, budget):
            row, own = shown_names.index(placement.placement), placement_style(placement.placement, theme)
            values += draw_schedule(axes, row, outcome, records, own.colour, theme, 0.3, own.marker, horizontal=True)
            if not is_far_below(outcome, result):
                _write_numbers(axes, row, placement, outcome, records, own.colour, theme)
        draw_bands(axes, result, theme, horizontal=True)
        axes.set_title(f"{budget:,} feature update{'' if budget == 1 else 's'}")
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    for axes in panels.flat[len(budgets) :]:
        axes.set_visible(False)
    first = panels[0, 0]
    first.set_yticks(range(len(shown_names)), shown_names)
    first.set_ylim(len(shown_names) - 0.45, -0.6)
    first.set_xlim(*limits(values, result, floor(result)))
    for axes in panels[-1]:
        name_axis(axes, result, horizontal=True)
    legend_below(
        figure, [*band_handles(result, theme), *par_handles(result, theme)], theme, columns=3 if columns < 3 else 4
    )
    return figure


def _write_numbers(
    axes: Axes,
    row: int,
    placement: Placement,
    outcome: ScheduleOutcome,
    records: StudyRecords,
    colour: str,
    theme: Theme,
) -> None:
    """Above the mark the accuracy and runs that did not train, below it the updates spent if not all were."""
    above = records.result.scale.value(outcome.test_accuracy.mean, 1)
    above = f"{above} {records.untrained(outcome)}".rstrip()
    below = f"{text.count(placement.feature_updates)} spent" if placement.feature_updates != placement.budget else ""
    for content, offset, va in ((above, 9, "bottom"), (below, -9, "top")):
        axes.annotate(
            content,
            (records.result.scale.factor * outcome.test_accuracy.mean, row),
            xytext=(0, offset),
            textcoords="offset points",
            ha="center",
            va=va,
            fontsize=SMALL,
            color=colour,
            path_effects=halo(theme),
            zorder=5,
        )


def accuracy_against_updates(result: TimingResult, axis: UpdatesAxis, theme: Theme) -> Figure:
    """Test accuracy against the updates spent, a line for each placement, every tolerance a mark."""
    figure = new_figure(11.5, 6.2)
    axes = figure.subplots()
    series = {name: _series(result, name) for name in names(result)}
    ordinary = result.outcome("every-1")
    most = max(axis.at(o.feature_updates) for own in [*series.values(), [ordinary] if ordinary else []] for o in own)
    handles, values = [], list[float]()
    for name, outcomes in series.items():
        own = placement_style(name, theme)
        # One number of updates, several placements: set apart, they can be told from each other.
        aside = 1.0 if name == "adaptive" else 1.045 ** (ORDER.index(name) - 1.5)
        near = [outcome for outcome in outcomes if not is_far_below(outcome, result)]
        x = [aside * axis.at(outcome.feature_updates) for outcome in near]
        axes.plot(x, [result.scale.factor * o.test_accuracy.mean for o in near], color=own.colour, alpha=0.55, zorder=1)
        for outcome in outcomes:
            place = axis.at(outcome.feature_updates)
            if outcome not in near:
                point_below(axes, place, outcome, result.scale, own.colour, theme)
                continue
            draw_mean(axes, aside * place, outcome, result.scale, own.colour, theme, marker=own.marker)
            values += shown_values(outcome, result.scale)
        handles.append(Line2D([], [], color=own.colour, marker=own.marker, markersize=9, label=name))
    for schedule, colour in (("every-1", theme.ordinary), ("never", theme.lazy)):
        outcome = result.outcome(schedule)
        if outcome is not None:
            draw_mean(axes, axis.at(outcome.feature_updates), outcome, result.scale, colour, theme)
    axis.draw(axes, most, axis.named("feature updates during training"))
    accuracy_axis(axes, result, values, theme)
    legend_below(figure, [*handles, *par_handles(result, theme)], theme, columns=4)
    return figure


def _series(result: TimingResult, name: str) -> list[ScheduleOutcome]:
    """Every outcome of a placement by increasing number of updates; of the adaptive one, every tolerance."""
    chosen = {p.schedule: result.outcome(p.schedule) for p in result.placements if p.placement == name}
    if name == "adaptive":
        kinds = {parse_condition(schedule).kind for schedule in chosen}
        chosen |= {o.schedule: o for o in result.outcomes if parse_condition(o.schedule).kind in kinds}
    return sorted((o for o in chosen.values() if o is not None), key=lambda o: o.feature_updates)


def updates_in_training(result: TimingResult, records: StudyRecords, theme: Theme) -> Figure:
    """Where the updates of each placement of the largest number lie: a mark each on the left, their count beside."""
    budget = max(result.best)
    members = placed(result, budget)
    figure = new_figure(13.5, 5.6)
    rug, counted = figure.subplots(1, 2, width_ratios=[1.15, 1])
    for row, (placement, outcome) in enumerate(members):
        own = placement_style(placement.placement, theme)
        schedule = parse_condition(outcome.schedule).schedule
        if isinstance(schedule, AbstractPlaced):
            steps = np.array(schedule.updates_at(result.num_steps))
            rug.eventplot(steps, lineoffsets=row, linelengths=0.62, linewidths=2.0, colors=own.colour)
            x = np.concatenate([[0.5], np.maximum(steps, 0.5), [result.num_steps]])
            y = np.concatenate([[0], np.arange(1, steps.size + 1), [steps.size]])
            counted.plot(x, y, drawstyle="steps-post", color=own.colour, label=placement.placement)
        else:
            curve = records.curve(outcome, "feature_updates")
            _strip(rug, row, curve.steps, curve.mean, own.colour)
            usable = np.isfinite(curve.mean)
            x, y = np.maximum(curve.steps[usable], 0.5), curve.mean[usable]
            counted.plot(x, y, "o-", markersize=5, color=own.colour, label=placement.placement)
    rug.set_yticks(range(len(members)), [placement.placement for placement, _ in members])
    rug.set_ylim(len(members) - 0.4, -0.6)
    rug.grid(visible=False)
    rug.tick_params(axis="y", length=0)
    rug.set_title("steps before which features are updated")
    step_axis(rug, result.num_steps, before=0.01, after=0.01)
    _count_axis(counted, result, budget)
    handles = [Line2D([], [], color=line.get_color(), label=str(line.get_label())) for line in counted.lines]
    legend_below(figure, handles, theme)
    return figure


def _count_axis(axes: Axes, result: TimingResult, budget: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(0.7, 1.1 * result.num_steps)
    axes.xaxis.set_major_locator(FixedLocator([10.0**e for e in range(len(str(result.num_steps)))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    axes.set_ylim(0, 1.06 * budget)
    axes.set_title("feature updates so far")
    axes.set_xlabel("step, logarithmic")


def _strip(axes: Axes, row: int, steps: np.ndarray, updates: np.ndarray, colour: str) -> None:
    """Between two records a bar, the stronger the more updates a step fall there: the steps are not recorded."""
    density = np.diff(updates) / np.diff(steps)
    most = np.nanmax(density, initial=0.0)
    for start, end, value in zip(steps[:-1], steps[1:], density, strict=True):
        if value > 0:
            alpha = 0.15 + 0.85 * float(np.sqrt(value / most))
            axes.broken_barh([(start, end - start)], (row - 0.31, 0.62), facecolor=colour, alpha=alpha, linewidth=0)


def placement_curves(result: TimingResult, records: StudyRecords, theme: Theme) -> Figure:
    """Learning curves of the placements of the largest number of updates, of ordinary and of lazy training."""
    budget = max(result.best)
    lines = []
    for schedule, name, colour in (("every-1", "ordinary", theme.ordinary), ("never", "lazy", theme.lazy)):
        outcome = result.outcome(schedule)
        if outcome is not None:
            lines.append(Line(outcome, name, colour, "--"))
    for placement, outcome in placed(result, budget):
        lines.append(Line(outcome, placement.placement, placement_style(placement.placement, theme).colour))
    return learning_curves(result, records, lines, theme)
