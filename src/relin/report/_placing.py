"""Names beside the marks of a figure, placed so that they cover neither marks nor each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from relin.report._style import Theme, halo

_DIRECTIONS = ((0, 1), (-1, 1), (1, -1), (1, 1), (-1, -1), (0, -1), (1, 0), (-1, 0))
_DISTANCES = (9.0, 21.0, 34.0, 50.0)  # from the mark, in points; but for the first, a line leads from the name to it
_REACH = 24.0  # of an interval, in points, beyond which a name at its end would not be seen to belong to the mark
_RADIUS = 6.0  # of a mark, in points
_STROKE = 2.0  # half the width of an interval or a line
_HEAVY = 20.0  # weight of marks and names: lines may be crossed where there is no other place
_SAMPLES = 60  # of a line, taken as so many small boxes


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
