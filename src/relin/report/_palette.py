"""Colours and marks of things that stand side by side, apart from those of ordinary and lazy training."""

from dataclasses import dataclass

from relin.report._style import Theme

_LIGHT = ("#007f5f", "#a3457f", "#9a6700", "#4b3fb5", "#7a4a21", "#4f7d1e", "#c2185b", "#00838f", "#5c6b7a")
_DARK = ("#3fd0a4", "#f0a3d0", "#e3b341", "#a9a0ff", "#d2a679", "#a5d66f", "#ff7eb0", "#4dd0e1", "#b4c0cc")
_MARKERS = ("D", "s", "^", "v", "p", "h", "d", "<", ">")  # wide enough inside to be seen empty


@dataclass(frozen=True)
class Look:
    """How a thing is drawn in one theme."""

    colour: str
    marker: str


def look(index: int, theme: Theme) -> Look:
    """The look of the thing with this index; colour and mark repeat after nine, and tell them apart together."""
    colours = _DARK if theme.name == "dark" else _LIGHT
    return Look(colours[index % len(colours)], _MARKERS[index % len(_MARKERS)])
