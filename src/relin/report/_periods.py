"""The axis of K: powers of two evenly spaced, ∞ behind a break, schedules without a period beside them."""

import math
from collections.abc import Sequence
from typing import final

from matplotlib.axes import Axes

from relin.report import _text as text
from relin.report._style import FONT_SIZE, Theme
from relin.study._result import ScheduleOutcome

_GAP = 1.6  # between the largest K, ∞ and what stands beside, in powers of two
_BESIDE = 1.4  # between schedules without a period: their names are long


@final
class PeriodAxis:
    """Where each schedule stands on the axis of K."""

    def __init__(self, outcomes: Sequence[ScheduleOutcome], beside: bool = True):
        """`beside` keeps the schedules without a period on the axis; a K must be positive."""
        self.finite = [o for o in outcomes if o.period is not None and o.period < math.inf]
        self.lazy = [o for o in outcomes if o.period == math.inf]
        self.others = [o for o in outcomes if o.period is None] if beside else []
        self.positions = {o.schedule: math.log2(o.period) for o in self.finite if o.period is not None}
        last = max(self.positions.values(), default=-_GAP)
        for outcome in self.lazy:
            self.positions[outcome.schedule] = last + _GAP
        last = max(self.positions.values(), default=-_GAP)
        for index, outcome in enumerate(self.others):
            self.positions[outcome.schedule] = last + _GAP + _BESIDE * index
        self._separator = last + 0.5 * _GAP

    @property
    def outcomes(self) -> list[ScheduleOutcome]:
        return [*self.finite, *self.lazy, *self.others]

    def at(self, outcome: ScheduleOutcome) -> float:
        return self.positions[outcome.schedule]

    def colour(self, outcome: ScheduleOutcome, theme: Theme) -> str:
        """From the colour of ordinary training to that of lazy training as K grows."""
        if outcome.period is None:
            return theme.adaptive
        if outcome.period == 1:
            return theme.ordinary
        if outcome.period == math.inf:
            return theme.lazy
        largest = max((self.at(o) for o in self.finite), default=0.0)
        return theme.between((0.5 + 0.5 * self.at(outcome)) / (0.5 + 0.5 * max(largest, 1e-9) + 0.5))

    def dress(self, axes: Axes, theme: Theme, every: int = 1, name: str = "K, steps between feature updates") -> None:
        """Ticks, limits, the break before ∞ and the separator; only every `every`-th finite K is named."""
        axes.set_xlim(min(self.positions.values()) - 0.6, max(self.positions.values()) + 0.7)
        ticks = [(self.at(o), text.period(o.period)) for o in self.finite[::every]]
        ticks += [(self.at(o), "∞") for o in self.lazy]
        ticks += [(self.at(o), text.two_lines(o.label)) for o in self.others]
        axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
        axes.set_xticks([self.at(o) for o in self.finite], minor=True)
        axes.tick_params(axis="x", length=5)
        axes.tick_params(axis="x", which="minor", length=5)
        axes.set_xlabel(name)
        if self.finite and self.lazy:
            self._break(axes, theme, self.at(self.lazy[0]) - 0.5 * _GAP)
        if self.others and (self.finite or self.lazy):
            axes.axvline(self._separator, color=theme.muted, linewidth=1, linestyle=(0, (1, 3)))

    @staticmethod
    def _break(axes: Axes, theme: Theme, x: float) -> None:
        """Two strokes through the axis, with nothing between them."""
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
