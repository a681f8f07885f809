"""The look of every figure: two themes, type large enough for a talk, colours and marks.

The palette is Okabe and Ito's, which stays apart under every common colour blindness; the dark theme lightens it.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

FONT_SIZE = 14.0
PDF_FONT_TYPE = 42
"""TrueType: journals refuse type 3, which is quicker to write."""


@dataclass(frozen=True)
class Theme:
    """Colours of one variant of a figure.

    **Attributes:**

    - `name`: `light` or `dark`.
    - `background`, `ink`, `muted`, `grid`: of the page, its text, lesser text and lines.
    - `ordinary`, `middle`, `lazy`, `adaptive`: of K = 1, the periods between, K = ∞ and schedules without a period.
    - `accent`: what stands out.
    - `colormap`: of heat maps, a name of Matplotlib's.
    """

    name: str
    background: str
    ink: str
    muted: str
    grid: str
    ordinary: str
    middle: str
    lazy: str
    adaptive: str
    accent: str
    outline: str
    """Seen on every colour of the colour map."""
    colormap: str = "cividis"

    def between(self, fraction: float) -> str:
        """The colour at `fraction` of the way from ordinary (0) over middle (1/2) to lazy (1) training."""
        stops = np.array([to_rgb(c) for c in (self.ordinary, self.middle, self.lazy)])
        red, green, blue = (float(np.interp(fraction, [0.0, 0.5, 1.0], stops[:, i])) for i in range(3))
        return to_hex((red, green, blue))


LIGHT = Theme(
    name="light",
    background="#ffffff",
    ink="#1b1f24",
    muted="#59636e",
    grid="#e3e6ea",
    ordinary="#0072b2",
    middle="#8a6f8f",
    lazy="#d55e00",
    adaptive="#007f5f",
    accent="#a3457f",
    outline="#c2185b",
)
DARK = Theme(
    name="dark",
    background="#171b21",
    ink="#e8ebef",
    muted="#a3adb8",
    grid="#2c333c",
    ordinary="#56b4e9",
    middle="#c3a9c9",
    lazy="#ff9a4d",
    adaptive="#3fd0a4",
    accent="#f0a3d0",
    outline="#f0288c",
)


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw and save inside this context; matplotlib's settings are restored on leaving it."""
    settings: dict[Any, Any] = {
        "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same everywhere
        "font.size": FONT_SIZE,
        "axes.labelsize": FONT_SIZE,
        "axes.titlesize": FONT_SIZE,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 1.0,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "text.color": theme.ink,
        "text.parse_math": False,  # names come from the user: a dollar sign is a dollar sign
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": FONT_SIZE - 1,
        "ytick.labelsize": FONT_SIZE - 1,
        "legend.frameon": True,
        "legend.facecolor": theme.background,
        "legend.edgecolor": theme.background,
        "legend.framealpha": 0.9,
        "legend.fontsize": FONT_SIZE - 1,
        "lines.linewidth": 2.2,
        "lines.solid_capstyle": "round",
        "hatch.linewidth": 1.0,
        "svg.fonttype": "path",
        "svg.hashsalt": "relin",
        "pdf.fonttype": PDF_FONT_TYPE,
    }
    with matplotlib.rc_context(settings):
        yield


class _OwnFigure(Figure):
    """A figure that a notebook shows, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=100)
        return content.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches with its own Agg canvas, unknown to pyplot."""
    engine = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1, wspace=0.03, hspace=0.04)
    figure = _OwnFigure(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def halo(theme: Theme) -> list[withStroke]:
    """Path effects that keep text legible where it crosses a line."""
    return [withStroke(linewidth=4, foreground=theme.background)]


_LIGHT = ("#007f5f", "#a3457f", "#9a6700", "#4b3fb5", "#7a4a21", "#4f7d1e", "#c2185b", "#00838f", "#5c6b7a")
_DARK = ("#3fd0a4", "#f0a3d0", "#e3b341", "#a9a0ff", "#d2a679", "#a5d66f", "#ff7eb0", "#4dd0e1", "#b4c0cc")
_MARKERS = ("D", "s", "^", "v", "p", "h", "d", "<", ">")  # wide enough inside to be seen empty


@dataclass(frozen=True)
class Style:
    """How a thing is drawn in one theme."""

    colour: str
    marker: str


def style_of(index: int, theme: Theme) -> Style:
    """The style of the thing with this index; colour and mark repeat after nine, and tell them apart together."""
    colours = _DARK if theme.name == "dark" else _LIGHT
    return Style(colours[index % len(colours)], _MARKERS[index % len(_MARKERS)])
