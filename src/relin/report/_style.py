"""The look of every figure: two themes, type large enough for a talk, and helpers that place labels.

The palette is Okabe and Ito's, which stays apart under every common colour blindness; the dark theme lightens it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from scipy.optimize import isotonic_regression

FONT_SIZE = 14.0
PDF_FONT_TYPE = 42
"""TrueType: journals refuse type 3, which is quicker to write."""


@dataclass(frozen=True)
class Theme:
    """Colours of one variant of a figure."""

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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches with its own Agg canvas, unknown to pyplot."""
    engine = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def halo(theme: Theme) -> list[withStroke]:
    """Path effects that keep text legible where it crosses a line."""
    return [withStroke(linewidth=4, foreground=theme.background)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The heights in [0, 1] nearest to `positions` in least squares, in the same order and at least `gap` apart.

    Where so many do not fit, they keep their distance and pass 1.
    """
    values = np.asarray(positions, dtype=float)
    if values.size == 0:
        return []
    order = np.argsort(values, kind="stable")
    shift = gap * np.arange(values.size)
    placed = np.empty_like(values)
    # Without the shift the constraint is order alone; clipping an isotonic fit gives the fit within bounds.
    fit = isotonic_regression(values[order] - shift).x
    placed[order] = np.clip(fit, 0.0, max(0.0, 1.0 - shift[-1])) + shift
    return placed.tolist()


def axes_fraction(axes: Axes, y: float) -> float:
    """The height of data value `y` as a fraction of the axes, whatever the scale."""
    x = axes.get_xlim()[1]
    return float((axes.transScale + axes.transLimits).transform((x, y))[1])


def label_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) labels to the right of the axes, next to their values but never on each other."""
    figure = axes.get_figure(root=True)
    if figure is None or not labels:
        return
    # The height of an axes within constrained layout is not known before drawing; 0.72 of its share is prudent.
    specification = axes.get_subplotspec()
    share = 1.0
    if specification is not None:
        share = (specification.rowspan.stop - specification.rowspan.start) / specification.get_gridspec().nrows
    points = 72 * figure.get_size_inches()[1] * share * 0.72
    lines = max(text.count("\n") + 1 for _, text, _ in labels)
    heights = spread([axes_fraction(axes, y) for y, _, _ in labels], 1.2 * FONT_SIZE * lines / points)
    for (_, text, colour), height in zip(labels, heights, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            ha="left",
            fontsize=FONT_SIZE - 1,
            linespacing=1.05,
            annotation_clip=False,
        )


def draw_break(axes: Axes, x: float, theme: Theme) -> None:
    """Two strokes through the horizontal axis, with nothing between them."""
    left, right = axes.get_xlim()
    half = 0.005 * (right - left)
    axes.plot(
        [x - half, x + half],
        [0, 0],
        transform=axes.get_xaxis_transform(),
        color=theme.background,
        linewidth=4,
        solid_capstyle="butt",
        clip_on=False,
        zorder=5,
    )
    axes.annotate(
        "//",
        (x, 0),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="center",
        color=theme.muted,
        fontsize=FONT_SIZE,
        annotation_clip=False,
        zorder=6,
    )
