"""The map of learning rates tried: a row per schedule, a column per rate."""

import math
from collections.abc import Sequence
from typing import Any

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
    """The map with its words, the same for every study.

    **Arguments:**

    - `result`: what was concluded.
    - `records`: those it was concluded from.
    """
    percent = " in percent" if result.scale.unit == "%" else ""
    return Plot(
        name="learning-rates",
        title=rates_title(result),
        caption=f"Mean final validation accuracy{percent} of each schedule at each learning rate, with the chosen "
        f"rate outlined. {text.UNTRAINED_MEANS}; cells of which no run trained are hatched, with dots where none "
        f"diverged. {text.EDGES_MEAN}. Colours span the accuracies of cells of which every run trained and that are "
        "not far worse than ordinary training.",
        description=f"Validation accuracy for every schedule and learning rate. {rates_title(result)}.",
        draw=lambda theme: rate_map(result, records, theme),
        shown=records.has("validation_accuracy"),
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
                box = (column - 0.5, row - 0.5, column + 0.5, row + 0.5)
                accuracy = "" if cell.hatch else result.scale.value(cell.validation_accuracy, 1)
                content = f"{accuracy} {cell.untrained}".strip()
                share = float(scale(result.scale.factor * cell.validation_accuracy))
                draw_cell(axes, box, share, content, cell.hatch, theme, fontsize=FONT_SIZE - 2)
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


def draw_cell(
    axes: Axes,
    box: tuple[float, float, float, float],
    share: float,
    content: str,
    hatch: str | None,
    theme: Theme,
    **style: Any,
) -> None:
    """A cell of a map with a text in its middle.

    **Arguments:**

    - `box`: left, low, right, high.
    - `share`: of the way through the colour map.
    - `hatch`: instead of a colour, as `Cell` has it.
    - `style`: of the text.
    """
    left, low, right, high = box
    colour = matplotlib.colormaps[theme.colormap](share)
    ink = "#ffffff" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5 else "#10141a"
    face = {"facecolor": colour, "edgecolor": theme.background, "linewidth": 1.5}
    if hatch:
        face = {"facecolor": theme.background, "edgecolor": theme.muted, "hatch": hatch, "linewidth": 0.0}
    axes.add_patch(Rectangle((left, low), right - left, high - low, **face))
    style = {"ha": "center", "va": "center", "color": theme.ink if hatch else ink, **style}
    written = axes.text((left + right) / 2, (low + high) / 2, content, **style)
    if hatch:
        written.set_bbox({"facecolor": theme.background, "edgecolor": "none", "pad": 1.0})


def _scale(result: GridResult, cells: Sequence[Cell]) -> Normalize:
    """Colours span the accuracies of cells of which every run trained; what lies far below would use them all up."""
    factor = result.scale.factor
    clean = [factor * c.validation_accuracy for c in cells if not c.untrained and math.isfinite(c.validation_accuracy)]
    low, high = (max(min(clean), floor(result)), max(clean)) if clean else (factor * result.chance, factor)
    return Normalize(low, max(high, low + 1e-9), clip=True)


def rates_title(result: GridResult) -> str:
    """How many runs did not train at any learning rate, and where most."""
    untrained = text.untrained_words(result.num_diverged, result.num_failed)
    if not untrained:
        return f"All {result.num_runs:,} runs trained, at every learning rate"
    worst = max(result.outcomes, key=lambda outcome: outcome.share_untrained)
    return f"Of {result.num_runs:,} runs {untrained}, the largest share at {worst.label}"
