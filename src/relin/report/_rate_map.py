"""The map of learning rates tried: a row per schedule, a column per rate."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from relin.report import _text as text
from relin.report._accuracy import floor
from relin.report._figures import Plot
from relin.report._records import Cell, StudyRecords
from relin.report._style import FONT_SIZE, Theme, new_figure
from relin.study._result import GridResult


def rates_plot(result: GridResult, records: StudyRecords) -> Plot:
    """The map with its words, the same for every study."""
    return Plot(
        name="learning-rates",
        title=rates_title(result),
        caption="Mean final validation accuracy in percent of each schedule at each learning rate, with the chosen "
        f"rate outlined. {text.UNTRAINED_MEANS}; cells of which no run trained are hatched, with dots where none "
        f"diverged. {text.EDGES_MEAN}. Colours span the accuracies of cells of which every run trained and that are "
        "not far below ordinary training.",
        description=f"Validation accuracy for every schedule and learning rate. {rates_title(result)}.",
        draw=lambda theme: rate_map(result, records, theme),
    )


def rate_map(result: GridResult, records: StudyRecords, theme: Theme) -> Figure:
    """Mean validation accuracy of every schedule at every rate, runs that did not train counted, choice outlined."""
    outcomes, rates, cells = result.outcomes, records.rates(), records.cells()
    figure = new_figure(max(8.0, 3.6 + 1.25 * len(rates)), max(3.6, 1.4 + 0.46 * len(outcomes)))
    axes = figure.subplots()
    axes.grid(visible=False)
    scale = _scale(result, list(cells.values()))
    for row, outcome in enumerate(outcomes):
        for column, rate in enumerate(rates):
            cell = cells.get((outcome.schedule, rate))
            if cell is not None:
                _draw_cell(axes, column, row, cell, scale, theme)
        chosen = min(range(len(rates)), key=lambda i: abs(rates[i] - outcome.learning_rate))
        outline = {"fill": False, "edgecolor": theme.outline, "linewidth": 3.0, "zorder": 5}
        axes.add_patch(Rectangle((chosen - 0.47, row - 0.44), 0.94, 0.88, **outline))
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.set_ylim(len(outcomes) - 0.5, -0.5)
    axes.set_xticks(range(len(rates)), [text.rate(rate) for rate in rates])
    axes.set_yticks(range(len(outcomes)), [f"{outcome.label}{text.EDGES[outcome.rate_edge]}" for outcome in outcomes])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("learning rate")
    return figure


def _draw_cell(axes: Axes, column: int, row: int, cell: Cell, scale: Normalize, theme: Theme) -> None:
    colour = matplotlib.colormaps[theme.colormap](scale(100 * cell.validation_accuracy))
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
    accuracy = text.percent(cell.validation_accuracy, 1)
    content = cell.untrained if cell.hatch else f"{accuracy} {cell.untrained}" if cell.untrained else accuracy
    style = {"ha": "center", "va": "center", "fontsize": FONT_SIZE - 2}
    written = axes.text(column, row, content, color=theme.ink if cell.hatch else ink, **style)
    if cell.hatch:
        written.set_bbox({"facecolor": theme.background, "edgecolor": "none", "pad": 1.0})


def _scale(result: GridResult, cells: Sequence[Cell]) -> Normalize:
    """Colours span the accuracies of cells of which every run trained; what lies far below would use them all up."""
    clean = [100 * c.validation_accuracy for c in cells if not c.untrained and math.isfinite(c.validation_accuracy)]
    low, high = (max(min(clean), floor(result)), max(clean)) if clean else (100 * result.chance, 100.0)
    return Normalize(low, max(high, low + 1e-9), clip=True)


def rates_title(result: GridResult) -> str:
    """How many runs did not train at any learning rate, and where most."""
    untrained = text.untrained_words(result.num_diverged, result.num_failed)
    if not untrained:
        return f"All {result.num_runs:,} runs trained, at every learning rate"
    worst = max(result.outcomes, key=lambda outcome: outcome.share_untrained)
    return f"Of {result.num_runs:,} runs {untrained}, the largest share at {worst.label}"
