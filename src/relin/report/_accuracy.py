"""What figures of test accuracy share: means with intervals, dots of seeds, bands to compare with, their legend."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from relin.report import _text as text
from relin.report._labels import label_right, size_of
from relin.report._records import StudyRecords
from relin.report._style import FONT_SIZE, Theme, halo
from relin.study._result import GridResult, Interval, ScheduleOutcome
from relin.study._scale import Scale

SMALL = FONT_SIZE - 1.5


def ends(interval: Interval, scale: Scale) -> tuple[float, float]:
    """Ends of the interval on an axis, or its mean where one seed gives no interval."""
    both = np.array([interval.low, interval.high])
    both = np.where(np.isfinite(both), both, interval.mean)
    return scale.factor * float(both[0]), scale.factor * float(both[1])


def shown_values(outcome: ScheduleOutcome, scale: Scale) -> list[float]:
    """Mean and ends of a schedule's interval, for the limits of an axis."""
    return [scale.factor * outcome.test_accuracy.mean, *ends(outcome.test_accuracy, scale)]


def floor(result: GridResult) -> float:
    """The lowest accuracy that figures make room for: what lies far below would squeeze all the rest.

    Three lazy gaps below ordinary training, at least ten margins.
    """
    ordinary = result.outcome("every-1")
    if ordinary is None:
        return -math.inf if result.scale.is_own else 0.0
    gap = 0.0 if result.lazy_gap is None else abs(result.lazy_gap.mean)
    return result.scale.factor * (ordinary.test_accuracy.mean - max(3 * gap, 10 * result.margin))


def is_far_below(outcome: ScheduleOutcome, result: GridResult) -> bool:
    """Whether a schedule is so much worse than ordinary and lazy training that figures only point at it."""
    return result.scale.factor * outcome.test_accuracy.mean < floor(result)


def limits(
    values: Iterable[float], result: GridResult, lowest: float = -math.inf, rows: int = 0
) -> tuple[float, float]:
    """Of an axis of accuracy that shows all `values` above `lowest`, above so many rows of marks."""
    scale, shown = result.scale, np.array(list(values), dtype=float)
    shown = shown[np.isfinite(shown) & (shown >= lowest)]
    low, high = (shown.min(), shown.max()) if shown.size else (0.0, 100.0)
    pad = max(0.5 if not scale.is_own else 0.5 * scale.factor * scale.margin, 0.07 * (high - low))
    bottom, top = low - (1.3 + 1.2 * rows) * pad, high + pad
    if scale.is_own:
        return bottom, top
    return bottom if low < 0 else max(-12.0 if rows else -3.0, bottom), min(102.0, top)


def turn_axis(axes: Axes, result: GridResult, horizontal: bool = False) -> None:
    """Name the values of the measure on an axis of scores, where lower ones are better."""
    if result.scale.turned:
        axis = axes.xaxis if horizontal else axes.yaxis
        axis.set_major_formatter(lambda value, _: text.tick(-value))


def name_axis(axes: Axes, result: GridResult, horizontal: bool = False) -> None:
    """Name an axis of test accuracy and its values."""
    (axes.set_xlabel if horizontal else axes.set_ylabel)(result.scale.axis("test accuracy"))
    turn_axis(axes, result, horizontal)


def possible(measure: str) -> tuple[float, float]:
    """The lowest and the highest value that there is of what was measured, in percent."""
    return 0.0 if measure == "accuracy" else -np.inf, 100.0


def draw_schedule(
    axes: Axes,
    at: float,
    outcome: ScheduleOutcome,
    records: StudyRecords,
    colour: str,
    theme: Theme,
    width: float = 0.28,
    marker: str = "o",
    horizontal: bool = False,
) -> list[float]:
    """A schedule at `at` on the other axis: mean, interval and a dot for each seed, or an arrow if it is far below.

    Returns the values shown.
    """
    if is_far_below(outcome, records.result):
        point_below(axes, at, outcome, records.result.scale, colour, theme, horizontal, records.untrained(outcome))
        return []
    (accuracy, trained), scale = records.seeds(outcome), records.result.scale
    draw_seeds(axes, at, scale.factor * accuracy[trained], colour, width, horizontal)
    draw_mean(axes, at, outcome, scale, colour, theme, marker, horizontal=horizontal)
    return [*shown_values(outcome, scale), *(scale.factor * accuracy[trained])]


