"""The drawing of sharpness in training, beside the sharpness at which the learning rate is stable."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relin.report import _text as text
from relin.report._accuracy import legend_below
from relin.report._axes import log_axis, step_axis
from relin.report._curves import draw_line
from relin.report._records import StudyRecords
from relin.report._style import Theme
from relin.studies.stability.data import Descent
from relin.studies.stability.figures import panel_grid
from relin.studies.stability.result import StabilityResult
from relin.study._result import ScheduleOutcome

_MOST = 4


def selection(result: StabilityResult) -> list[ScheduleOutcome]:
    """At most four schedules: ordinary, a period in the middle, the most accurate of the front but K = 1, lazy."""
    periodic = [o for o in result.outcomes if o.period is not None and 1 < o.period < np.inf]
    front = [o for o in map(result.outcome, reversed(result.pareto)) if o is not None and o.period is None]
    wanted = [
        result.outcome("every-1"),
        periodic[len(periodic) // 2] if periodic else None,
        front[0] if front else next((o for o in result.outcomes if o.period is None), None),
        result.outcome("never"),
    ]
    return [outcome for outcome in wanted if outcome is not None][:_MOST]


def passes(outcome: ScheduleOutcome, records: StudyRecords, descent: Descent) -> bool:
    """Whether the mean sharpness passes the stable one at any record."""
    curve = records.curve(outcome, "sharpness")
    known = np.isfinite(curve.mean)
    return bool((curve.mean[known] > descent.stable_sharpness(outcome.learning_rate, curve.steps[known])).any())


def sharpness_in_training(
    outcomes: Sequence[ScheduleOutcome],
    colours: Sequence[str],
    records: StudyRecords,
    descent: Descent,
    theme: Theme,
) -> Figure:
    """Sharpness against the step, a panel for each schedule at its chosen rate; of SGD with the line 2 (1 + β)/rate."""
    figure, panels = panel_grid(len(outcomes), 13.5, 3.9)
    shown: list[float] = []
    for axes, outcome, colour in zip(panels, outcomes, colours, strict=True):
        shown += _draw(axes, outcome, colour, records, descent, theme)
        axes.set_title(f"{outcome.label}\nrate {text.rate(outcome.learning_rate)}")
        step_axis(axes, descent.num_steps)
    if shown:
        log_axis(panels[0], min(shown), 2 * max(shown))
    panels[0].set_ylabel("sharpness λ_max")
    if descent.factor is not None:
        line = Line2D([], [], color=theme.ink, linestyle=(0, (5, 2)), linewidth=1.6, label="2 (1 + β) / learning rate")
        legend_below(figure, [line], theme)
    return figure


def _draw(
    axes: Axes, outcome: ScheduleOutcome, colour: str, records: StudyRecords, descent: Descent, theme: Theme
) -> list[float]:
    """Draw a panel; returns the values that its axis must show."""
    curve = records.curve(outcome, "sharpness")
    known = np.isfinite(curve.mean) & (curve.mean > 0)
    steps, mean, low, high = (values[known] for values in (curve.steps, curve.mean, curve.low, curve.high))
    draw_line(axes, steps, mean, low, high, colour, "o-", log=True, markersize=5)
    every = np.linspace(0, descent.num_steps, 200)
    stable = descent.stable_sharpness(outcome.learning_rate, every)
    finite = np.isfinite(stable)
    axes.plot(every[finite], stable[finite], color=theme.ink, linestyle=(0, (5, 2)), linewidth=1.6, zorder=2)
    return [*mean.tolist(), *stable[:1][finite[:1]].tolist()]
