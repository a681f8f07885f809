"""The report of the layers study: *which layers need feature updates?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._curves import CAPTION, Line, learning_curves
from relin.report._figures import Plot
from relin.report._page import Report, Tile, in_words, shared_tiles, statistics
from relin.report._rate_map import rates_plot
from relin.report._records import StudyRecords
from relin.report._style import Theme
from relin.report._tables import outcomes_csv, outcomes_table
from relin.studies.layers.figures import accuracy_by_layer
from relin.studies.layers.result import LayerOutcome, LayersResult

QUESTION = "Which layers need feature updates?"
_METHOD = (
    "Every parameter has an anchor of its own. Beside ordinary training, where all anchors move before every step, and "
    "lazy training, where none does, one layer at a time is treated apart: its anchor alone moves before every step "
    "while all others stay (alone rich), or it alone stays (alone lazy). What alone rich gains over lazy training is "
    "what the layer's features can do by themselves; what alone lazy loses is what the others cannot make up for. "
    "Accuracy is that of the linearised network, which is what was trained."
)


def page(result: LayersResult, records: pl.DataFrame, spec: Mapping[str, Any]) -> Report:
    """What the page of the layers study shows."""
    data = StudyRecords(result, records)
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, data),
        tables=[outcomes_table(result, [], "")],
        method=[_METHOD, statistics(result)],
        files={"table.csv": outcomes_csv(result.outcomes, scale=result.scale)},
    )


def _tiles(result: LayersResult) -> list[Tile]:
    (gap, *others), scale = shared_tiles(result), result.scale
    best = most_gain(result)
    worst = min((layer for layer in result.layers if layer.loss is not None), key=_loss, default=None)
    tiles = [gap]
    if best is not None and best.gain is not None:
        note = f"{scale.in_points(scale.gain(best.gain.mean))} over lazy training, updated alone"
        tiles.append(Tile("Layer that gains most", best.layer, note))
    if worst is not None and worst.loss is not None:
        note = f"{scale.in_points(scale.signed(worst.loss.mean))} from ordinary training, lazy alone"
        tiles.append(Tile("Layer that is missed most", worst.layer, note))
    return [*tiles, *others]


def most_gain(result: LayersResult) -> LayerOutcome | None:
    gains = [layer for layer in result.layers if layer.gain is not None]
    return max(gains, key=lambda layer: layer.gain.mean if layer.gain else 0.0, default=None)


def _loss(layer: LayerOutcome) -> float:
    return layer.loss.mean if layer.loss else 0.0


def plots(result: LayersResult, data: StudyRecords) -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    by_layer = Plot(
        name="accuracy-by-layer",
        title=_title(result),
        caption="Mean test accuracy of the linearised network and its 95 % interval where a layer alone is "
        "re-linearised at every step, and where it alone never is; faint dots are seeds. Bands are the intervals of "
        "ordinary and lazy training, the dashed line is one margin worse than ordinary training, and filled marks are "
        "on par with it.",
        description="Test accuracy by layer. " + in_words(result, [o for o in result.outcomes if o.period is None]),
        draw=lambda theme: accuracy_by_layer(result, data, theme),
    )
    curves = Plot(
        name="learning-curves",
        title=_title(result),
        caption=f"{CAPTION} Dashed lines are those of layers that alone are lazy.",
        description="Test accuracy and training loss against the step.",
        draw=lambda theme: _curves(result, data, theme),
        shown=data.has_curves,
    )
    return [by_layer, curves, rates_plot(result, data)]


def _curves(result: LayersResult, data: StudyRecords, theme: Theme) -> Any:
    lines = []
    for outcome in result.outcomes:
        share = {"every-1": 0.0, "never": 1.0}.get(outcome.schedule)
        if share is None:
            number = next(i for i, layer in enumerate(result.layers) if outcome.schedule in (layer.rich, layer.lazy))
            share = (number + 1) / (len(result.layers) + 1)
        style = "--" if outcome.schedule.startswith("lazy") else "-"
        lines.append(Line(outcome, text.schedule(outcome), theme.between(share), style))
    return learning_curves(result, data, lines, theme)


def _title(result: LayersResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    best = most_gain(result)
    if best is None or best.gain is None:
        return "Layers with feature updates of their own beside ordinary training"
    gain = result.scale.in_points(result.scale.gain(best.gain.mean))
    return f"Updated alone, {best.layer} gains most over lazy training, {gain}"
