"""The drawing of the layers study: accuracy with one layer alone rich, and with it alone lazy."""

from matplotlib.figure import Figure

from relin.report._accuracy import (
    band_labels,
    band_values,
    draw_bands,
    draw_schedule,
    floor,
    legend_below,
    limits,
    name_axis,
    note_untrained,
    par_handles,
)
from relin.report._labels import label_right
from relin.report._records import StudyRecords
from relin.report._style import Theme, new_figure
from relin.studies.layers.result import LayersResult


def accuracy_by_layer(result: LayersResult, records: StudyRecords, theme: Theme) -> Figure:
    """Two panels with a mark a layer: it alone re-linearised at every step, it alone never."""
    figure = new_figure(11.5, 6.2)
    panels = figure.subplots(1, 2, sharey=True)
    shown, rows = band_values(result), 0
    for axes, how, colour in ((panels[0], "rich", theme.ordinary), (panels[1], "lazy", theme.lazy)):
        places = []
        for place, layer in enumerate(result.layers):
            outcome = result.outcome(getattr(layer, how))
            if outcome is None:
                continue
            shown += draw_schedule(axes, place, outcome, records, colour, theme)
            places.append((place, outcome))
        axes.set_xticks(range(len(result.layers)), [layer.layer for layer in result.layers])
        axes.set_xlim(-0.6, len(result.layers) - 0.4)
        axes.set_xlabel(f"layer that alone is {how}")
        rows = max(rows, note_untrained(axes, places, records, theme))
        draw_bands(axes, result, theme)
    name_axis(panels[0], result)
    panels[0].set_ylim(*limits(shown, result, floor(result), rows))
    label_right(panels[1], band_labels(result, theme))
    legend_below(figure, par_handles(result, theme), theme)
    return figure
