"""The drawings of the interpolation study: distances to the two ends, and accuracy, against K."""

import math

import numpy as np
from matplotlib.figure import Figure

from relin.report import _text as text
from relin.report._accuracy import SMALL, possible
from relin.report._axes import NumberAxis, UpdatesAxis
from relin.report._curves import draw_intervals
from relin.report._style import Theme, new_figure
from relin.studies.interpolation.result import InterpolationResult
from relin.study._abstract import Against


def axis_name(against: Against) -> str:
    """What the periods are shown by."""
    return "period K" if against == "K" else UpdatesAxis(against, 1).named("feature updates, n = T/K − 1")


def _axis(result: InterpolationResult, against: Against) -> tuple[NumberAxis, list[float]]:
    """The axis, and the places of the periods on it; of K the periods themselves, with ∞ at its end."""
    numbers = [at.period for at in result.periods]
    if against != "K":
        axis = UpdatesAxis(against, result.num_steps)
        numbers = [axis.at(0.0 if math.isinf(K) else math.ceil(result.num_steps / K) - 1.0) for K in numbers]
    drawn = NumberAxis(numbers)
    return drawn, [drawn.at(number) for number in numbers]


def distances_against_period(result: InterpolationResult, theme: Theme, against: Against = "K") -> Figure:
    """Distance of each K's predictor to ordinary training and to NTK regression."""
    figure = new_figure(11.5, 6.2)
    axes, (axis, places) = figure.subplots(), _axis(result, against)
    for name, colour, marker, label in (
        ("to_ordinary", theme.ordinary, "o", "to ordinary training"),
        ("to_regression", theme.lazy, "s", "to NTK regression"),
    ):
        points = [(place, getattr(at, name)) for place, at in zip(places, result.periods, strict=True)]
        draw_intervals(axes, points, colour, marker, label, theme, within=(0.0, np.inf))
    axis.draw(axes, theme, axis_name(against), text.short, most=9)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylabel("distance, in that of the ends")
    if any(at.to_ordinary for at in result.periods):
        axes.legend(loc="best")
    return figure


def accuracy_against_period(result: InterpolationResult, theme: Theme, against: Against = "K") -> Figure:
    """Test accuracy of each K, between those of the two ends."""
    figure = new_figure(11.5, 6.2)
    axes, (axis, places) = figure.subplots(), _axis(result, against)
    for interval, colour, label in (
        (result.ordinary_accuracy, theme.ordinary, "ordinary training"),
        (result.regression_accuracy, theme.lazy, "NTK regression"),
    ):
        axes.axhline(100 * interval.mean, color=colour, linewidth=1.6, linestyle=(0, (5, 3)), label=label, zorder=1)
    for name, colour, marker, label in (
        ("network_test_accuracy", theme.muted, "^", "network f(·; θ_T)"),
        ("test_accuracy", theme.adaptive, "o", "linearised network"),
    ):
        points = [(place, getattr(at, name)) for place, at in zip(places, result.periods, strict=True)]
        draw_intervals(axes, points, colour, marker, label, theme, 100.0, possible(result.measure))
    axis.draw(axes, theme, axis_name(against), text.short, most=9)
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="best", fontsize=SMALL)
    return figure
