"""Lines through means with their intervals, and the learning curves of a few schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import floor, turn_axis
from relin.report._axes import log_axis, step_axis
from relin.report._labels import label_right
from relin.report._records import StudyRecords
from relin.report._style import Theme, new_figure
from relin.study._result import GridResult, Interval, ScheduleOutcome
from relin.study._scale import Scale

CAPTION = (
    f"Mean over seeds and its 95 % interval at the learning rate chosen for each schedule. {text.EDGES_MEAN}. "
    "From where a run diverged, and at the end of one that failed to train, accuracy counts at chance; a training loss "
    "has no such value, so there the mean is over the runs that are left. Of runs that recorded their two ends alone "
    "marks show the means. The accuracy axis leaves out what is far "
    "worse than ordinary and lazy training."
)


_FEW = 2
"""Records of a run, its two ends, that are drawn as marks."""


@dataclass(frozen=True)
class Line:
    """A schedule in a figure of curves."""

    outcome: ScheduleOutcome
    label: str
    colour: str
    style: str = "-"


def draw_line(
    axes: Axes,
    x: np.ndarray | Sequence[float],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    style: str = "-",
    log: bool = False,
    **options: Any,
) -> None:
    """A line through means with their intervals as a band; all arrays have shape (points,).

    **Arguments:**

    - `log`: whether the vertical axis is logarithmic: an interval of a mean may cross zero, such an axis may not.
    - `options`: of the line.
    """
    low = np.maximum(low, 0.2 * mean) if log else low
    axes.plot(x, mean, style, color=colour, zorder=3, **options)
    axes.fill_between(x, low, high, where=np.isfinite(low).tolist(), color=colour, alpha=0.16, linewidth=0, zorder=2)


def draw_intervals(
    axes: Axes,
    points: Sequence[tuple[float, Interval | None]],
    colour: str,
    marker: str,
    label: str,
    theme: Theme,
    scale: float = 1.0,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Means joined, with their intervals as a band, where they are known; no band leaves what is possible."""
    known = [(x, scale * np.array([i.mean, i.low, i.high])) for x, i in points if i is not None]
    if known:
        mean, low, high = np.array([values for _, values in known]).T
        low, high = np.clip(low, *within), np.clip(high, *within)
        options = {"label": label, "markersize": 7, "markeredgecolor": theme.background}
        draw_line(axes, [x for x, _ in known], mean, low, high, colour, f"{marker}-", **options)


def learning_curves(result: GridResult, records: StudyRecords, lines: Sequence[Line], theme: Theme) -> Figure:
    """Test accuracy and training loss against the step, mean and interval over seeds."""
    figure = new_figure(13.5, 6.0)
    lowest = floor(result)
    accuracy, loss = figure.subplots(1, 2)
    for axes, column, name in (
        (accuracy, "test_accuracy", result.scale.axis("test accuracy")),
        (loss, "train_loss", "training loss"),
    ):
        shown = _draw(axes, records, lines, column)
        axes.set_title(name)
        step_axis(axes, max([result.num_steps, *(int(line.get_xdata()[-1]) for line in axes.lines)]))
        if not shown:
            continue
        low, high = min(low for low, _, _ in shown), max(high for _, high, _ in shown)
        labels = [end for _, _, end in shown]
        if column == "train_loss":
            log_axis(axes, low, high)
        else:
            axes.set_ylim(*_limits(result.scale, lowest, low, high))
            turn_axis(axes, result)
            ended = [(y, name, colour, result.scale.value(y / result.scale.factor, 1)) for y, name, colour in labels]
            labels = [(y, f"{name} ↓ {end}" if y < lowest else name, colour) for y, name, colour, end in ended]
        label_right(axes, labels)
    return figure


def _limits(scale: Scale, lowest: float, low: float, high: float) -> tuple[float, float]:
    if not scale.is_own:
        return max(lowest, low - 2), min(101.0, high + 2)
    pad = 2 * scale.factor * scale.margin
    return max(lowest, low - pad), high + pad


def _draw(
    axes: Axes, records: StudyRecords, lines: Sequence[Line], column: str
) -> list[tuple[float, float, tuple[float, str, str]]]:
    """Draw every line; returns the lowest and the highest mean of each and the label at its end."""
    shown, is_loss = [], column == "train_loss"
    factor = 1.0 if is_loss else records.result.scale.factor
    for line in lines:
        curve = records.curve(line.outcome, column)
        usable = np.isfinite(curve.mean) & ((curve.mean > 0) | (not is_loss))
        if not usable.any():
            continue
        steps = curve.steps[usable]
        mean, low, high = (factor * c[usable] for c in (curve.mean, curve.low, curve.high))
        if steps.size > _FEW:
            draw_line(axes, steps, mean, low, high, line.colour, line.style, log=is_loss)
        else:  # a line would tell of a course that is not known
            axes.plot(steps, mean, "o", color=line.colour, zorder=3)
            hidden = not is_loss and mean[-1] < floor(records.result)
            axes.plot(steps[-1:], mean[-1:], "o", color=line.colour, zorder=3, clip_on=hidden)
        # The untrained network, at step 0, would squeeze all curves together.
        learnt = mean if is_loss or not (steps > 0).any() else mean[steps > 0]
        name = text.name_and_untrained(line.label, line.outcome)
        shown.append((float(learnt.min()), float(learnt.max()), (float(mean[-1]), name, line.colour)))
    return shown
