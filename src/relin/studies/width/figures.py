"""The drawings of the width study: kernel change, lazy gap and distance from the limit against width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relin.report import _text as text
from relin.report._accuracy import SMALL, ends, legend_below, limits, mark_edge, name_axis, turn_axis
from relin.report._axes import log_ticks, number_axis
from relin.report._curves import draw_line
from relin.report._labels import label_right
from relin.report._style import Theme, halo, new_figure
from relin.studies.width.result import WidthResult
from relin.study._result import Interval

_DASHES = (0, (5, 3))


@dataclass(frozen=True)
class Seeds:
    """The values of single seeds at every width, by the name of the panel; arrays of any length."""

    change: dict[int, np.ndarray]
    deviation: dict[int, np.ndarray]


def against_width(result: WidthResult, seeds: Seeds, theme: Theme) -> Figure:
    """Relative kernel change, accuracy gap, and the initial kernel's deviation from its limit, against width."""
    figure = new_figure(16.5, 5.8)
    panels = figure.subplots(1, 3)
    change = [(at.width, at.change) for at in result.widths]
    deviation = [(at.width, at.deviation) for at in result.widths]
    _power_law(panels[0], change, seeds.change, result.change_slope, theme.ordinary, theme)
    _gaps(panels[1], result, theme)
    _power_law(panels[2], deviation, seeds.deviation, result.deviation_slope, theme.adaptive, theme)
    titles = (
        "relative kernel change, K = 1",
        result.scale.axis("K = 1 less K = ∞", difference=True),
        "initial kernel, deviation from width ∞",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        _width_axis(axes, [at.width for at in result.widths])
    fit = Line2D([], [], color=theme.muted, linewidth=2.0, label="fitted power law")
    theory = Line2D([], [], color=theme.ink, linestyle=_DASHES, linewidth=1.6, label="slope −1/2 of theory")
    margin = Line2D([], [], color=theme.ordinary, linestyle=_DASHES, linewidth=1.4, label=_margin(result))
    legend_below(figure, [fit, theory, margin], theme)
    return figure


def _margin(result: WidthResult) -> str:
    relative = result.relative_margin
    return "margin" if relative is not None else f"margin, {result.scale.short(result.margin)}"


def _power_law(
    axes: Axes,
    points: Sequence[tuple[int, Interval | None]],
    seeds: dict[int, np.ndarray],
    slope: Interval | None,
    colour: str,
    theme: Theme,
) -> None:
    """Means with intervals on logarithmic axes, the fitted power law, and the slope −1/2 through their centre."""
    known = [(width, interval) for width, interval in points if interval is not None and interval.mean > 0]
    if not known:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=theme.muted)
        return
    axes.set_yscale("log")
    widths = np.array([width for width, _ in known], dtype=float)
    means = np.array([interval.mean for _, interval in known])
    centre, level = np.exp(np.mean(np.log(widths))), np.exp(np.mean(np.log(means)))
    line = np.array([widths[0], widths[-1]])
    axes.plot(line, level * (line / centre) ** -0.5, color=theme.ink, linestyle=_DASHES, linewidth=1.6, zorder=2)
    if slope is not None:
        axes.plot(line, level * (line / centre) ** slope.mean, color=theme.muted, linewidth=2.0, zorder=2)
        axes.annotate(
            f"slope {text.significant(slope.mean)}\n[{text.significant(slope.low)}, {text.significant(slope.high)}]",
            (0.97, 0.95),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=SMALL,
            path_effects=halo(theme),
            zorder=6,
        )
    for width, interval in known:
        own = seeds.get(width, np.array([]))
        axes.plot(np.full(own.size, width), own, ".", color=colour, alpha=0.35, markersize=7, zorder=2)
        low = max(interval.low, 0.2 * interval.mean)  # an interval of a mean may cross zero, a logarithmic axis may not
        axes.plot([width, width], [low, interval.high], color=colour, linewidth=2.6, solid_capstyle="butt", zorder=3)
    axes.plot(widths, means, "o", color=colour, markersize=8.5, zorder=4)
    log_ticks(axes.yaxis)


def _gaps(axes: Axes, result: WidthResult, theme: Theme) -> None:
    """The paired difference of ordinary and lazy training, in points; below zero lazy training is better."""
    factor = result.scale.factor
    axes.axhline(0.0, color=theme.muted, linewidth=1.2, zorder=1)
    margins = [factor * result.margin_of(at.ordinary) for at in result.widths]
    if len(set(margins)) == 1:
        axes.axhline(margins[0], color=theme.ordinary, linewidth=1.4, linestyle=_DASHES, zorder=1)
    else:
        line = [at.width for at in result.widths], margins
        axes.plot(*line, color=theme.ordinary, linewidth=1.4, linestyle=_DASHES, zorder=1)
    for at in result.widths:
        low, high = ends(at.gap, result.scale)
        axes.plot([at.width, at.width], [low, high], color=theme.lazy, linewidth=2.6, solid_capstyle="butt", zorder=3)
    widths, means = [at.width for at in result.widths], [factor * at.gap.mean for at in result.widths]
    turn_axis(axes, result)
    axes.plot(widths, means, color=theme.lazy, alpha=0.45, zorder=2)
    axes.plot(widths, means, "o", color=theme.lazy, markersize=8.5, zorder=4)


def accuracy_against_width(result: WidthResult, theme: Theme) -> Figure:
    """Test accuracy of ordinary and lazy training at every width, mean and interval over seeds."""
    figure = new_figure(11.5, 6.0)
    axes = figure.subplots()
    scale = result.scale
    shown, labels = list[float](), list[tuple[float, str, str]]()
    widths = [at.width for at in result.widths]
    for name, colour, marker, outcomes in (
        ("ordinary (K = 1)", theme.ordinary, "o", [at.ordinary for at in result.widths]),
        ("lazy (K = ∞)", theme.lazy, "s", [at.lazy for at in result.widths]),
    ):
        mean = np.array([scale.factor * outcome.test_accuracy.mean for outcome in outcomes])
        low, high = np.array([ends(outcome.test_accuracy, scale) for outcome in outcomes]).T
        draw_line(axes, widths, mean, low, high, colour, f"{marker}-", markersize=8)
        labels.append((float(mean[-1]), f"{name}\n{scale.told(outcomes[-1].test_accuracy.mean, 1)}", colour))
        for place, outcome in zip(zip(widths, mean, strict=True), outcomes, strict=True):
            mark_edge(axes, place, outcome, colour, theme)
        shown += [*low, *high]
    _width_axis(axes, widths)
    name_axis(axes, result)
    axes.set_ylim(*limits(shown, result))
    label_right(axes, labels)
    return figure


def _width_axis(axes: Axes, widths: Sequence[int]) -> None:
    number_axis(axes, widths, "width", most=len(widths))
    axes.set_xlim(widths[0] / 1.25, widths[-1] * 1.25)
