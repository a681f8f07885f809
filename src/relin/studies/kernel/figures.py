"""The drawings of the kernel study: its metrics against step and feature updates, and what frozen kernels are worth."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from relin.report import _text as text
from relin.report._accuracy import band_labels, band_values, draw_bands, ends, limits, updates_axis
from relin.report._curves import Line, learning_curves, log_axis
from relin.report._palette import look
from relin.report._records import Curve, StudyRecords
from relin.report._style import Theme, label_right, new_figure
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
    return ends | {schedule: look(index, theme).colour for index, schedule in enumerate(others)}


def metric_in_training(result: KernelResult, records: StudyRecords, metric: Metric, theme: Theme) -> Figure:
    """A metric of the kernel against the step and against the feature updates so far, mean and interval over seeds."""
    figure = new_figure(13.5, 5.6)
    by_step, by_update = figure.subplots(1, 2, sharey=True)
    shown, labels, own = list[float](), list[tuple[float, str, str]](), colours(result, theme)
    for outcome in result.outcomes:
        curve, updates = records.curve(outcome, metric.column), records.curve(outcome, "feature_updates").mean
        known = np.isfinite(curve.mean) & ((curve.mean > 0) if metric.log else True)
        if not known.any():
            continue
        colour = own[outcome.schedule]
        shown += _draw(by_step, curve.steps, curve, known, colour, metric)
        shown += _draw(by_update, updates, curve, known, colour, metric)
        name = text.name_and_lost(text.schedule(outcome), outcome)
        labels.append((float(curve.mean[known][-1]), name, colour))
    by_step.set_ylabel(metric.name)
    by_step.set_xlabel("step")
    by_step.set_xlim(-0.012 * result.num_steps, result.num_steps)
    by_step.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    updates_axis(by_update, max(outcome.feature_updates for outcome in result.outcomes))
    by_update.set_xlabel("feature updates so far")
    _scale(by_step, shown, metric)
    label_right(by_update, labels)
    return figure


def _draw(axes: Axes, x: np.ndarray, curve: Curve, known: np.ndarray, colour: str, metric: Metric) -> list[float]:
    """Draw a curve; returns the values that its axis must show."""
    x, mean, low, high = (values[known] for values in (x, curve.mean, curve.low, curve.high))
    if metric.log:
        low = np.maximum(low, 0.2 * mean)  # an interval of a mean may cross zero, a logarithmic axis may not
    within = np.isfinite(low)
    if np.ptp(x) == 0:
        axes.plot(x[-1:], mean[-1:], "o", color=colour, zorder=3)
    else:
        axes.plot(x, mean, "o:" if metric.log and _rests(curve) else "-", color=colour, markersize=4.5, zorder=3)
        axes.fill_between(x, low, high, where=within.tolist(), color=colour, alpha=0.16, linewidth=0)
    return [*mean, *([] if metric.log else [*low[within], *high[within]])]


def _rests(curve: Curve) -> bool:
    """Whether the kernel stands still between two records at which it moved: then a line would mislead."""
    moved = np.flatnonzero(curve.mean > 0)
    return bool(moved.size) and bool((curve.mean[moved[0] : moved[-1]] == 0).any())


def _scale(axes: Axes, shown: list[float], metric: Metric) -> None:
    if not shown:
        return
    low, high = min(shown), max(shown)
    if metric.log:
        log_axis(axes, max(low, 1e-4 * high), high)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.power(value)))
    elif metric.zero:
        axes.set_ylim(-0.02 * max(high, 1e-6), _ROOM * max(high, 1e-6))
    else:
        pad = 0.06 * max(high - low, 1e-3)
        axes.set_ylim(low - pad, high + pad)


def accuracy_on_frozen_kernels(result: KernelResult, theme: Theme) -> Figure:
    """Accuracy of lazy training on kernels taken on the way, against the step at which they were taken."""
    figure = new_figure(11.5, 6.0)
    axes = figure.subplots()
    shown, own = band_values(result), colours(result, theme)
    labels = band_labels(result, theme)
    for frozen in result.frozen:
        shown += [value for interval in frozen.accuracy for value in ends(interval)]
        _draw_frozen(axes, frozen, own[frozen.schedule] if len(result.frozen) > 1 else theme.adaptive)
        labels.append((100 * frozen.accuracy[-1].mean, _frozen_label(result, frozen), theme.adaptive))
    axes.set_xlabel("step at which the kernel was taken")
    axes.set_ylabel("test accuracy, %")
    axes.set_xlim(-0.03 * result.num_steps, 1.03 * result.num_steps)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    axes.set_ylim(*limits(shown))
    draw_bands(axes, result, theme)
    label_right(axes, labels)
    return figure


def _draw_frozen(axes: Axes, frozen: FrozenKernel, colour: str) -> None:
    low, high = (np.array(side) for side in zip(*map(ends, frozen.accuracy), strict=True))
    mean = np.array([100 * interval.mean for interval in frozen.accuracy])
    axes.plot(frozen.steps, mean, "o-", color=colour, markersize=8, zorder=4)
    axes.fill_between(frozen.steps, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)


def _frozen_label(result: KernelResult, frozen: FrozenKernel) -> str:
    outcome: ScheduleOutcome | None = result.outcome(frozen.schedule)
    whose = "" if outcome is None or len(result.frozen) == 1 else f" of {text.schedule(outcome)}"
    return f"frozen kernel{whose}\n{text.percent(frozen.accuracy[-1].mean, 1)} %"


def kernel_curves(result: KernelResult, records: StudyRecords, theme: Theme) -> Figure:
    """Learning curves of all schedules."""
    own = colours(result, theme)
    lines = [Line(outcome, text.schedule(outcome), own[outcome.schedule]) for outcome in result.outcomes]
    return learning_curves(result, records, lines, theme)
