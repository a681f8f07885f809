"""The drawing of the stability study that answers it: which schedules train at which learning rates."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator

from relin.report import _text as text
from relin.report._accuracy import legend_below
from relin.report._axes import cell_edges
from relin.report._style import FONT_SIZE, Theme, new_figure
from relin.studies.stability.data import Descent, groups, limit_of
from relin.studies.stability.result import RateLimit, StabilityResult

_DIVERGED, _FAILED = "///", "..."
"""Hatches of cells of which no run trained: where some diverged, and where none did."""


def panel_grid(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `number` panels in rows of at most five, each `height` inches high, with one vertical axis."""
    columns = number if number <= 4 else 3 if number <= 6 else 4 if number <= 8 else 5
    rows = -(-number // columns)
    figure = new_figure(width if columns > 2 else 0.72 * width, 0.9 + rows * height)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for axes in panels[number:]:
        axes.set_visible(False)
    return figure, panels[:number]


def name_rows(panels: Sequence[Axes], name: str) -> None:
    """Name the vertical axis, at the first panel of each row."""
    for axes in panels:
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(name)


def rates_that_train(result: StabilityResult, descent: Descent, theme: Theme) -> Figure:
    """Runs that did not train at every rate and number, a panel for each part; the largest rate that trains marked."""
    shown = groups(result)
    height = 1.35 + 0.34 * len(result.rates)
    figure, panels = panel_grid(len(shown), 13.5, height)
    edges = cell_edges(result.rates)
    start = result.stable_rate_at_start
    known = []
    if descent.factor is not None and start is not None and math.isfinite(start):
        known = [(start, (0, (1, 1.5))), (start * descent.factor, (0, (5, 2)))]
    for axes, group in zip(panels, shown, strict=True):
        axes.grid(visible=False)
        axes.set_yscale("log")
        limits = [limit_of(result, outcome) for outcome in group.outcomes]
        for column, (outcome, limit) in enumerate(zip(group.outcomes, limits, strict=True)):
            _draw_rates(axes, column, limit, edges, theme)
            chosen = nearest(result.rates, outcome.learning_rate)
            outline = {"fill": False, "edgecolor": theme.outline, "linewidth": 2.6, "zorder": 4}
            low, high = 1.04 * edges[chosen], edges[chosen + 1] / 1.04
            axes.add_patch(Rectangle((column - 0.44, low), 0.88, high - low, **outline))
        tops = [
            edges[0] if o.largest_rate is None else edges[nearest(result.rates, o.largest_rate) + 1] for o in limits
        ]
        axes.stairs(tops, np.arange(len(tops) + 1) - 0.5, baseline=None, color=theme.ink, lw=4, zorder=5, clip_on=False)
        for rate, style in known:
            axes.axhline(rate, color=theme.ink, linewidth=1.6, linestyle=style, zorder=6)
        axes.set_xlim(-0.5, len(group.outcomes) - 0.5)
        marked = [f"{tick}{text.EDGES[o.rate_edge]}" for tick, o in zip(group.ticks(), group.outcomes, strict=True)]
        axes.set_xticks(range(len(marked)), marked)
        axes.set_title(group.name, fontsize=FONT_SIZE - 1)
        axes.set_xlabel(group.axis)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    first = panels[0]
    first.set_ylim(edges[0], max([edges[-1], *(1.25 * rate for rate, _ in known)]))
    first.set_yticks(result.rates, [text.rate(rate) for rate in result.rates])
    first.yaxis.set_minor_locator(NullLocator())
    name_rows(panels, "learning rate")
    legend_below(figure, _rate_handles(descent, theme), theme, columns=4)
    return figure


def nearest(rates: Sequence[float], rate: float) -> int:
    """The index of a rate, which may have been rounded on its way."""
    return min(range(len(rates)), key=lambda index: abs(rates[index] - rate))


def _draw_rates(axes: Axes, column: int, limit: RateLimit, edges: np.ndarray, theme: Theme) -> None:
    """A column of cells, and 2/λ_max at the anchors with its interval."""
    for row, counts in enumerate(zip(limit.num_diverged, limit.num_failed, limit.num_runs, strict=True)):
        diverged, failed, runs = counts
        if diverged is None or failed is None or not runs:
            continue
        low, high = edges[row], edges[row + 1]
        untrained = diverged + failed
        dead = untrained == runs
        axes.add_patch(
            Rectangle(
                (column - 0.5, low),
                1,
                high - low,
                facecolor=theme.background if dead else untrained_colour(untrained / runs, theme),
                edgecolor=theme.muted if dead else theme.background,
                hatch=(_DIVERGED if diverged else _FAILED) if dead else None,
                linewidth=0.0 if dead else 1.2,
                zorder=1,
            )
        )
        if untrained and (not dead or (diverged and failed)):
            style = {"ha": "left", "va": "bottom", "fontsize": FONT_SIZE - 4, "color": theme.ink, "zorder": 7}
            axes.text(column - 0.45, low * 1.05, text.untrained_mark(diverged, failed, runs), **style)
    if limit.stable_rate is not None:
        low, high = max(limit.stable_rate.low, edges[0]), limit.stable_rate.high
        axes.plot([column, column], [low, high], color=theme.ink, linewidth=1.8, zorder=7)
        style = {"markersize": 7, "markerfacecolor": theme.background, "markeredgewidth": 1.8}
        axes.plot([column], [limit.stable_rate.mean], "o", color=theme.ink, zorder=8, **style)


def untrained_colour(share: float, theme: Theme) -> str:
    """From the colour of ordinary training, where every run trained, to that of lazy training."""
    strength = 0.42 if share == 0 else 0.35 + 0.5 * share
    base = np.array(to_rgb(theme.ordinary if share == 0 else theme.lazy))
    red, green, blue = strength * base + (1 - strength) * np.array(to_rgb(theme.background))
    return to_hex((float(red), float(green), float(blue)))


def _rate_handles(descent: Descent, theme: Theme) -> list[Patch | Line2D]:
    dead = {"facecolor": theme.background, "edgecolor": theme.muted, "linewidth": 0.0}
    anchor = {"marker": "o", "markersize": 7, "markerfacecolor": theme.background, "markeredgewidth": 1.8}
    shown = [
        Patch(color=untrained_colour(0.0, theme), label="every run trained"),
        Patch(color=untrained_colour(0.5, theme), label="some did not"),
        Patch(label="none did, some or all diverged", hatch=_DIVERGED, **dead),
        Patch(label="none did, all failed to train", hatch=_FAILED, **dead),
        Line2D([], [], color=theme.ink, linewidth=4, label="largest rate that trains"),
        Patch(fill=False, edgecolor=theme.outline, linewidth=2.6, label="chosen rate"),
    ]
    if descent.factor is None:
        return shown
    factor = text.tick(descent.factor)
    return [
        *shown,
        Line2D([], [], color=theme.ink, linewidth=1.8, label="2/λ at the anchors", **anchor),
        Line2D([], [], color=theme.ink, linewidth=1.6, linestyle=(0, (1, 1.5)), label="2/λ at the start"),
        Line2D([], [], color=theme.ink, linewidth=1.6, linestyle=(0, (5, 2)), label=f"{factor} × 2/λ at the start"),
    ]
