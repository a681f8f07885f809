"""The figures of docs/windows.md, from the records."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tools.windows.records import NAMES, PERIOD, Records
from tools.windows.theory import LIMIT, growth

from relin.report._axes import log_ticks
from relin.report._figures import save_png
from relin.report._style import FONT_SIZE, Theme, new_figure, style_of

_MOST = 1e4
"""Losses above it are not shown: they go on to overflow."""
LOSSES = {"SquaredError": "squared error", "CrossEntropy": "cross-entropy"}
WAYS = {
    "momentum": "momentum 0.9, rate 0.1",
    "clip": "the same, gradient clipped at 0.3",
    "cap": "the same, rate capped at ¼ of the limit",
    "adam": "Adam, rate {rate:g}",
    "gauss-newton": "one damped Gauss–Newton step in place of a window",
}


def draw(records: Records, folder: Path) -> None:
    """All figures as PNG."""
    for figure in (detail, frozen, sharpness, exact, changes):
        save_png(partial(figure, records), folder / f"{figure.__name__}.png")


def _below(figure: Figure, lines: Sequence[Line2D], columns: int) -> None:
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)


def _line(colour: str, label: str, style: str = "-", **options: object) -> Line2D:
    return Line2D([], [], color=colour, linestyle=style, label=label, **options)  # pyright: ignore[reportArgumentType]


def _loss_axis(axes: Axes, low: float, high: float = _MOST) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis, (1.0,) if high / low > 300 else (1.0, 2.0, 5.0))


def detail(records: Records, theme: Theme) -> Figure:
    """The CNN's first windows at the largest rate, step by step, over λ_max at their anchors."""
    figure = new_figure(10.5, 7.4)
    losses, curvature = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    own, ordinary = (records.run("cnn", "detailed", 0.1, period) for period in (PERIOD, 1))
    last = 5 * PERIOD
    for anchor in range(0, last, PERIOD):
        inside = own.filter(pl.col("step").is_between(anchor, anchor + PERIOD))
        step, linear = inside["step"].to_numpy(), inside["probe_loss"].to_numpy().copy()
        linear[0] = inside["network_probe_loss"][0]
        losses.plot(step, linear, color=theme.lazy)
        losses.plot(step[:1], linear[:1], "o", color=theme.lazy, markersize=7)
        for axes in (losses, curvature):
            axes.axvline(anchor, color=theme.grid, linewidth=1, zorder=0)
    shown = own.filter(pl.col("step") <= last)
    losses.plot(shown["step"], shown["network_probe_loss"], color=theme.accent, linewidth=1.6)
    plain = ordinary.filter(pl.col("step") <= last)
    losses.plot(plain["step"], plain["network_probe_loss"], color=theme.ordinary)
    _loss_axis(losses, 0.7, 3000)
    losses.set_ylabel("loss on 256 examples")
    for run, colour, marker in ((shown, theme.lazy, "o"), (plain, theme.ordinary, "s")):
        found = run.filter(pl.col("excess_now").is_not_null())
        curvature.plot(found["step"], found["sharpness"], marker, linestyle=":", color=colour, markersize=7)
    curvature.axhline(LIMIT / 0.1, color=theme.ink, linewidth=1.6, linestyle=(0, (5, 2)))
    curvature.set_yscale("log")
    log_ticks(curvature.yaxis, (1.0,))
    curvature.set_ylabel("λ_max at θ_t")
    curvature.set_xlabel("step")
    curvature.set_xlim(-1, last + 1)
    lines = [
        _line(theme.lazy, "linear model, K = 16; dots: anchors", marker="o"),
        _line(theme.accent, "network at θ_t, K = 16"),
        _line(theme.ordinary, "ordinary training"),
        _line(theme.ink, "2 (1 + β)/η", (0, (5, 2))),
    ]
    _below(figure, lines, 2)
    return figure


def frozen(records: Records, theme: Theme) -> Figure:
    """One window of 64 steps after ordinary training of the CNN, from three of its steps."""
    starts = (16, 64, 192)
    figure = new_figure(13.5, 4.9)
    for axes, first in zip(figure.subplots(1, 3, sharey=True), starts, strict=True):
        own, ordinary = records.frozen("cnn", 0.1, first), records.run("cnn", "detailed", period=1)
        plain = ordinary.filter(pl.col("step").is_between(first, first + 64))
        axes.plot(own["step"], own["probe_loss"], color=theme.lazy)
        axes.plot(own["step"], own["network_probe_loss"], color=theme.accent)
        axes.plot(plain["step"], plain["network_probe_loss"], color=theme.ordinary)
        axes.set_title(f"frozen at step {first}", fontsize=FONT_SIZE - 1)
        axes.set_xlabel("step")
        axes.set_xticks([first + 16 * i for i in range(5)])
        _loss_axis(axes, 0.5, 50)
    figure.axes[0].set_ylabel("loss on 256 examples")
    lines = [
        _line(theme.lazy, "linear model at the frozen anchor"),
        _line(theme.accent, "network at θ_t"),
        _line(theme.ordinary, "ordinary training goes on"),
    ]
    _below(figure, lines, 3)
    return figure


