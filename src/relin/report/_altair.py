"""The reports' look for figures of Altair, as Vega-Lite's configuration."""

from typing import Any

from relin.report._style import LIGHT, style_of


def altair_config() -> dict[str, Any]:
    """Colours and type of the reports' figures, for `chart.configure(**altair_config())`."""
    text = {"labelColor": LIGHT.ink, "titleColor": LIGHT.ink, "labelFontSize": 12, "titleFontSize": 13}
    font = "DejaVu Sans, system-ui, sans-serif"
    return {
        "background": LIGHT.background,
        "font": font,
        "axis": text
        | {"gridColor": LIGHT.grid, "domainColor": LIGHT.muted, "tickColor": LIGHT.muted, "titleFontWeight": "normal"},
        "legend": text | {"titleFontWeight": "normal"},
        "title": {"color": LIGHT.ink, "fontSize": 14, "anchor": "start"},
        "view": {"stroke": None},
        "line": {"strokeWidth": 2.2},
        "range": {"category": [style_of(index, LIGHT).colour for index in range(9)]},
    }
