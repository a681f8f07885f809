"""The drawings of the phase study: the map of accuracy over T and n, and how many updates suffice against T."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from relin.report import _text as text
from relin.report._accuracy import SMALL, legend_below
from relin.report._axes import UpdatesAxis
from relin.report._rate_map import draw_cell
from relin.report._records import Cell
from relin.report._style import Theme, halo, new_figure
from relin.studies.phase.result import PhaseCell, PhaseResult
from relin.study._abstract import Against
from relin.study._scale import Scale

Value = Callable[[PhaseCell], float | None]
_REACH = 0.5
"""How far a cell reaches from its n + 1 at most, in powers of two: what lies between is not tested."""


def same_total(cell: PhaseCell) -> float | None:
    """Accuracy less that of ordinary training of the same T."""
    return None if cell.outcome.difference is None else cell.outcome.difference.mean


def best_total(cell: PhaseCell) -> float | None:
    """Accuracy less that of ordinary training of the best T."""
    return None if cell.versus_best is None else cell.versus_best.mean


def phase_map(result: PhaseResult, value: Value, theme: Theme, line: bool = True, against: Against = "n") -> Figure:
    """A difference of accuracy over T and n, in points, on logarithmic axes; with `line`, n* of each T."""
    figure = new_figure(max(8.0, 3.0 + 1.7 * len(result.totals)), 9.0)
    axes = figure.subplots()
    axes.grid(visible=False)
    edges = _edges([math.log2(own.total) for own in result.totals], reach=1.2)
    known = [v for cell in result.cells if (v := value(cell)) is not None and not _counted(cell).hatch]
    lowest = max(min(known, default=0.0), -10 * result.widest_margin)
    colours = Normalize(lowest, max(known, default=0.0), clip=True)
    lines, before = list[tuple[float, float]](), None
    for own, (left, right) in zip(result.totals, edges, strict=True):
        cells = result.at(own.total)[:: -1 if against == "K" else 1]
        rows = _edges([_height(cell, against) for cell in cells], _REACH)
        for cell, (low, high) in zip(cells, rows, strict=True):
            _draw_cell(axes, (left, low, right, high), cell, value(cell), (colours, result.scale), theme)
            if line and cell.updates == own.enough_updates:
                if before is None:
                    lines.append((math.nan, math.nan))
                border = high if against == "K" else low
                lines += [(left, border), (right, border)]
        before = own.enough_updates
    style = {"color": theme.outline, "linewidth": 3.5, "solid_joinstyle": "miter", "zorder": 5}
    axes.plot([x for x, _ in lines], [y for _, y in lines], **style)
    _total_axis(axes, result, edges)
    _updates_axis(axes, result, against)
    parity = f"line of parity: n* and all {'below' if against == 'K' else 'above'} on par"
    handles = [Line2D([], [], color=theme.outline, linewidth=3.5, label=parity)]
    legend_below(figure, handles if line else [], theme)
    return figure


def _counted(cell: PhaseCell) -> Cell:
    o = cell.outcome
    return Cell(o.validation_accuracy, o.num_seeds, o.num_diverged, o.num_failed)


def _edges(centres: Sequence[float], reach: float) -> list[tuple[float, float]]:
    """Of intervals around increasing centres: half-way to the next one, and at most `reach` away."""
    half = [min((high - low) / 2, reach) for low, high in pairwise(centres)]
    ends = half or [reach]
    below, above = [ends[0], *half], [*half, ends[-1]]
    return [(at - low, at + high) for at, low, high in zip(centres, below, above, strict=True)]


def _draw_cell(
    axes: Axes,
    box: tuple[float, float, float, float],
    cell: PhaseCell,
    value: float | None,
    shown: tuple[Normalize, Scale],
    theme: Theme,
) -> None:
    counted, (colours, scale) = _counted(cell), shown
    accuracy = scale.told(cell.outcome.test_accuracy.mean, 1) if value is None else scale.signed(value)
    content = counted.untrained if counted.hatch else f"{accuracy} {counted.untrained}".strip()
    content += text.EDGES[cell.outcome.rate_edge]
    weight, share = "bold" if value is None else "normal", float(colours(value or 0.0))
    draw_cell(axes, box, share, content, counted.hatch, theme, fontsize=SMALL - 1, fontweight=weight)


def _total_axis(axes: Axes, result: PhaseResult, edges: Sequence[tuple[float, float]]) -> None:
    places = [math.log2(own.total) for own in result.totals]
    axes.set_xticks(places, [text.count(own.total) for own in result.totals])
    axes.set_xlim(edges[0][0] - 0.1, edges[-1][1] + 0.1)
    axes.set_xlabel("training steps T")


def _height(cell: PhaseCell, against: Against) -> float:
    """By the logarithm; n by that of n + 1, so that zero has a place."""
    return math.log2(UpdatesAxis("K" if against == "K" else "T/K", cell.total).at(cell.updates))


def _updates_axis(axes: Axes, result: PhaseResult, against: Against) -> None:
    highest = max(_height(cell, against) for cell in result.cells)
    powers = range(math.ceil(highest) + 1)
    axes.set_yticks(powers, [text.count(2**power - (1 if against == "n" else 0)) for power in powers])
    axes.set_ylim(-_REACH - 0.15, highest + _REACH + 0.15)
    axes.set_ylabel(UpdatesAxis(against, result.num_steps).named("feature updates n = T/K − 1"))


def enough_against_total(result: PhaseResult, theme: Theme) -> Figure:
    """n* + 1 = T/K and K of each T, with where the mean loss reaches the margin and its power of T."""
    figure = new_figure(14.0, 6.4)
    windows, period = figure.subplots(1, 2)
    totals = np.array([own.total for own in result.totals], float)
    answered = [own for own in result.totals if own.enough_updates is not None]
    known = [(own.total, own.crossing) for own in result.totals if own.crossing is not None]
    for axes, turned in ((windows, False), (period, True)):

        def at(total: np.ndarray, parts: np.ndarray, turned: bool = turned) -> np.ndarray:
            return total / parts if turned else parts

        axes.plot(totals, at(totals, totals), color=theme.ordinary, linestyle=(0, (5, 3)), linewidth=1.6)
        crossed = np.array(known, float).reshape(-1, 2)
        if result.growth is not None:
            ends, (centre, level) = crossed[[0, -1], 0], np.exp(np.mean(np.log(crossed), axis=0))
            line = level * (ends / centre) ** result.growth.mean
            axes.plot(ends, at(ends, line), color=theme.muted, linewidth=2.0, zorder=2)
        style = {"color": theme.muted, "markerfacecolor": theme.background, "markersize": 9, "markeredgewidth": 2}
        axes.plot(crossed[:, 0], at(crossed[:, 0], crossed[:, 1]), "o", zorder=3, **style)
        for own in answered:
            star = at(np.array([own.total]), np.array([own.enough_updates + 1]))  # pyright: ignore[reportOptionalOperand]
            axes.plot([own.total], star, "o", color=theme.outline, markersize=10, zorder=4)
            name = text.count(own.enough_updates) if not turned else text.period(own.period)
            at_star = {"xytext": (9, 7), "textcoords": "offset points", "path_effects": halo(theme), "zorder": 5}
            axes.annotate(name, (own.total, float(star[0])), color=theme.outline, fontsize=SMALL, **at_star)
        _log_axes(axes, totals)
    windows.set_title("n + 1 = T/K; named by n*")
    period.set_title("T/(n + 1); named by K")
    legend_below(figure, _handles(result, theme), theme, columns=4)
    return figure


def _log_axes(axes: Axes, totals: np.ndarray) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(totals[0] / 1.3, totals[-1] * 1.7)
    axes.xaxis.set_major_locator(FixedLocator(totals.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value) if value >= 1 else text.tick(value)))
    axes.set_xlabel("training steps T")


def _handles(result: PhaseResult, theme: Theme) -> list[Line2D]:
    open_mark = {"marker": "o", "linestyle": "", "markerfacecolor": theme.background, "markeredgewidth": 2}
    handles = [
        Line2D([], [], color=theme.outline, marker="o", linestyle="", markersize=10, label="n*, shown to suffice"),
        Line2D([], [], color=theme.muted, markersize=9, label=f"mean loss is {result.scale.short_margin}", **open_mark),
        Line2D([], [], color=theme.ordinary, linestyle=(0, (5, 3)), linewidth=1.6, label="ordinary training, K = 1"),
    ]
    if result.growth is not None:
        fitted = f"T to the power {text.fixed(result.growth.mean, 2)}"
        handles.append(Line2D([], [], color=theme.muted, linewidth=2.0, label=fitted))
    return handles