def draw_mean(
    axes: Axes,
    at: float,
    outcome: ScheduleOutcome,
    scale: Scale,
    colour: str,
    theme: Theme,
    marker: str = "o",
    size: float = 9.5,
    horizontal: bool = False,
    faint: bool = False,
) -> None:
    """The mean of a schedule with its interval, at `at` on the other axis; filled where it is on par.

    **Arguments:**

    - `horizontal`: whether accuracy is the horizontal axis.
    - `faint`: whether the interval steps back behind those of others.
    """
    low, high = ends(outcome.test_accuracy, scale)
    mean = scale.factor * outcome.test_accuracy.mean
    line, point = ([at, at], [low, high]), ([at], [mean])
    if horizontal:
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
    axes: Axes,
    at: float,
    outcome: ScheduleOutcome,
    scale: Scale,
    colour: str,
    theme: Theme,
    horizontal: bool = False,
    untrained: str = "",
) -> None:
    """An arrow at the low end of the accuracy axis, with the accuracy beyond it and the mark of untrained runs."""
    along, across = ("axes fraction", "data")
    place, coordinates = ((0.0, at), (along, across)) if horizontal else ((at, 0.0), (across, along))
    accuracy = scale.value(outcome.test_accuracy.mean, 1) + text.EDGES[outcome.rate_edge]
    axes.annotate(
        f"{accuracy}{' ' if horizontal else chr(10)}{untrained}".rstrip(),
        place,
        xycoords=coordinates,
        xytext=(24, 0) if horizontal else (0, 22),
        textcoords="offset points",
        ha="left" if horizontal else "center",
        va="center" if horizontal else "bottom",
        color=colour,
        fontsize=SMALL,
        linespacing=1.05,
        path_effects=halo(theme),
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.0, "shrinkA": 1, "shrinkB": 0},
        zorder=6,
    )


def draw_seeds(
    axes: Axes, at: float, accuracy: np.ndarray, colour: str, width: float, horizontal: bool = False
) -> None:
    """Accuracy of each seed, as on the axis, of shape (seeds,), as a faint dot beside the mean."""
    beside = at + width * (np.arange(accuracy.size) - (accuracy.size - 1) / 2) / max(accuracy.size - 1, 1)
    place = (accuracy, beside) if horizontal else (beside, accuracy)
    axes.plot(*place, ".", color=colour, alpha=0.35, markersize=6, zorder=2)


def draw_bands(axes: Axes, result: GridResult, theme: Theme, horizontal: bool = False) -> None:
    """Bands of ordinary and lazy training with their means, and the line one margin below the former."""
    scale = result.scale
    span, line = (axes.axvspan, axes.axvline) if horizontal else (axes.axhspan, axes.axhline)
    for schedule, colour in (("every-1", theme.ordinary), ("never", theme.lazy)):
        outcome = result.outcome(schedule)
        if outcome is None:
            continue
        span(*ends(outcome.test_accuracy, scale), color=colour, alpha=0.18, linewidth=0, zorder=0)
        mean = scale.factor * outcome.test_accuracy.mean
        line(mean, color=colour, linewidth=1.0, alpha=0.8, zorder=1)
        if schedule == "every-1":
            line(mean - scale.factor * result.margin, color=colour, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)


def band_values(result: GridResult) -> list[float]:
    """What the bands span, for the limits of an axis."""
    scale = result.scale
    shown = [ends(o.test_accuracy, scale) for o in map(result.outcome, ("every-1", "never")) if o is not None]
    ordinary = result.outcome("every-1")
    floor = [] if ordinary is None else [scale.factor * (ordinary.test_accuracy.mean - result.margin)]
    return [value for pair in shown for value in pair] + floor


def band_labels(result: GridResult, theme: Theme) -> list[tuple[float, str, str]]:
    """Names of the bands and the margin's line, for `label_right`."""
    labels, scale = [], result.scale
    for schedule, name, colour in (
        ("every-1", "ordinary (K = 1)", theme.ordinary),
        ("never", "lazy (K = ∞)", theme.lazy),
    ):
        outcome = result.outcome(schedule)
        if outcome is None:
            continue
        mean, edge = scale.factor * outcome.test_accuracy.mean, text.EDGES[outcome.rate_edge]
        labels.append((mean, f"{name}\n{scale.told(outcome.test_accuracy.mean, 1)}{edge}", colour))
        if schedule == "every-1":
            margin = f"margin, {scale.short(-result.margin)}"
            labels.append((mean - scale.factor * result.margin, margin, colour))
    return labels