def sharpness(records: Records, theme: Theme) -> Figure:
    """For each network η λ_max over the limit along training; and, against it, what windows do to both losses."""
    figure = new_figure(13.5, 8.4)
    top, bottom = figure.subplots(2, len(records.with_excess), sharey="row", squeeze=False)
    rates = sorted(records.table.filter(way="momentum")["rate"].unique(), reverse=True)
    for axes, network in zip(top, records.with_excess, strict=True):
        for index, rate in enumerate(rates):
            style = style_of(index, theme)
            for period, line in ((PERIOD, "-"), (1, ":")):
                own = records.run(network, rate=rate, period=period).drop_nulls("excess_now")
                marker = style.marker if period > 1 else ""
                options = {"color": style.colour, "marker": marker, "markersize": 5, "linewidth": 1.8}
                axes.plot(own["step"] * rate, own["excess_now"], line, **options)
        axes.axhline(1, color=theme.ink, linewidth=1.6, linestyle=(0, (5, 2)))
        axes.set_title(NAMES[network], fontsize=FONT_SIZE - 1)
        axes.set_xlabel("rate × steps")
        axes.set_yscale("log")
        axes.set_ylim(0.01, 30)
        log_ticks(axes.yaxis, (1.0,))
    for axes, network in zip(bottom, records.with_excess, strict=True):
        own = records.windows(network=network, way="momentum").drop_nulls("anchor_excess")
        for column, colour, marker in (("network_end", theme.accent, "s"), ("linear", theme.lazy, "o")):
            risen = np.clip(own[column] / own["start"], 0.1, 900)
            options = {"color": colour, "markersize": 5, "markerfacecolor": "none" if marker == "s" else colour}
            axes.plot(np.clip(own["anchor_excess"], 0.01, 28), risen, marker, **options)
        axes.axhline(1, color=theme.muted, linewidth=1)
        axes.axvline(1, color=theme.ink, linewidth=1.6, linestyle=(0, (5, 2)))
        axes.set_xscale("log")
        axes.set_xlim(0.01, 30)
        log_ticks(axes.xaxis, (1.0,))
        axes.set_xlabel("excess at the anchor")
        axes.set_yscale("log")
        axes.set_ylim(0.3, 1000)
        log_ticks(axes.yaxis, (1.0,))
    top[0].set_ylabel("excess, η λ_max / 2 (1 + β)")
    bottom[0].set_ylabel("loss, end over start of a window")
    lines = [
        _line(style_of(i, theme).colour, f"rate {rate:g}", marker=style_of(i, theme).marker)
        for i, rate in enumerate(rates)
    ]
    lines += [_line(theme.muted, "K = 16"), _line(theme.muted, "ordinary training", ":")]
    lines += [_line(theme.ink, "the limit", (0, (5, 2))), _line(theme.lazy, "linear model", "", marker="o")]
    _below(figure, [*lines, _line(theme.accent, "network", "", marker="s", markerfacecolor="none")], 4)
    return figure


def exact(records: Records, theme: Theme) -> Figure:
    """Full-batch descent at one anchor of the CNN, with either loss."""
    figure = new_figure(11.5, 5.0)
    panels = figure.subplots(1, 2)
    excesses = sorted(records.table.filter(way="exact")["excess"].unique())
    for axes, (loss, name) in zip(panels, LOSSES.items(), strict=True):
        for index, excess in enumerate(excesses):
            own, style = records.exact("cnn", loss, excess), style_of(index, theme)
            axes.plot(own["step"], own["probe_loss"], color=style.colour)
            if loss == "SquaredError" and excess > 1:
                ends = own.filter(pl.col("probe_loss") < 1e8)
                step, last = ends["step"].to_numpy(), float(ends["probe_loss"][-1])
                theory = last * growth(excess) ** (2.0 * (step - step[-1]))
                axes.plot(step, theory, color=theme.ink, linewidth=1.4, linestyle=(0, (1, 1.5)))
        axes.set_title(name, fontsize=FONT_SIZE - 1)
        axes.set_xlabel("steps at one anchor")
    _loss_axis(panels[0], 0.3, 1e8)
    _loss_axis(panels[1], 0.8, 5)
    panels[0].set_ylabel("loss of the linear model")
    lines = [_line(style_of(i, theme).colour, f"{excess:g} × the limit") for i, excess in enumerate(excesses)]
    _below(figure, [*lines, _line(theme.ink, "theory's slope", (0, (1, 1.5)))], 5)
    return figure


def changes(records: Records, theme: Theme) -> Figure:
    """The network's loss at the end of every window, a panel for each network."""
    figure = new_figure(10.5, 6.4)
    panels = figure.subplots(1, len(records.with_changes), sharey=True, squeeze=False)[0]
    shown = dict[str, Line2D]()
    for axes, network in zip(panels, records.with_changes, strict=True):
        own = records.run(network, period=1)
        steps = records.table.filter(network=network, way="clip")["step"].max()
        axes.plot(own["step"], own["network_probe_loss"], color=theme.ordinary)
        for index, (way, rate) in enumerate(_ways(records)):
            run = records.table.filter(network=network, way=way, rate=rate, period=PERIOD)
            run = run.filter(pl.col("network_probe_loss").is_finite())
            style, label = style_of(index, theme), WAYS[way].format(rate=rate)
            options = {"color": style.colour, "marker": style.marker, "markersize": 5}
            axes.plot(run["step"], run["network_probe_loss"], **options)
            shown[label] = _line(style.colour, label, marker=style.marker)
        axes.set_title(NAMES[network], fontsize=FONT_SIZE - 1)
        axes.set_xlabel("step")
        axes.set_xlim(0, steps)
        _loss_axis(axes, 0.3, 30)
    panels[0].set_ylabel("loss of the network")
    _below(figure, [_line(theme.ordinary, "ordinary training, rate 0.1"), *shown.values()], 2)
    return figure


def _ways(records: Records) -> list[tuple[str, float]]:
    found = set(records.table.filter(pl.col("way").is_in(list(WAYS)))[["way", "rate"]].iter_rows())
    kept = [each for each in found if each[0] != "momentum" or each[1] == 0.1]
    return sorted(kept, key=lambda each: (list(WAYS).index(each[0]), -each[1]))
