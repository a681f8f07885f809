"""The drawings of the interpolation study: distances to the two ends, and accuracy, against K."""

import numpy as np
from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import SMALL, possible
from relin.report._axes import NumberAxis
from relin.report._curves import draw_intervals
from relin.report._style import Theme, new_figure
from relin.studies.interpolation.result import InterpolationResult


def distances_against_period(result: InterpolationResult, theme: Theme) -> Figure:
    """Distance of each K's predictor to ordinary training and to NTK regression."""
    figure = new_figure(11.5, 6.2)
    axes, axis = figure.subplots(), NumberAxis([at.period for at in result.periods])
    for name, colour, marker, label in (
        ("to_ordinary", theme.ordinary, "o", "to ordinary training"),
        ("to_regression", theme.lazy, "s", "to NTK regression"),
    ):
        points = [(axis.at(at.period), getattr(at, name)) for at in result.periods]
        draw_intervals(axes, points, colour, marker, label, theme, within=(0.0, np.inf))
    axis.draw(axes, theme, "period K", text.short, most=9)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylabel("distance, in that of the ends")
    if any(at.to_ordinary for at in result.periods):
        axes.legend(loc="best")
    return figure


def accuracy_against_period(result: InterpolationResult, theme: Theme) -> Figure:
    """Test accuracy of each K, between those of the two ends."""
    figure = new_figure(11.5, 6.2)
    axes, axis = figure.subplots(), NumberAxis([at.period for at in result.periods])
    for interval, colour, label in (
        (result.ordinary_accuracy, theme.ordinary, "ordinary training"),
        (result.regression_accuracy, theme.lazy, "NTK regression"),
    ):
        axes.axhline(100 * interval.mean, color=colour, linewidth=1.6, linestyle=(0, (5, 3)), label=label, zorder=1)
    for name, colour, marker, label in (
        ("network_test_accuracy", theme.muted, "^", "network f(·; θ_T)"),
        ("test_accuracy", theme.adaptive, "o", "linearised network"),
    ):
        points = [(axis.at(at.period), getattr(at, name)) for at in result.periods]
        draw_intervals(axes, points, colour, marker, label, theme, 100.0, possible(result.measure))
    axis.draw(axes, theme, "period K", text.short, most=9)
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="best", fontsize=SMALL)
    return figure
