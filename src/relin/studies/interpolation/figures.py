"""The drawings of the interpolation study: distances to the two ends, and accuracy, against K."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import SMALL
from relin.report._descent_figures import draw_line
from relin.report._style import Theme, new_figure
from relin.studies.interpolation.result import InterpolationResult
from relin.study._result import Interval


class _PeriodAxis:
    """Periods on a logarithmic axis, with K = ∞ behind a break."""

    def __init__(self, result: InterpolationResult):
        self.finite = [at.period for at in result.periods if not math.isinf(at.period)]
        self.infinite = 16 * max(self.finite)

    def at(self, period: float) -> float:
        return self.infinite if math.isinf(period) else period

    def dress(self, axes: Axes, theme: Theme) -> None:
        axes.set_xscale("log", base=2)
        shown = self.finite[:: -(-len(self.finite) // 9)]
        axes.set_xticks([*shown, self.infinite], [*map(text.short, shown), "∞"])
        axes.minorticks_off()
        axes.set_xlim(min(self.finite) / 1.7, self.infinite * 1.7)
        axes.set_xlabel("period K")
        middle = math.sqrt(max(self.finite) * self.infinite)
        axes.annotate("//", (middle, 0), xycoords=("data", "axes fraction"), ha="center", va="center",
                      color=theme.muted, annotation_clip=False)  # fmt: skip


def distances_against_period(result: InterpolationResult, theme: Theme) -> Figure:
    """Distance of each K's predictor to ordinary training and to NTK regression."""
    figure = new_figure(11.5, 6.2)
    axes, scale = figure.subplots(), _PeriodAxis(result)
    for name, colour, marker, label in (
        ("to_ordinary", theme.ordinary, "o", "to ordinary training"),
        ("to_regression", theme.lazy, "s", "to NTK regression"),
    ):
        points = [(scale.at(at.period), getattr(at, name)) for at in result.periods]
        draw_line(axes, points, colour, marker, label, theme, within=(0.0, np.inf))
    scale.dress(axes, theme)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylabel("distance, in that of the ends")
    if any(at.to_ordinary for at in result.periods):
        axes.legend(loc="best")
    return figure


def accuracy_against_period(result: InterpolationResult, theme: Theme) -> Figure:
    """Test accuracy of each K, between those of the two ends."""
    figure = new_figure(11.5, 6.2)
    axes, scale = figure.subplots(), _PeriodAxis(result)
    for interval, colour, label in (
        (result.ordinary_accuracy, theme.ordinary, "ordinary training"),
        (result.regression_accuracy, theme.lazy, "NTK regression"),
    ):
        _band(axes, interval, colour, label)
    for name, colour, marker, label in (
        ("network_test_accuracy", theme.muted, "^", "network f(·; θ_T)"),
        ("test_accuracy", theme.adaptive, "o", "linearised network"),
    ):
        points = [(scale.at(at.period), getattr(at, name)) for at in result.periods]
        draw_line(axes, points, colour, marker, label, theme, 100.0, (0.0, 100.0))
    scale.dress(axes, theme)
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="best", fontsize=SMALL)
    return figure


def _band(axes: Axes, interval: Interval, colour: str, label: str) -> None:
    axes.axhline(100 * interval.mean, color=colour, linewidth=1.6, linestyle=(0, (5, 3)), label=label, zorder=1)
