"""The drawings of the kernel study: its metrics against step and feature updates, and what frozen kernels are worth."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import accuracy_axis, draw_mean, ends, is_far_below, point_below, shown_values
from relin.report._axes import UpdatesAxis, log_axis, step_axis
from relin.report._curves import Line, draw_intervals, draw_line, learning_curves
from relin.report._labels import label_right
from relin.report._records import Curve, StudyRecords
from relin.report._style import Theme, new_figure, style_of
from relin.studies.kernel.result import FrozenKernel, KernelResult
from relin.study._result import ScheduleOutcome

_ROOM = 1.06  # above the highest value of an axis that begins at 0


@dataclass(frozen=True)
class Metric:
    """A metric of the kernel as figures show it."""

    column: str
    name: str
    """Of the axis."""
    zero: bool = False
    """Whether its axis begins at 0."""
    log: bool = False
    """Whether its axis is logarithmic and leaves out what is 0."""


METRICS = {
    "distance": Metric("kernel_distance", "kernel distance to step 0", zero=True),
    "change": Metric("kernel_change", "relative kernel change", zero=True),
    "velocity": Metric("kernel_velocity", "kernel velocity, distance per step", log=True),
    "alignment": Metric("target_alignment", "alignment with the targets"),
    "rank": Metric("effective_rank", "effective rank of the kernel"),
}


def colours(result: KernelResult, theme: Theme) -> dict[str, str]:
    """Those of ordinary and of lazy training, and between them one apart for each other schedule."""
    ends = {"every-1": theme.ordinary, "never": theme.lazy}
    others = [outcome.schedule for outcome in result.outcomes if outcome.schedule not in ends]
    return ends | {schedule: style_of(index, theme).colour for index, schedule in enumerate(others)}


def so_far(axis: UpdatesAxis) -> str:
    """What is on an axis that grows with the steps of a run."""
    return "feature updates so far" if axis.against == "n" else "windows so far, n + 1"


def metric_in_training(
    result: KernelResult, records: StudyRecords, metric: Metric, axis: UpdatesAxis, theme: Theme
) -> Figure:
    """A metric of the kernel against the step and against the feature updates so far, mean and interval over seeds."""
    figure = new_figure(13.5, 5.6)
    by_step, by_update = figure.subplots(1, 2, sharey=True)
    shown, labels, own = list[float](), list[tuple[float, str, str]](), colours(result, theme)
    for outcome in result.outcomes:
        curve = records.curve(outcome, metric.column)
        updates = axis.at(records.curve(outcome, "feature_updates").mean)
        known = np.isfinite(curve.mean) & ((curve.mean > 0) if metric.log else True)
        if not known.any():
            continue
        colour = own[outcome.schedule]
        shown += _draw(by_step, curve.steps, curve, known, colour, metric)
        shown += _draw(by_update, updates, curve, known, colour, metric)
        name = text.name_and_untrained(text.schedule(outcome), outcome)
        labels.append((float(curve.mean[known][-1]), name, colour))
    by_step.set_ylabel(metric.name)
    step_axis(by_step, result.num_steps, before=0.012)
    axis.draw(by_update, max(axis.at(o.feature_updates) for o in result.outcomes), so_far(axis))
    _scale(by_step, shown, metric)
    label_right(by_update, labels)
    return figure


def _draw(axes: Axes, x: np.ndarray, curve: Curve, known: np.ndarray, colour: str, metric: Metric) -> list[float]:
    """Draw a curve; returns the values that its axis must show."""
    x, mean, low, high = (values[known] for values in (x, curve.mean, curve.low, curve.high))
    within = np.isfinite(low)
    if np.ptp(x) == 0:
        axes.plot(x[-1:], mean[-1:], "o", color=colour, zorder=3)
    else:
        style = "o:" if metric.log and _stands_still(curve) else "-"
        draw_line(axes, x, mean, low, high, colour, style, log=metric.log, markersize=4.5)
    return [*mean, *([] if metric.log else [*low[within], *high[within]])]


def _stands_still(curve: Curve) -> bool:
    """Whether the kernel stands still between two records at which it moved: then a line would mislead."""
    moved = np.flatnonzero(curve.mean > 0)
    return bool(moved.size) and bool((curve.mean[moved[0] : moved[-1]] == 0).any())


def ends_against_updates(result: KernelResult, axis: UpdatesAxis, theme: Theme) -> Figure:
    """Test accuracy, and the alignment with the targets, at the end of training, against the feature updates."""
    figure = new_figure(14.5, 5.8)
    accuracy, alignment = figure.subplots(1, 2)
    by_updates = sorted(result.outcomes, key=lambda outcome: outcome.feature_updates)
    own, near = colours(result, theme), [o for o in by_updates if not is_far_below(o, result)]
    at = {o.schedule: axis.at(o.feature_updates) for o in by_updates}
    for axes in (accuracy, alignment):
        axis.draw(axes, max(at.values()), axis.named("feature updates during training"))
    scale = result.scale
    joined = [(at[o.schedule], scale.factor * o.test_accuracy.mean) for o in near if o.period is not None]
    accuracy.plot(*np.array(joined).reshape(-1, 2).T, color=theme.grid, linewidth=2, zorder=1)
    for outcome in by_updates:
        draw = draw_mean if outcome in near else point_below
        draw(accuracy, at[outcome.schedule], outcome, scale, own[outcome.schedule], theme)
    accuracy_axis(accuracy, result, [value for outcome in near for value in shown_values(outcome, scale)], theme)
    kernels = [(at[o.schedule], result.kernel(o.schedule)) for o in by_updates if o.period is not None]
    aligned = [(place, kernel and kernel.alignment) for place, kernel in kernels]
    draw_intervals(alignment, aligned, theme.accent, "o", "", theme)
    if result.initial_alignment is not None:
        first = result.initial_alignment.mean
        alignment.axhline(first, color=theme.lazy, linewidth=1.0, alpha=0.8)
        label_right(alignment, [(first, f"at step 0\n{text.significant(first)}", theme.lazy)])
    alignment.set_ylabel("alignment with the targets at the end")
    return figure


def _scale(axes: Axes, shown: list[float], metric: Metric) -> None:
    if not shown:
        return
    low, high = min(shown), max(shown)
    if metric.log:
        log_axis(axes, max(low, 1e-4 * high), high)
    elif metric.zero:
        axes.set_ylim(-0.02 * max(high, 1e-6), _ROOM * max(high, 1e-6))
    else:
        pad = 0.06 * max(high - low, 1e-3)
        axes.set_ylim(low - pad, high + pad)


def accuracy_on_frozen_kernels(result: KernelResult, theme: Theme) -> Figure:
    """Accuracy of lazy training on kernels taken on the way, against the step at which they were taken."""
    figure = new_figure(11.5, 6.0)
    axes = figure.subplots()
    shown, labels, own = list[float](), list[tuple[float, str, str]](), colours(result, theme)
    scale = result.scale
    for frozen in result.frozen:
        shown += [value for interval in frozen.accuracy for value in ends(interval, scale)]
        colour = own[frozen.schedule] if len(result.frozen) > 1 else theme.adaptive
        low, high = np.array([ends(interval, scale) for interval in frozen.accuracy]).T
        mean = np.array([scale.factor * interval.mean for interval in frozen.accuracy])
        draw_line(axes, frozen.steps, mean, low, high, colour, "o-", markersize=8)
        labels.append((float(mean[-1]), _frozen_label(result, frozen), colour))
    step_axis(axes, result.num_steps, "step at which the kernel was taken", before=0.03, after=0.03)
    accuracy_axis(axes, result, shown, theme, labels=labels)
    return figure


def _frozen_label(result: KernelResult, frozen: FrozenKernel) -> str:
    outcome: ScheduleOutcome | None = result.outcome(frozen.schedule)
    whose = "" if outcome is None or len(result.frozen) == 1 else f" of {text.schedule(outcome)}"
    return f"frozen kernel{whose}\n{result.scale.told(frozen.accuracy[-1].mean, 1)}"


def kernel_curves(result: KernelResult, records: StudyRecords, theme: Theme) -> Figure:
    """Learning curves of all schedules."""
    own = colours(result, theme)
    lines = [Line(outcome, text.schedule(outcome), own[outcome.schedule]) for outcome in result.outcomes]
    return learning_curves(result, records, lines, theme)
