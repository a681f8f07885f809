"""An axis of whole numbers evenly spaced by their logarithm, with two further places behind breaks at its ends."""

import math
from collections.abc import Sequence
from typing import final

from matplotlib.axes import Axes

from relin.report import _text as text
from relin.report._style import Theme, draw_break

_GAP = 1.7  # between the numbers and the ends, in powers of two


@final
class NumberAxis:
    """Where each number stands, in powers of two, and where the two ends do."""

    def __init__(self, numbers: Sequence[float], left: str, right: str):
        """`left` and `right` name the ends; the numbers are positive and increasing."""
        self._numbers = list(numbers)
        self._names = (left, right)
        self.left = self.at(min(numbers)) - _GAP
        self.right = self.at(max(numbers)) + _GAP

    @staticmethod
    def at(number: float) -> float:
        return math.log2(number)

    def share(self, number: float) -> float:
        """How far the number is from the left end (0) towards the right one (1)."""
        return (self.at(number) - self.left) / (self.right - self.left)

    def dress(self, axes: Axes, theme: Theme, name: str) -> None:
        """Ticks, limits, and the breaks before both ends."""
        axes.set_xlim(self.left - 0.8, self.right + 0.8)
        places = [self.left, *map(self.at, self._numbers), self.right]
        axes.set_xticks(places, [self._names[0], *map(text.count, self._numbers), self._names[1]])
        axes.tick_params(axis="x", length=5)
        axes.set_xlabel(name)
        for x in (self.left + _GAP / 2, self.right - _GAP / 2):
            draw_break(axes, x, theme)
