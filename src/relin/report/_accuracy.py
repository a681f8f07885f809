"""What figures of test accuracy share: means with intervals, dots of seeds, bands to compare with, their legend."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from relin.report import _text as text
from relin.report._style import FONT_SIZE, Theme, halo
from relin.study._result import GridResult, Interval, ScheduleOutcome

SMALL = FONT_SIZE - 1.5


def ends(interval: Interval) -> tuple[float, float]:
    """Ends of the interval in percent, or its mean where one seed gives no interval."""
    both = np.array([interval.low, interval.high])
    both = np.where(np.isfinite(both), both, interval.mean)
    return 100 * float(both[0]), 100 * float(both[1])


def floor(result: GridResult) -> float:
    """The lowest accuracy in percent that figures make room for: what lies far below would squeeze all the rest.

    Three lazy gaps below ordinary training, at least ten margins.
    """
    ordinary = result.outcome("every-1")
    if ordinary is None:
        return 0.0
    gap = 0.0 if result.lazy_gap is None else abs(result.lazy_gap.mean)
    return 100 * (ordinary.test_accuracy.mean - max(3 * gap, 10 * result.margin))


def is_far_below(outcome: ScheduleOutcome, result: GridResult) -> bool:
    """Whether a schedule is so much worse than ordinary and lazy training that figures only point at it."""
    return 100 * outcome.test_accuracy.mean < floor(result)


def limits(values: Iterable[float], lowest: float = 0.0) -> tuple[float, float]:
    """Of an axis of accuracy in percent that shows all `values` above `lowest`, with some room."""
    shown = np.array(list(values), dtype=float)
    shown = shown[np.isfinite(shown) & (shown >= lowest)]
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 100.0)
    pad = max(0.5, 0.07 * (high - low))
    return max(-3.0, low - 1.3 * pad), min(102.0, high + pad)


def draw_mean(
    axes: Axes,
    at: float,
    outcome: ScheduleOutcome,
    colour: str,
    theme: Theme,
    marker: str = "o",
    size: float = 9.5,
    lying: bool = False,
    faint: bool = False,
) -> None:
    """The mean of a schedule with its interval, at `at` on the other axis; filled where it is on par.

    Args:
        lying: whether accuracy is the horizontal axis.
        faint: whether the interval steps back behind those of others.
    """
    low, high = ends(outcome.test_accuracy)
    mean = 100 * outcome.test_accuracy.mean
    line, point = ([at, at], [low, high]), ([at], [mean])
    if lying:
        line, point = line[::-1], point[::-1]
    width, alpha = (1.6, 0.45) if faint else (2.6, 1.0)
    axes.plot(*line, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=2)
    proven = outcome.on_par or outcome.difference is None
    axes.plot(
        *point,
        marker,
        color=colour,
        markerfacecolor=colour if proven else theme.background,
        markeredgewidth=2.2,
        markersize=size,
        zorder=4,
    )
    mark_edge(axes, (point[0][0], point[1][0]), outcome, colour, theme)


def mark_edge(axes: Axes, place: tuple[float, float], outcome: ScheduleOutcome, colour: str, theme: Theme) -> None:
    """Beside a mark, whether the schedule's chosen learning rate is an end of those offered."""
    if outcome.rate_edge is not None:
        axes.annotate(
            text.EDGES[outcome.rate_edge],
            place,
            xytext=(7, -9),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL - 1,
            color=colour,
            path_effects=halo(theme),
            zorder=5,
        )


def point_below(
    axes: Axes, at: float, outcome: ScheduleOutcome, colour: str, theme: Theme, lying: bool = False
) -> None:
    """An arrow at the low end of the accuracy axis, with the accuracy that lies beyond it."""
    place, coordinates = ((0.0, at), ("axes fraction", "data")) if lying else ((at, 0.0), ("data", "axes fraction"))
    axes.annotate(
        text.percent(outcome.test_accuracy.mean, 1) + text.EDGES[outcome.rate_edge],
        place,
        xycoords=coordinates,
        xytext=(24, 0) if lying else (0, 22),
        textcoords="offset points",
        ha="left" if lying else "center",
        va="center" if lying else "bottom",
        color=colour,
        fontsize=SMALL,
        path_effects=halo(theme),
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.0, "shrinkA": 1, "shrinkB": 0},
        zorder=6,
    )


def draw_seeds(axes: Axes, at: float, accuracy: np.ndarray, colour: str, width: float, lying: bool = False) -> None:
    """Accuracy of each seed (a fraction, shape (seeds,)) as a faint dot beside the mean."""
    beside = at + width * (np.arange(accuracy.size) - (accuracy.size - 1) / 2) / max(accuracy.size - 1, 1)
    place = (100 * accuracy, beside) if lying else (beside, 100 * accuracy)
    axes.plot(*place, ".", color=colour, alpha=0.35, markersize=6, zorder=2)


