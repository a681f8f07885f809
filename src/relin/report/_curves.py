"""Learning curves of a few schedules: test accuracy and training loss against the step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from relin.report import _text as text
from relin.report._accuracy import floor
from relin.report._records import StudyRecords
from relin.report._style import Theme, label_right, new_figure
from relin.study._result import GridResult, ScheduleOutcome

CAPTION = (
    f"Mean over seeds and its 95 % interval at the learning rate chosen for each schedule. {text.EDGES_MEAN}. "
    "From where a run diverged, and at the end of one that failed to train, accuracy counts at chance; a training loss "
    "has no such value, so there the mean is over the runs that are left. The accuracy axis leaves out what lies far "
    "below ordinary and lazy training."
)


@dataclass(frozen=True)
class Line:
    """A schedule in a figure of curves."""

    outcome: ScheduleOutcome
    label: str
    colour: str
    style: str = "-"


def learning_curves(result: GridResult, records: StudyRecords, lines: Sequence[Line], theme: Theme) -> Figure:
    """Test accuracy and training loss against the step, mean and interval over seeds."""
    figure = new_figure(13.5, 6.0)
    lowest = floor(result)
    accuracy, loss = figure.subplots(1, 2)
    for axes, column, name in ((accuracy, "test_accuracy", "test accuracy, %"), (loss, "train_loss", "training loss")):
        shown = _draw(axes, records, lines, column)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.set_xlim(0, result.num_steps)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
        if not shown:
            continue
        low, high = min(low for low, _, _ in shown), max(high for _, high, _ in shown)
        if column == "train_loss":
            log_axis(axes, low, high)
        else:
            axes.set_ylim(max(lowest, low - 2), min(101.0, high + 2))
        labels = [end for _, _, end in shown]
        if column == "test_accuracy":
            labels = [(y, f"{name} ↓ {text.fixed(y, 1)}" if y < lowest else name, colour) for y, name, colour in labels]
        label_right(axes, labels)
    return figure


def _draw(
    axes: Axes, records: StudyRecords, lines: Sequence[Line], column: str
) -> list[tuple[float, float, tuple[float, str, str]]]:
    """Draw every line; returns the lowest and the highest mean of each and the label at its end."""
    shown = []
    for line in lines:
        curve = records.curve(line.outcome, column)
        usable = np.isfinite(curve.mean)
        if column == "train_loss":
            usable &= curve.mean > 0
        if not usable.any():
            continue
        factor = 1.0 if column == "train_loss" else 100.0
        steps, mean = curve.steps[usable], factor * curve.mean[usable]
        low, high = factor * curve.low[usable], factor * curve.high[usable]
        if column == "train_loss":
            low = np.maximum(low, 0.2 * mean)  # an interval of a mean may cross zero, a logarithmic axis may not
        axes.plot(steps, mean, line.style, color=line.colour, zorder=3)
        axes.fill_between(steps, low, high, where=np.isfinite(low).tolist(), color=line.colour, alpha=0.16, linewidth=0)
        name = text.name_and_lost(line.label, line.outcome)
        # The untrained network, at step 0, would squeeze all curves together.
        learnt = mean[steps > 0] if column == "test_accuracy" and (steps > 0).any() else mean
        shown.append((float(learnt.min()), float(learnt.max()), (float(mean[-1]), name, line.colour)))
    return shown


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis from `low` to `high` with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylim(low / 1.3, high * 1.3)
    # Less than a decade has at most one power of ten in it: name 2 and 5 as well.
    multiples = (1.0, 2.0, 5.0) if math.log10(high / low) < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=multiples))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
