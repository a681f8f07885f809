"""The drawings of the frequency study that check it: learning rates tried, and how linear the training was."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from relin.report import _text as text
from relin.report._periods import PeriodAxis, narrow, sparse_period, stands_beside
from relin.report._records import Cell
from relin.report._style import FONT_SIZE, Theme, new_figure
from relin.studies.frequency.data import FrequencyRecords
from relin.studies.frequency.result import FrequencyResult
from relin.study._result import Interval, ScheduleOutcome


def rates_tried(records: FrequencyRecords, theme: Theme) -> Figure:
    """Mean validation accuracy of every schedule at every rate, runs that did not train counted, choice outlined."""
    result, rates, cells = records.result, records.rates(), records.cells()
    height = max(4.2, 1.7 + 0.62 * len(rates))
    figure = new_figure(max(7.0, 2.4 + 0.82 * len(result.outcomes)), height)
    axes = figure.subplots()
    axes.grid(visible=False)
    colormap = matplotlib.colormaps[theme.colormap]
    scale = _scale(result, list(cells.values()))
    size = FONT_SIZE - 1
    for column, outcome in enumerate(result.outcomes):
        for row, rate in enumerate(rates):
            cell = cells.get((outcome.schedule, rate))
            if cell is None:
                continue
            colour = colormap(scale(100 * cell.validation_accuracy))
            ink = "#ffffff" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5 else "#10141a"
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=theme.background if cell.hatch else colour,
                    edgecolor=theme.muted if cell.hatch else theme.background,
                    hatch=cell.hatch,
                    linewidth=0.0 if cell.hatch else 1.5,
                )
            )
            _cell_text(axes, (column, row), cell, theme.ink if cell.hatch else ink, size, theme if cell.hatch else None)
        chosen = min(range(len(rates)), key=lambda i: abs(rates[i] - outcome.learning_rate))
        axes.add_patch(
            Rectangle(
                (column - 0.46, chosen - 0.46), 0.92, 0.92, fill=False, edgecolor=theme.outline, linewidth=3.2, zorder=5
            )
        )
    axes.set_xlim(-0.5, len(result.outcomes) - 0.5)
    axes.set_ylim(-0.5, len(rates) - 0.5)
    names = [_column_name(outcome) + text.EDGES[outcome.rate_edge] for outcome in result.outcomes]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(rates)), [text.rate(rate) for rate in rates])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("K, steps between feature updates")
    axes.set_ylabel("learning rate")
    return figure


def _column_name(outcome: ScheduleOutcome) -> str:
    """K, with what else a schedule is below it."""
    sparse = sparse_period(outcome)
    if sparse is not None:
        return f"{text.period(sparse)}\nsparse"
    return narrow(outcome.label) if outcome.period is None else text.period(outcome.period)


def _scale(result: FrequencyResult, cells: list[Cell]) -> Normalize:
    """Colours span the accuracies of cells of which every run trained; what lies at chance would use them all up."""
    clean = [100 * c.validation_accuracy for c in cells if not c.lost and math.isfinite(c.validation_accuracy)]
    low, high = (min(clean), max(clean)) if clean else (100 * result.chance, 100.0)
    return Normalize(low, max(high, low + 1e-9), clip=True)


def _cell_text(axes: Axes, place: tuple[float, float], cell: Cell, ink: str, size: float, theme: Theme | None) -> Text:
    """Accuracy in percent, and below it how many runs did not train; `theme` is given where none did."""
    accuracy = text.percent(cell.validation_accuracy, 1)
    content = cell.lost if theme is not None else (f"{accuracy}\n{cell.lost}" if cell.lost else accuracy)
    written = axes.text(*place, content, ha="center", va="center", color=ink, fontsize=size, linespacing=1.15)
    if theme is not None:
        written.set_bbox({"facecolor": theme.background, "edgecolor": "none", "pad": 1.5})
    return written


def linearity(records: FrequencyRecords, theme: Theme) -> Figure:
    """Accuracy of both predictors, linearisation error and parameter movement, each against K."""
    outcomes = records.result.outcomes
    figure = new_figure(13.5, 6.4)
    panels = figure.subplot_mosaic([["accuracy", "error"], ["accuracy", "movement"]], width_ratios=[1.35, 1])
    # The panels have no room for names, unless those are all there is.
    periods = PeriodAxis(outcomes, beside=all(stands_beside(o) for o in outcomes), inches=6.0)
    accuracy = panels["accuracy"]
    trained, network = ([*map(of, periods.outcomes)] for of in (_trained_accuracy, _network_accuracy))
    apart = min(0.12, 0.008 * periods.extent)
    _series(accuracy, periods, trained, theme.ink, "o", "-", -apart, "linearised network, as trained")
    _series(accuracy, periods, network, theme.accent, "s", "--", apart, "network at the same parameters")
    handles = accuracy.get_legend_handles_labels()[0]
    if periods.sparse:
        look = {"linestyle": "", "markeredgewidth": 1.8, "markersize": 7.5, "markerfacecolor": theme.background}
        handles.append(Line2D([], [], marker="o", color=theme.ink, label="hollow: preset sparse", **look))
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    accuracy.set_title("test accuracy, %")
    periods.dress(accuracy, theme)
    quantities = (
        ("error", "linearisation_error", "linearisation error at the end", "v"),
        ("movement", "parameter_movement", "parameter movement, ‖θ − θ₀‖ / ‖θ₀‖", "^"),
    )
    for panel, column, name, marker in quantities:
        values = [records.final(outcome, column) for outcome in periods.outcomes]
        _series(panels[panel], periods, values, theme.ink, marker, "-", 0.0, name)
        panels[panel].set_title(name)
        highest = max((high if math.isfinite(high) else mean for mean, _, high in values), default=math.nan)
        highest = highest if math.isfinite(highest) and highest > 0 else 1.0
        panels[panel].set_ylim(-0.06 * highest, 1.12 * highest)
        periods.dress(panels[panel], theme, every=2, name="K" if panel == "movement" else "")
    return figure


def _trained_accuracy(outcome: ScheduleOutcome) -> tuple[float, float, float]:
    return _percent(outcome.test_accuracy)


def _network_accuracy(outcome: ScheduleOutcome) -> tuple[float, float, float]:
    return _percent(outcome.network_test_accuracy)


def _percent(interval: Interval) -> tuple[float, float, float]:
    return 100 * interval.mean, 100 * interval.low, 100 * interval.high


def _series(
    axes: Axes,
    periods: PeriodAxis,
    values: Sequence[tuple[float, float, float]],
    colour: str,
    marker: str,
    style: str,
    shift: float,
    name: str,
) -> None:
    """Means with intervals; lines join the finite K and stop at the break before ∞. The preset's marks are hollow."""
    x = np.array([periods.at(outcome) for outcome in periods.outcomes]) + shift
    mean, low, high = (np.array(part) for part in zip(*values, strict=True))
    axes.vlines(x, np.where(np.isfinite(low), low, mean), np.where(np.isfinite(high), high, mean), color=colour, lw=2)
    kinds = [(sparse_period(o) is not None, sparse_period(o) or o.period) for o in periods.outcomes]
    drawn = {
        "color": colour,
        "marker": marker,
        "markersize": 7.5,
        "markeredgewidth": 1.8,
        "linewidth": 1.8,
        "zorder": 3,
    }
    for preset in (False, True):
        finite = [kind == preset and period is not None and period < math.inf for kind, period in kinds]
        alone = [kind == preset and (period is None or period == math.inf) for kind, period in kinds]
        face = axes.get_facecolor() if preset else colour
        label = None if preset else name
        axes.plot(x[finite], mean[finite], style, markerfacecolor=face, label=label, **drawn)
        axes.plot(x[alone], mean[alone], linestyle="", markerfacecolor=face, **drawn)


def widest_gap(result: FrequencyResult) -> tuple[float, str]:
    """The largest difference in accuracy between the two predictors and the schedule that has it."""

    def gap(linearised: Interval, network: Interval) -> float:
        difference = abs(linearised.mean - network.mean)
        return difference if math.isfinite(difference) else 0.0

    gaps = [(gap(o.test_accuracy, o.network_test_accuracy), o.label) for o in result.outcomes]
    return max(gaps, key=lambda pair: pair[0])