def draw_bands(axes: Axes, result: GridResult, theme: Theme, lying: bool = False) -> None:
    """Bands of ordinary and lazy training with their means, and the line one margin below the former."""
    span, line = (axes.axvspan, axes.axvline) if lying else (axes.axhspan, axes.axhline)
    for schedule, colour in (("every-1", theme.ordinary), ("never", theme.lazy)):
        outcome = result.outcome(schedule)
        if outcome is None:
            continue
        span(*ends(outcome.test_accuracy), color=colour, alpha=0.18, linewidth=0, zorder=0)
        mean = 100 * outcome.test_accuracy.mean
        line(mean, color=colour, linewidth=1.0, alpha=0.8, zorder=1)
        if schedule == "every-1":
            line(mean - 100 * result.margin, color=colour, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)


def band_values(result: GridResult) -> list[float]:
    """What the bands span, in percent, for the limits of an axis."""
    shown = [ends(o.test_accuracy) for o in map(result.outcome, ("every-1", "never")) if o is not None]
    ordinary = result.outcome("every-1")
    floor = [] if ordinary is None else [100 * (ordinary.test_accuracy.mean - result.margin)]
    return [value for pair in shown for value in pair] + floor


def band_labels(result: GridResult, theme: Theme) -> list[tuple[float, str, str]]:
    """Names of the bands and the margin's line, for `label_right`."""
    labels = []
    for schedule, name, colour in (
        ("every-1", "ordinary (K = 1)", theme.ordinary),
        ("never", "lazy (K = ∞)", theme.lazy),
    ):
        outcome = result.outcome(schedule)
        if outcome is None:
            continue
        mean = 100 * outcome.test_accuracy.mean
        labels.append((mean, f"{name}\n{text.fixed(mean, 1)} %{text.EDGES[outcome.rate_edge]}", colour))
        if schedule == "every-1":
            margin = f"margin, {text.short_points(-result.margin)}"
            labels.append((mean - 100 * result.margin, margin, colour))
    return labels


def band_handles(result: GridResult, theme: Theme) -> list[Patch | Line2D]:
    """The bands and the margin's line, for a legend."""
    handles: list[Patch | Line2D] = []
    ordinary, lazy = result.outcome("every-1"), result.outcome("never")
    if ordinary is not None:
        mean = text.percent(ordinary.test_accuracy.mean, 1)
        handles.append(
            Patch(color=theme.ordinary, alpha=0.4, label=f"ordinary (K = 1), {mean} %{text.EDGES[ordinary.rate_edge]}")
        )
        name = f"margin, {text.short_points(-result.margin)}"
        handles.append(Line2D([], [], color=theme.ordinary, linewidth=1.4, linestyle=(0, (5, 3)), label=name))
    if lazy is not None:
        mean = text.percent(lazy.test_accuracy.mean, 1)
        handles.append(Patch(color=theme.lazy, alpha=0.4, label=f"lazy (K = ∞), {mean} %{text.EDGES[lazy.rate_edge]}"))
    return handles


def par_handles(result: GridResult, theme: Theme) -> list[Line2D]:
    """Filled and empty marks and the signs beside them, for a legend."""
    faces = (("on par with K = 1", theme.muted), ("not shown to be on par", theme.background))
    look = {"marker": "o", "linestyle": "", "color": theme.muted, "markeredgewidth": 2, "markersize": 9}
    handles = [Line2D([], [], markerfacecolor=face, label=name, **look) for name, face in faces]
    for edge in ("largest", "smallest"):
        if any(outcome.rate_edge == edge for outcome in result.outcomes):
            name = f"{text.EDGES[edge]} best rate is the {edge} offered"
            handles.append(Line2D([], [], linestyle="", label=name))
    return handles


def legend_below(figure: Figure, handles: Sequence[Patch | Line2D], theme: Theme, columns: int = 5) -> None:
    figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns,
        labelcolor=theme.muted,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def note_lost(axes: Axes, x: float, lost: str, theme: Theme) -> None:
    """×2∅1/10 at the foot of the axes where 3 of 10 runs did not train: at chance, they lie far below what is shown."""
    if lost:
        axes.annotate(
            lost,
            (x, 0.015),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=theme.ink,
            path_effects=halo(theme),
        )


def updates_axis(axes: Axes, most: float) -> None:
    """A horizontal axis of feature updates up to `most`, logarithmic and yet with a zero."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    axes.set_xlim(-0.35, max(most, 1.0) * 2.2)
    powers = [10.0**e for e in range(math.ceil(math.log10(max(most, 1.0))) + 1)]
    axes.xaxis.set_major_locator(FixedLocator([0.0, *powers]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    axes.set_xlabel("feature updates during training")
