"""What the figures of both studies of full-batch descent share."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from relin.report import _text as text
from relin.report._style import Theme
from relin.study._result import Interval


def period_axis(axes: Axes, numbers: Sequence[float], name: str, most: int = 8) -> None:
    """A logarithmic axis whose ticks are some of the numbers."""
    axes.set_xscale("log", base=2)
    every = -(-len(numbers) // most)
    shown = list(numbers)[::every]
    axes.set_xticks(shown, [text.short(number) for number in shown])
    axes.minorticks_off()
    axes.set_xlabel(name)


def draw_line(
    axes: Axes,
    points: Sequence[tuple[float, Interval | None]],
    colour: str,
    marker: str,
    label: str,
    theme: Theme,
    scale: float = 1.0,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Means joined, with their intervals as a band, where they are known; no band leaves what is possible."""
    known = [(x, interval) for x, interval in points if interval is not None]
    if not known:
        return
    x = [at for at, _ in known]
    low, high = (np.clip(scale * np.array([getattr(i, end) for _, i in known]), *within) for end in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
    means = [scale * i.mean for _, i in known]
    look = {"color": colour, "markersize": 7, "markeredgecolor": theme.background}
    axes.plot(x, means, f"{marker}-", label=label, zorder=4, **look)
