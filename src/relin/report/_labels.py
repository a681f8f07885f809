"""Text beside what a figure shows: at the right of the axes, or next to marks, never one text on another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from relin.report._style import FONT_SIZE, Theme, halo

_DIRECTIONS = ((0, 1), (-1, 1), (1, -1), (1, 1), (-1, -1), (0, -1), (1, 0), (-1, 0))
_DISTANCES = (9.0, 21.0, 34.0, 50.0)  # from the mark, in points; but for the first, a line leads from the name to it
_REACH = 24.0  # of an interval, in points, beyond which a name at its end would not be seen to belong to the mark
_RADIUS = 6.0  # of a mark, in points
_STROKE = 2.0  # half the width of an interval or a line
_HEAVY = 20.0  # weight of marks and names: lines may be crossed where there is no other place
_SAMPLES = 60  # of a line, taken as so many small boxes


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The heights in [0, 1] nearest to `positions` in least squares, in the same order and at least `gap` apart.

    Where so many do not fit, they keep their distance and pass 1.
    """
    values = np.asarray(positions, dtype=float)
    if values.size == 0:
        return []
    order = np.argsort(values, kind="stable")
    shift = gap * np.arange(values.size)
    placed = np.empty_like(values)
    # Without the shift the constraint is order alone; clipping an isotonic fit gives the fit within bounds.
    fit = isotonic_regression(values[order] - shift).x
    placed[order] = np.clip(fit, 0.0, max(0.0, 1.0 - shift[-1])) + shift
    return placed.tolist()


def size_of(axes: Axes) -> tuple[float, float]:
    """About the width and the height of axes in inches, rather less: constrained layout knows them after drawing."""
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    width, height = 0.7 * figure.get_size_inches()
    if place is None:
        return width, height
    grid = place.get_gridspec()
    return width * len(place.colspan) / grid.ncols, height * len(place.rowspan) / grid.nrows


def label_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) labels to the right of the axes, next to their values but never on each other."""
    if not labels:
        return
    at = axes.transScale + axes.transLimits
    fractions = [float(at.transform((axes.get_xlim()[1], y))[1]) for y, _, _ in labels]
    lines = max(text.count("\n") + 1 for _, text, _ in labels)
    heights = spread(fractions, 1.2 * FONT_SIZE * lines / (72 * size_of(axes)[1]))
    for (_, text, colour), height in zip(labels, heights, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            ha="left",
            fontsize=FONT_SIZE - 1,
            linespacing=1.05,
            annotation_clip=False,
        )


@dataclass(frozen=True)
class Name:
    """A text that belongs to the mark at (x, y), with an interval from `low` to `high`, in data coordinates."""

    x: float
    y: float
    low: float
    high: float
    text: str
    colour: str


_Box = tuple[float, float, float, float, float]
"""Left, bottom, right and top in pixels, and how much it weighs to cover it."""
Polyline = Sequence[tuple[float, float]]


def name_marks(axes: Axes, names: Sequence[Name], lines: Sequence[Polyline], theme: Theme, size: float) -> None:
    """Write every name next to its mark, where it covers least of marks, intervals, lines and other names.

    The axes must be finished but for the names.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # so that places on the page are known
    pixels = figure.dpi / 72
    taken = [box for name in names for box in _boxes_of_mark(axes, name, pixels)]
    taken += [box for line in lines for box in _boxes_of_line(axes, line, pixels)]
    inside = np.array([[*axes.get_window_extent().extents, _HEAVY]])
    for name in names:
        written = axes.annotate(
            name.text,
            (name.x, name.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=name.colour,
            path_effects=halo(theme),
            zorder=3,  # above the lines it crosses, below the marks of others
        )
        at = written.get_window_extent()
        half = (at.width / pixels / 2, at.height / pixels / 2)
        (_, low), (_, y), (_, high) = axes.transData.transform([(name.x, v) for v in (name.low, name.y, name.high)])
        reach = ((high - y) / pixels, (y - low) / pixels)
        places = [_beside(half, reach, way, distance) for distance in _DISTANCES for way in _DIRECTIONS]
        boxes = [at.translated(pixels * x, pixels * y).extents for x, y in places]
        costs = [_covered(box, np.array(taken)) - _covered(box, inside) for box in boxes]
        best = costs.index(min(costs))  # the first of equals: nearer, and in the order of preference
        written.set_position(places[best])
        taken.append((*boxes[best], _HEAVY))
        if best >= len(_DIRECTIONS):
            _lead(axes, name, places[best], half)


def _beside(
    half: tuple[float, float], reach: tuple[float, float], way: tuple[int, int], distance: float
) -> tuple[float, float]:
    """Centre of a name, in points from its mark, so that its nearest edge or corner is `distance` away.

    Straight above and below it is beyond the interval, unless that is long.
    """
    part = distance / math.hypot(*way)
    beyond = reach[0 if way[1] > 0 else 1]
    if way[0] == 0 and beyond < _REACH:
        part = max(part, beyond + 0.6 * distance)
    return way[0] * (part + half[0]), way[1] * (part + half[1])


def _boxes_of_mark(axes: Axes, name: Name, pixels: float) -> list[_Box]:
    points = axes.transData.transform([(name.x, value) for value in (name.low, name.y, name.high)])
    (x, low), (_, y), (_, high) = points
    radius, stroke = pixels * _RADIUS, pixels * _STROKE
    return [(x - radius, y - radius, x + radius, y + radius, _HEAVY), (x - stroke, low, x + stroke, high, 1.0)]


def _boxes_of_line(axes: Axes, line: Polyline, pixels: float) -> list[_Box]:
    """Small squares along a line: a long one is no reason to leave all the rectangle around it empty."""
    if len(line) < 2:
        return []
    corners = axes.transData.transform(list(line))
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    along = np.linspace(0.0, lengths[-1], _SAMPLES)
    half = pixels * _STROKE
    places = zip(*(np.interp(along, lengths, corners[:, i]) for i in range(2)), strict=True)
    return [(x - half, y - half, x + half, y + half, 1.0) for x, y in places]


def _covered(box: Sequence[float], taken: np.ndarray) -> float:
    """Area that a box shares with others, in square pixels, each times its weight."""
    sides = np.minimum(np.array(box[2:]), taken[:, 2:4]) - np.maximum(np.array(box[:2]), taken[:, :2])
    return float(np.sum(np.prod(np.maximum(sides, 0.0), axis=1) * taken[:, 4]))


def _lead(axes: Axes, name: Name, place: tuple[float, float], half: tuple[float, float]) -> None:
    """A line from a name that had to go further away to its mark."""
    end = [min(max(0.0, centre - side), centre + side) for centre, side in zip(place, half, strict=True)]
    line = {"arrowstyle": "-", "color": name.colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 6}
    axes.annotate("", (name.x, name.y), (end[0], end[1]), textcoords="offset points", arrowprops=line, zorder=1.5)
