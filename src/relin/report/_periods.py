"""The axis of K: powers of two evenly spaced, ∞ behind a break, schedules without a period beside them."""

import math
import textwrap
from collections.abc import Sequence
from typing import final

from matplotlib.axes import Axes

from relin.report import _text as text
from relin.report._style import Theme, draw_break
from relin.study._condition import parse_condition
from relin.study._modifiers import Sparse
from relin.study._result import ScheduleOutcome

BESIDE_INCHES = 1.05
"""Room on the axis for each schedule without a period: their names are long."""
_GAP = 1.6  # between the largest K, ∞ and what stands beside, in powers of two
_DODGE = 0.027  # of the axis, between a K and the same K of the preset
_LINE = 9  # characters of a name's line that fit the room


def sparse_period(outcome: ScheduleOutcome) -> float | None:
    """K of a schedule of the preset `sparse`, infinity for its `never`; none for every other schedule."""
    try:
        condition = parse_condition(outcome.schedule)
    except ValueError:
        return None
    return condition.schedule.period if condition.modifiers == (Sparse(),) else None


def stands_beside(outcome: ScheduleOutcome) -> bool:
    """Whether a schedule has no place on the axis of K: it is adaptive, say, or has modifiers."""
    return outcome.period is None and sparse_period(outcome) is None


def narrow(label: str) -> str:
    """A label on short lines: `K = 64, clipped at 1` is `K = 64` over `clipped` over `at 1`."""
    lines = list[str]()
    for part in label.split(", "):
        if part.startswith("K = "):
            lines.append(part.removesuffix(" (lazy)"))
            continue
        words, sign, value = part.partition(" ≤ ")
        lines += [*textwrap.wrap(words, _LINE), *([f"≤ {value}"] if sign else [])]
    return "\n".join(lines)


@final
class PeriodAxis:
    """Where each schedule stands on the axis of K."""

    def __init__(self, outcomes: Sequence[ScheduleOutcome], beside: bool = True, inches: float = 8.5):
        """`beside` keeps the schedules without a period; `inches` is the axis' width; a K must be positive."""
        self.finite = [o for o in outcomes if o.period is not None and o.period < math.inf]
        self.lazy = [o for o in outcomes if o.period == math.inf]
        preset = [(K, o) for o in outcomes if (K := sparse_period(o)) is not None]
        self.sparse = [o for _, o in sorted(preset, key=lambda pair: pair[0])]
        self.others = [o for o in outcomes if stands_beside(o)] if beside else []
        self.inches = inches
        plain = [(o.period, o) for o in [*self.finite, *self.lazy] if o.period is not None]
        self._places = _places([K for K, _ in [*plain, *preset]])
        last = max(self._places.values(), default=-_GAP)
        first = min(self._places.values(), default=last + _GAP)
        room = max(inches - BESIDE_INCHES * max(len(self.others) - 1, 0), BESIDE_INCHES)
        gap = BESIDE_INCHES * (last - first + _GAP + 1.3) / room
        dodge = _DODGE * (last - first + 1.3)
        self.positions = {o.schedule: self._places[K] for K, o in plain}
        self.positions |= {o.schedule: self._places[K] + dodge for K, o in preset}
        self.positions |= {o.schedule: last + _GAP + gap * index for index, o in enumerate(self.others)}
        self._separator = last + 0.5 * _GAP

    @property
    def outcomes(self) -> list[ScheduleOutcome]:
        return [*self.finite, *self.lazy, *self.sparse, *self.others]

    @property
    def extent(self) -> float:
        """Length of the axis, in powers of two."""
        return max(self.positions.values()) - min(self.positions.values()) + 1.3

    def at(self, outcome: ScheduleOutcome) -> float:
        return self.positions[outcome.schedule]

    def marker(self, outcome: ScheduleOutcome) -> str:
        """Circles for periods, squares for those of the preset, diamonds for what stands beside."""
        if outcome.period is not None:
            return "o"
        return "s" if sparse_period(outcome) is not None else "D"

    def colour(self, outcome: ScheduleOutcome, theme: Theme) -> str:
        """From the colour of ordinary training to that of lazy training as K grows; one for the preset."""
        if outcome.period is None:
            return theme.adaptive if stands_beside(outcome) else theme.accent
        if outcome.period == 1:
            return theme.ordinary
        if outcome.period == math.inf:
            return theme.lazy
        largest = max((self.at(o) for o in self.finite), default=0.0)
        return theme.between((0.5 + 0.5 * self.at(outcome)) / (0.5 + 0.5 * max(largest, 1e-9) + 0.5))

    def dress(self, axes: Axes, theme: Theme, every: int = 1, name: str = "K, steps between feature updates") -> None:
        """Ticks, limits, the break before ∞ and the separator; only every `every`-th finite K is named."""
        axes.set_xlim(min(self.positions.values()) - 0.6, max(self.positions.values()) + 0.7)
        finite = [period for period in self._places if period < math.inf]
        lazy = [period for period in self._places if period == math.inf]
        ticks = [(self._places[period], text.period(period)) for period in [*finite[::every], *lazy]]
        ticks += [(self.at(o), narrow(o.label)) for o in self.others]
        axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
        axes.set_xticks([self._places[period] for period in finite], minor=True)
        axes.tick_params(axis="x", length=5)
        axes.tick_params(axis="x", which="minor", length=5)
        axes.set_xlabel(name)
        if finite and lazy:
            draw_break(axes, self._places[math.inf] - 0.5 * _GAP, theme)
        if self.others and self._places:
            axes.axvline(self._separator, color=theme.muted, linewidth=1, linestyle=(0, (1, 3)))


def _places(periods: Sequence[float]) -> dict[float, float]:
    """The place of every K, in increasing order."""
    places = {period: math.log2(period) for period in sorted(set(periods)) if period < math.inf}
    if math.inf in periods:
        places[math.inf] = max(places.values(), default=-_GAP) + _GAP
    return places
