"""Axes: numbers by their logarithm with places behind breaks, feature updates, steps, logarithmic values."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from relin.report import _text as text
from relin.report._style import FONT_SIZE, Theme
from relin.study._abstract import Against

Number = TypeVar("Number", float, np.ndarray)

BESIDE_INCHES = 1.05
"""Room for each name beside the numbers: they are long."""
_TICK_INCHES = 0.6
_GAP = 1.6  # between the numbers and what stands behind a break, in powers of two
_EDGE = 0.7  # from the outermost places to the ends of the axis


@final
class NumberAxis:
    """A horizontal axis of positive numbers evenly spaced by their logarithm, in powers of two.

    Zero stands at the left and ∞ at the right of all others, behind breaks; names that are no numbers stand beside
    them, to the right of a dotted line.
    """

    def __init__(self, numbers: Iterable[float], beside: Sequence[str] = (), inches: float = 8.5):
        """`inches` is the width of the axis, which says how far apart names stand, and how many numbers are named."""
        numbers = sorted(set(numbers))
        self.finite = [number for number in numbers if 0 < number < math.inf]
        self._at = {number: math.log2(number) for number in self.finite}
        if 0 in numbers:
            self._at[0.0] = min(self._at.values(), default=_GAP) - _GAP
        if math.inf in numbers:
            self._at[math.inf] = max(self._at.values(), default=-_GAP) + _GAP
        self._first, self._last = min(self._at.values(), default=0.0), max(self._at.values(), default=-_GAP)
        room = max(inches - BESIDE_INCHES * max(len(beside) - 1, 0), BESIDE_INCHES)
        gap = BESIDE_INCHES * (self._last - self._first + _GAP + 2 * _EDGE) / room
        self._names, self._inches = list(beside), inches
        self.beside = [self._last + _GAP + gap * index for index in range(len(beside))]
        """Where the names stand, in their order."""

    def at(self, number: float) -> float:
        return self._at[number]

    def share(self, number: float) -> float:
        """How far the number is from the first (0) towards the last one (1)."""
        return (self.at(number) - self._first) / max(self._last - self._first, 1e-9)

    @property
    def extent(self) -> float:
        """Length of the axis, in powers of two."""
        places = [*self._at.values(), *self.beside]
        return max(places) - min(places) + 2 * _EDGE

    def draw(
        self,
        axes: Axes,
        theme: Theme,
        name: str,
        number: Callable[[float], str] = text.count,
        ends: tuple[str, str] = ("0", "∞"),
        most: int | None = None,
    ) -> None:
        """Ticks, limits, the breaks and the dotted line.

        **Arguments:**

        - `number`: a number between the ends in words.
        - `ends`: names of zero and ∞.
        - `most`: how many numbers between the ends are named; as many as the axis is wide enough for, if none.
        """
        places = [*self._at.values(), *self.beside]
        axes.set_xlim(min(places) - _EDGE, max(places) + _EDGE)
        every = -(-len(self.finite) // (most or int(self._inches / _TICK_INCHES)))
        named = {self._at[n]: number(n) for n in self.finite[:: every or 1]}
        named |= {self._at[n]: name for n, name in zip((0.0, math.inf), ends, strict=True) if n in self._at}
        named |= dict(zip(self.beside, self._names, strict=True))
        axes.set_xticks(sorted(named), [named[place] for place in sorted(named)])
        axes.set_xticks([self._at[n] for n in self.finite], minor=True)
        axes.tick_params(axis="x", which="both", length=5)
        axes.set_xlabel(name)
        for end, side in ((0.0, 1), (math.inf, -1)):
            if self.finite and end in self._at:
                draw_break(axes, self._at[end] + side * 0.5 * _GAP, theme)
        if self.beside and self._at:
            axes.axvline(self._last + 0.5 * _GAP, color=theme.muted, linewidth=1, linestyle=(0, (1, 3)))


def draw_break(axes: Axes, x: float, theme: Theme) -> None:
    """Two strokes through the horizontal axis, with nothing between them."""
    left, right = axes.get_xlim()
    half = 0.005 * (right - left)
    axes.plot(
        [x - half, x + half],
        [0, 0],
        transform=axes.get_xaxis_transform(),
        color=theme.background,
        linewidth=4,
        solid_capstyle="butt",
        clip_on=False,
        zorder=5,
    )
    axes.annotate(
        "//",
        (x, 0),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="center",
        color=theme.muted,
        fontsize=FONT_SIZE,
        annotation_clip=False,
        zorder=6,
    )


@final
@dataclass(frozen=True)
class UpdatesAxis:
    """A horizontal axis of how often features are updated in a run, in one of the three ways to say it."""

    against: Against
    steps: int
    """T, of runs of which no other number is told."""

    def at(self, updates: Number, steps: int | None = None) -> Number:
        """The place of n feature updates, or of an array of them, in a run of so many steps."""
        match self.against:
            case "n":
                return updates
            case "T/K":
                return updates + 1
            case "K":
                return (steps or self.steps) / (updates + 1)

    @property
    def is_turned(self) -> bool:
        """Whether more updates lie to the left."""
        return self.against == "K"

    def named(self, name: str) -> str:
        """What is on the axis, in words: `name` where it is n."""
        windows = {"K": "steps in a window, K = T/(n + 1)", "T/K": "windows in a run, T/K = n + 1"}
        return windows.get(self.against, name)

    @property
    def kind(self) -> str:
        return "a logarithmic axis" + (" that includes zero" if self.against == "n" else "")

    def draw(self, axes: Axes, most: float, name: str) -> None:
        """Name, ticks and limits for places up to `most`, logarithmic and, of n, yet with a zero."""
        if self.against == "n":
            axes.set_xscale("symlog", linthresh=1, linscale=0.6)
            axes.set_xlim(-0.35, max(most, 1.0) * 2.2)
            powers = [10.0**e for e in range(math.ceil(math.log10(max(most, 1.0))) + 1)]
            axes.xaxis.set_major_locator(FixedLocator([0.0, *powers]))
        else:
            axes.set_xscale("log")
            axes.set_xlim(0.7, most * 2.2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
        axes.set_xlabel(name)


def number_axis(axes: Axes, numbers: Sequence[float], name: str, most: int = 8) -> None:
    """A logarithmic horizontal axis with a tick at some of the numbers, `most` at most."""
    axes.set_xscale("log", base=2)
    shown = list(numbers)[:: -(-len(numbers) // most)]
    axes.set_xticks(shown, [text.short(number) for number in shown])
    axes.minorticks_off()
    axes.set_xlabel(name)


def step_axis(axes: Axes, num_steps: int, name: str = "step", before: float = 0.0, after: float = 0.0) -> None:
    """A horizontal axis of steps; `before` and `after` are parts of `num_steps` that it is longer by."""
    axes.set_xlim(-before * num_steps, (1 + after) * num_steps)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    axes.set_xlabel(name)


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical axis from `low` to `high` with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylim(low / 1.3, high * 1.3)
    # Less than a decade has at most one power of ten in it: name 2 and 5 as well.
    log_ticks(axes.yaxis, (1.0, 2.0, 5.0) if math.log10(high / low) < 2.5 else (1.0,))


def log_ticks(axis: Axis, multiples: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Plain numbers on a logarithmic axis: these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text.power(value)))
    axis.set_minor_formatter(NullFormatter())


def cell_edges(centres: Sequence[float]) -> np.ndarray:
    """The borders of cells around increasing centres, half-way to their neighbours on a logarithmic axis."""
    logs = np.log(np.asarray(centres, dtype=float))
    gaps = np.diff(logs) if logs.size > 1 else np.array([math.log(3.0)])
    return np.exp(np.concatenate([[logs[0] - gaps[0] / 2], (logs[1:] + logs[:-1]) / 2, [logs[-1] + gaps[-1] / 2]]))
