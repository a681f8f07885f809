"""The drawings of the damping study: the ridge of agreement, and what either damping does to the network."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from relin.report import _text as text
from relin.report._accuracy import SMALL, legend_below, possible
from relin.report._axes import cell_edges, log_ticks, number_axis
from relin.report._curves import draw_intervals
from relin.report._style import Theme, halo, new_figure
from relin.studies.damping.result import DampingResult, Ridge


def ridge_map(result: DampingResult, theme: Theme) -> Figure:
    """Distance of every period's iterate to every damping's, with the line λ = 1/(ηK) and the nearest damping."""
    ridges = result.ridges
    figure = new_figure(1.5 + 7.0 * len(ridges), 6.6)
    panels = np.atleast_1d(figure.subplots(1, len(ridges), sharey=True))
    known = [d for ridge in ridges for row in ridge.distances for d in row if d is not None and d > 0]
    low, high = (min(known), max(known)) if known else (0.01, 1.0)
    scale = LogNorm(low, max(high, 1.001 * low))
    mesh = None
    for axes, ridge in zip(panels, ridges, strict=True):
        values = np.array([[np.nan if d is None else d for d in row] for row in ridge.distances])
        mesh = axes.pcolormesh(
            cell_edges(result.kappas),
            cell_edges(result.periods),
            values,
            norm=scale,
            cmap=f"{theme.colormap}_r",
        )
        axes.grid(visible=False)
        ends = np.array([min(result.kappas), max(result.kappas)])
        line = np.clip(ends, min(result.periods) / 2, max(result.periods) * 2)
        axes.plot(line, line, color=theme.outline, linewidth=2.4, linestyle=(0, (5, 3)), zorder=3)
        _draw_nearest(axes, ridge, result, theme)
        axes.set_yscale("log", base=2)
        number_axis(axes, result.kappas, "κ, where Gauss–Newton is damped by λ = 1/(ηκ)", most=7)
        axes.set_yticks(result.periods, [text.short(k) for k in result.periods])
        axes.tick_params(axis="y", which="minor", length=0)
        axes.minorticks_off()
        axes.set_title(after(ridge))
    panels[0].set_ylabel("period K")
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=list(panels), pad=0.015)
        bar.set_label("distance, part of the movement")
        log_ticks(bar.ax.yaxis)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    handles = [
        Line2D([], [], color=theme.outline, linestyle=(0, (5, 3)), linewidth=2.4, label="λ = 1/(ηK)"),
        Line2D([], [], color=theme.outline, marker="o", linestyle="", markersize=8, label="nearest damping"),
    ]
    legend_below(figure, handles, theme)
    return figure


def _draw_nearest(axes, ridge: Ridge, result: DampingResult, theme: Theme) -> None:
    for period, nearest in zip(result.periods, ridge.nearest, strict=True):
        if nearest is not None:
            low, mean, high = (period * 2.0**value for value in (nearest.low, nearest.mean, nearest.high))
            axes.plot([low, high], [period, period], color=theme.outline, linewidth=2.4, zorder=4)
            axes.plot([mean], [period], "o", color=theme.outline, markersize=8, markeredgecolor="#ffffff", zorder=5)


def against_damping(result: DampingResult, theme: Theme) -> Figure:
    """Test accuracy, accuracy at equal loss, training loss and kernel distance against K and κ."""
    figure = new_figure(15.5, 9.6)
    panels, accuracies = figure.subplots(2, 2).ravel(), possible(result.measure)
    columns = (
        ("test accuracy at the end, %", "test_accuracy", 100.0, accuracies),
        (f"test accuracy at {100 * result.reached_loss:g} % of the first loss, %", "reached", 100.0, accuracies),
        ("log₁₀ of the training loss at the end", "train_loss", 1.0, (-np.inf, np.inf)),
        ("kernel distance from the start", "kernel_distance", 1.0, (0.0, 2.0)),
    )
    styles = (("gauss-newton", theme.adaptive, "D", "Gauss–Newton, λ = 1/(ηκ)"),
             ("every", theme.ordinary, "o", "K steps at an anchor"))  # fmt: skip
    for axes, (title, name, scale, within) in zip(panels, columns, strict=True):
        axes.set_title(title)
        for way, colour, marker, label in styles:
            points = [(run.number, getattr(run, name)) for run in result.of(way)]
            draw_intervals(axes, points, colour, marker, label, theme, scale, within)
        number_axis(axes, result.periods, "less damping  →      K, κ", most=6)
    best = result.gauss_newton
    axes = panels[0]
    accuracy = 100 * result.run("gauss-newton", best.best).test_accuracy.mean
    axes.annotate(
        f"best on validation\nκ = {text.short(best.best)}",
        (best.best, accuracy),
        xytext=(26, -58),
        textcoords="offset points",
        ha="left",
        fontsize=SMALL,
        color=theme.adaptive,
        path_effects=halo(theme),
        arrowprops={"arrowstyle": "-", "color": theme.adaptive, "linewidth": 1.4},
    )
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=7, label=label) for _, colour, marker, label in styles
    ]
    legend_below(figure, handles, theme)
    return figure


def after(ridge: Ridge) -> str:
    return f"after {ridge.after} outer step{'' if ridge.after == 1 else 's'}"


def ridge_in_words(ridge: Ridge) -> str:
    """The ridge in few words, for titles."""
    if ridge.slope is None or ridge.factor is None:
        return "too few runs to say"
    return f"κ = {text.significant(2**ridge.factor.mean)} K"