def accuracy_axis(
    axes: Axes,
    result: GridResult,
    shown: Iterable[float],
    theme: Theme,
    rows: int = 0,
    labels: Sequence[tuple[float, str, str]] = (),
) -> None:
    """A vertical axis of test accuracy that holds what is shown and the bands, with names at the right.

    **Arguments:**

    - `shown`: values on the axis.
    - `rows`: of `note_untrained`.
    - `labels`: more names, as `label_right` takes them.
    """
    name_axis(axes, result)
    axes.set_ylim(*limits([*band_values(result), *shown], result, floor(result), rows))
    draw_bands(axes, result, theme)
    label_right(axes, [*band_labels(result, theme), *labels])


def band_handles(result: GridResult, theme: Theme) -> list[Patch | Line2D]:
    """The bands and the margin's line, for a legend."""
    handles: list[Patch | Line2D] = []
    ordinary, lazy, scale = result.outcome("every-1"), result.outcome("never"), result.scale
    if ordinary is not None:
        mean = scale.told(ordinary.test_accuracy.mean, 1)
        handles.append(
            Patch(color=theme.ordinary, alpha=0.4, label=f"ordinary (K = 1), {mean}{text.EDGES[ordinary.rate_edge]}")
        )
        name = f"margin, {scale.short(-result.margin)}"
        handles.append(Line2D([], [], color=theme.ordinary, linewidth=1.4, linestyle=(0, (5, 3)), label=name))
    if lazy is not None:
        mean = scale.told(lazy.test_accuracy.mean, 1)
        handles.append(Patch(color=theme.lazy, alpha=0.4, label=f"lazy (K = ∞), {mean}{text.EDGES[lazy.rate_edge]}"))
    return handles


def par_handles(result: GridResult, theme: Theme) -> list[Line2D]:
    """Filled and empty marks and the signs beside them, for a legend."""
    faces = (("on par with K = 1", theme.muted), ("not shown to be on par", theme.background))
    style = {"marker": "o", "linestyle": "", "color": theme.muted, "markeredgewidth": 2, "markersize": 9}
    handles = [Line2D([], [], markerfacecolor=face, label=name, **style) for name, face in faces]
    for edge in ("largest", "smallest"):
        if any(outcome.rate_edge == edge for outcome in result.outcomes):
            name = f"{text.EDGES[edge]} best rate is the {edge} offered"
            handles.append(Line2D([], [], linestyle="", label=name))
    return handles


def legend_below(figure: Figure, handles: Sequence[Artist], theme: Theme, columns: int = 5) -> None:
    """A legend below the axes in as many columns as fit, `columns` at most."""
    labels = [str(handle.get_label()) for handle in handles]
    while columns > 1 and _legend_inches(labels, columns) > figure.get_size_inches()[0]:
        columns -= 1
    figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns,
        labelcolor=theme.muted,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def _legend_inches(labels: Sequence[str], columns: int) -> float:
    """About how wide a legend is."""
    parts = [part for part in np.array_split(labels, columns) if part.size]
    return sum(0.68 + 0.09 * max(map(len, part)) for part in parts)


def note_untrained(
    axes: Axes, places: Iterable[tuple[float, ScheduleOutcome]], records: StudyRecords, theme: Theme
) -> int:
    """×2∅1/10 at the foot of the axes where 3 of 10 runs did not train: at chance, they lie far below what is shown.

    Each stands in the lowest row where those before it leave it room. Returns the number of rows, which `limits` needs.
    The limits of the horizontal axis are set before.
    """
    near = [(x, records.untrained(outcome)) for x, outcome in places if not is_far_below(outcome, records.result)]
    left, right = axes.get_xlim()
    character = 0.34 * SMALL / 72 * (right - left) / size_of(axes)[0]  # half its width
    ends = list[float]()
    for x, mark in sorted((x, mark) for x, mark in near if mark):
        half = character * len(mark)
        row = next((i for i, end in enumerate(ends) if end <= x - half), len(ends))
        ends[row : row + 1] = [x + half]
        axes.annotate(
            mark,
            (x, 0.015),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1.3 * SMALL * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=theme.ink,
            path_effects=halo(theme),
        )
    return len(ends)
