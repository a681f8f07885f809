"""A figure drawn once per theme and saved in every format: SVG for the page, PNG and PDF for talks and papers."""

import base64
import io
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from relin._common.files import write_atomically
from relin.report._html import Html, escape, prose
from relin.report._style import DARK, FONT_SIZE, LIGHT, Theme, themed
from relin.study._verdict import in_measure

PNG_DPI = 200


@dataclass(frozen=True)
class Plot:
    """A figure to be drawn: what it shows, in words, and how."""

    name: str
    """Stem of the file names."""
    title: str
    """The finding."""
    caption: str
    """How to read the figure."""
    description: str
    """What someone who cannot see the figure needs to know."""
    draw: Callable[[Theme], Figure]
    """Draws it without the title, which the page sets as text."""
    shown: bool = True
    """Whether there is something to draw, which runs that were made elsewhere need not have recorded."""

    def in_measure(self, measure: str) -> "Plot":
        """The plot with the name of what was measured in the place of the word accuracy."""

        def draw(theme: Theme) -> Figure:
            figure = self.draw(theme)
            for label in figure.findobj(Text):
                assert isinstance(label, Text)
                label.set_text(in_measure(label.get_text(), measure))
            return figure

        words = {name: in_measure(getattr(self, name), measure) for name in ("title", "caption", "description")}
        return replace(self, **words, draw=draw)


def drawn(plot: Plot) -> Figure:
    """The figure in the light theme, with its title."""
    with themed(LIGHT):
        figure = plot.draw(LIGHT)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)
        _add_title(figure, plot.title)
    return figure


def save_png(draw: Callable[[Theme], Figure], path: Path) -> Path:
    """Draw a figure in the light theme and save it; the folder is created where it does not exist."""
    with themed(LIGHT):
        content = _saved(draw(LIGHT), "png", PNG_DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, content)


def data_uri(figure: Figure, dpi: float) -> str:
    """A figure as a PNG image inside the address of an HTML image."""
    return f"data:image/png;base64,{base64.b64encode(_saved(figure, 'png', dpi)).decode()}"


def _saved(figure: Figure, form: str, dpi: float, metadata: dict[str, Any] | None = None) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=dpi, metadata=metadata)
    return content.getvalue()


def save_plot(plot: Plot, directory: Path) -> Html:
    """Save `plot` as PNG and PDF in `directory` and return it as an HTML figure with both themes inlined as SVG."""
    with themed(LIGHT):
        light = plot.draw(LIGHT)
        light.draw_without_rendering()  # lays it out, once for every format
        light.set_layout_engine(None)
        boxes = [axes.get_position() for axes in light.axes]
        drawings = [_inline_svg(light, plot, LIGHT)]
        _add_title(light, plot.title)
        # Without a date the same study gives the same file.
        for suffix, metadata in (("png", None), ("pdf", {"CreationDate": None})):
            write_atomically(directory / f"{plot.name}.{suffix}", _saved(light, suffix, PNG_DPI, metadata))
    with themed(DARK):
        dark = plot.draw(DARK)
        dark.set_layout_engine(None)
        for axes, box in zip(dark.axes, boxes, strict=True):
            axes.set_position(box)
        drawings.append(_inline_svg(dark, plot, DARK))
    links = " · ".join(
        f'<a href="{escape(f"{directory.name}/{plot.name}.{suffix}")}">{suffix.upper()}</a>'
        for suffix in ("png", "pdf")
    )
    return Html(
        f'<figure id="figure-{escape(plot.name)}">\n<h3>{prose(plot.title)}</h3>\n'
        # A region that scrolls must be reachable from the keyboard.
        f'<div class="drawing" tabindex="0" role="group" aria-label="{escape(plot.title)}">{"".join(drawings)}</div>\n'
        f"<figcaption>{prose(plot.caption)} <span class='files'>{links}</span></figcaption>\n</figure>"
    )


def _add_title(figure: Figure, title: str) -> None:
    """Make a figure that is laid out taller by a title, leaving everything else where it is."""
    width, height = figure.get_size_inches()
    size = FONT_SIZE + 4
    lines = textwrap.wrap(title, int(width * 72 / (0.62 * size)))
    taller = height + (len(lines) * 1.3 + 0.3) * size / 72
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0, box.y0 * height / taller, box.width, box.height * height / taller))
    figure.set_size_inches(width, taller)
    left, top = 0.14 / width, 1 - 0.14 / taller
    figure.text(left, top, "\n".join(lines), ha="left", va="top", fontsize=size, fontweight="bold")


def _inline_svg(figure: Figure, plot: Plot, theme: Theme) -> str:
    """The figure as an SVG element: scales with the page, carries its description, shares no id or rule with it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bd="([^"]*)"', _round_path, body)
    prefix = f"{plot.name}-{theme.name}-"
    referenced = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in referenced else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", body)
    body = re.sub(r">\s+<", "><", body)
    width, height = (72 * side for side in figure.get_size_inches())
    return (
        f'<svg class="only-{theme.name}" viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}pt" role="img" '
        f'aria-label="{escape(plot.description)}" stroke-linejoin="round" stroke-linecap="butt">{body}'
    )


def _round_path(match: re.Match[str]) -> str:
    rounded = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[1])
    return f'd="{" ".join(rounded.split())}"'
