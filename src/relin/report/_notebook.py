"""What runs, spectra and studies show of themselves in a notebook: figures in the reports' look, short tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from relin.report._figures import data_uri, drawn
from relin.report._html import Html, escape
from relin.report._page import Report
from relin.report._style import LIGHT, Theme, new_figure, style_of, themed
from relin.study._result import StudyResult
from relin.study._verdict import in_measure

_OWN = ("step", "feature_updates")
_FEW = 12
"""Records of a run up to which each is marked by a dot."""
_DRAWN = 1e12
"""Larger values are on their way to divergence, and no axis shows them beside others."""
STYLE = """<style>
.relin table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
.relin th, .relin td { padding: 0.25em 0.7em; text-align: left; border-bottom: 1px solid #8886; }
.relin td.num, .relin th.num { text-align: right; }
.relin td { white-space: nowrap; }
.relin .unit { display: block; font-weight: 400; opacity: 0.7; }
.relin tr.marked > * { background: #0072b222; }
.relin caption { caption-side: bottom; text-align: left; padding: 0.5em 0; opacity: 0.8; }
.relin .scroll { overflow-x: auto; }
.relin img { max-width: 100%; }
</style>"""

Columns = Mapping[str, np.ndarray]


def run_figure(runs: Sequence[Columns], names: Sequence[str] = (), title: str = "") -> Figure:
    """The records of one run, or of several on the same axes, against the step.

    **Arguments:**

    - `runs`: named columns of each, one of them `step`, or none of a run that has no record.
    - `names`: the columns that are drawn; all but step and feature updates, if none is named.
    - `title`: above the first panel.

    **Raises:** `ValueError` where there is no record, or no column of that name.
    """
    known = [name for name in next(filter(_length, runs), {}) if name not in _OWN]
    if not known:
        raise ValueError("There must be a record to draw, got none; train with observers or record_every=.")
    for name in names:
        if name not in known:
            raise ValueError(f"The records have the columns {', '.join(known)}, got {name!r}; name one of these.")
    with themed(LIGHT):
        return _run_figure(runs, list(names) or known, title, LIGHT)


def _length(run: Columns) -> int:
    return len(run.get("step", ()))


def _run_figure(runs: Sequence[Columns], names: Sequence[str], title: str, theme: Theme) -> Figure:
    panels = _panels(names, apart=len(runs) > 1)
    figure = new_figure(7.6, 1.0 + 2.6 * len(panels))
    rows = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
    rows[0].set_title(title, loc="left")
    for axes, (label, inside) in zip(rows, panels.items(), strict=True):
        factor = 100 if label.endswith("(%)") else 1
        axes.set_ylabel(label)
        for index, name in enumerate(inside):
            for place, run in enumerate(runs):
                if not _length(run):
                    continue
                colour = style_of(index, theme).colour
                if len(runs) > 1:
                    colour = theme.between(place / (len(runs) - 1))
                line = "o-" if len(run["step"]) <= _FEW else "-"
                text = _words(name) if len(runs) == 1 else f"run {place}"
                axes.plot(run["step"], factor * _drawn(run[name]), line, color=colour, label=text, markersize=5)
        _logarithmic_if_wide(axes, [_drawn(run[name]) for run in filter(_length, runs) for name in inside])
        if len(runs) == 1:
            _mark_updates(axes, runs[0], theme)
    rows[-1].set_xlabel("step")
    for axes, inside in zip(rows, panels.values(), strict=True):
        if len(inside) > 1 or (axes is rows[0] and 1 < len(runs) <= _FEW):
            axes.legend(loc="best")
    return figure


def _panels(names: Sequence[str], apart: bool) -> dict[str, list[str]]:
    """The columns of each panel by its label: losses together, accuracies together, all others apart."""
    panels = dict[str, list[str]]()
    for name in names:
        kind = name.rsplit("_", 1)[-1]
        label = {"loss": "loss", "accuracy": "accuracy (%)"}.get(kind, _words(name))
        if apart and kind in ("loss", "accuracy"):
            label = _words(name) + (" (%)" if kind == "accuracy" else "")
        panels.setdefault(label, []).append(name)
    return dict(sorted(panels.items(), key=lambda panel: panel[0] not in ("loss", "accuracy (%)")))


def _drawn(column: np.ndarray) -> np.ndarray:
    values = np.asarray(column, float)
    return np.where(np.abs(values) <= _DRAWN, values, np.nan)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _logarithmic_if_wide(axes: Axes, columns: Sequence[np.ndarray]) -> None:
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 30 * values.min():
        _logarithmic(axes)


def _logarithmic(axes: Axes) -> None:
    """With numbers as they are spoken: 1, 2, 5 and 10 of a decade, or only whole decades where there are several."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter() if high > 200 * low else plain)


def _mark_updates(axes: Axes, run: Columns, theme: Theme) -> None:
    """Ticks along the lower edge, at the first record after feature updates."""
    updates = np.asarray(run.get("feature_updates", np.zeros(len(run["step"]))))
    steps = np.asarray(run["step"])[1:][np.diff(updates) > 0]
    if 0 < steps.size < len(run["step"]) - 1:  # after every step but the first they would tell nothing
        along = axes.get_xaxis_transform()
        axes.plot(steps, np.full(steps.size, 0.015), "|", markersize=9, color=theme.accent, transform=along)


def spectrum_figure(eigenvalues: np.ndarray, bounds: np.ndarray) -> Figure:
    """Eigenvalues against their rank, with the bounds of each; the title says how many are not drawn, and why.

    Where one is positive, the axis is logarithmic, and those within the largest's rounding error of 0 or below are not
    drawn.
    """
    finite = np.isfinite(eigenvalues)
    largest = float(eigenvalues[finite].max(initial=0))
    part = float(np.finfo(eigenvalues.dtype).eps)
    shown = finite & (eigenvalues > part * largest) if largest > 0 else finite
    left_out = {f"at most {part:.1g} of the largest": finite & ~shown, "not finite": ~finite}
    reasons = ", ".join(f"{which.sum()} {why}" for why, which in left_out.items() if which.any())
    with themed(LIGHT):
        figure = new_figure(7.6, 4.2)
        axes = figure.subplots()
        values, above = np.asarray(eigenvalues[shown], float), np.asarray(bounds[shown], float)
        below = above if largest <= 0 else np.minimum(above, values * (1 - 1e-7))  # the bar's end stays above 0
        axes.errorbar(
            np.flatnonzero(shown) + 1, values, np.stack([below, above]), fmt="o-", color=LIGHT.ordinary, markersize=5
        )
        if largest > 0:
            _logarithmic(axes)
        if reasons:
            axes.set_title(f"{(~shown).sum()} of {shown.size} eigenvalues not drawn: {reasons}", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("rank")
        axes.set_ylabel("eigenvalue")
        return figure


def density_figure(grid: np.ndarray, density: np.ndarray, standard_error: np.ndarray, zero: float) -> Figure:
    """The density of eigenvalues over their logarithm, with one standard error on both sides."""
    with themed(LIGHT):
        figure = new_figure(7.6, 4.2)
        axes = figure.subplots()
        axes.plot(grid, density, color=LIGHT.ordinary)
        axes.fill_between(
            grid, density - standard_error, density + standard_error, color=LIGHT.ordinary, alpha=0.25, linewidth=0
        )
        axes.set_xlabel("log₁₀ of the eigenvalue")
        axes.set_ylabel("share per unit")
        axes.set_title(f"{100 * zero:.3g} % of the eigenvalues are at most the floor", loc="left")
        return figure


def image(figure: Figure, description: str) -> Html:
    """A figure as an HTML image that holds its own content."""
    return Html(f'<img alt="{escape(description)}" src="{data_uri(figure, 100)}">')


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A table of plain values; numbers stand to the right, rounded to four digits."""
    head = "".join(f"<th>{escape(_words(name))}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Html(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    if isinstance(value, float):
        value = "–" if math.isnan(value) else f"{value:.4g}"
    return f'<td class="num">{escape(value)}</td>'


def shown(*parts: str) -> str:
    """Parts of HTML as one thing that a notebook shows."""
    return f'<div class="relin">{STYLE}{"".join(parts)}</div>'


def run_html(sentence: str, runs: Sequence[Columns], heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """How a run ended, as a sentence; a table; the records as a figure, where there is more than one of them."""
    parts = [f"<p><strong>{escape(sentence)}</strong></p>", table(heads, rows)]
    if max(map(_length, runs), default=0) > 1:
        parts.append(image(run_figure(runs), "the records against the step"))
    return shown(*parts)


def figure_html(sentence: str, figure: Figure) -> str:
    """A sentence and a figure."""
    return shown(f"<p><strong>{escape(sentence)}</strong></p>", image(figure, sentence))


def answer_html(result: StudyResult, page: Report) -> str:
    """A study's verdict, its first figure, and its tables, folded."""
    plot = page.plots[0]
    tables = in_measure("".join(page.tables), escape(result.measure))
    return shown(
        f"<p><strong>{escape(result.verdict)}</strong></p>",
        image(drawn(plot), plot.description),
        f"<details><summary>The numbers</summary>{tables}</details>",
    )
