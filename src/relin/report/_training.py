"""The learning curve of a single run: accuracy and loss against step, with the feature updates marked."""

import math
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from relin.report._figures import save_png
from relin.report._style import Theme, new_figure

_LOSSES = ("train_loss", "validation_loss", "test_loss")
_DRAWN = 1e12  # losses above it are on their way to divergence, and no axis shows them beside others
_MOST_MARKS = 200
"""More feature updates than this would be a bar, not marks: only their number is given."""


def write_training_curve(records: pl.DataFrame, folder: Path) -> Path:
    """Draw the records of one run as `learning-curve.png` in `folder`, and return its path.

    **Arguments:**

    - `records`: one row per recorded step of one run, in any order.
    - `folder`: created where it does not exist.
    """
    records = records.sort("step")
    return save_png(lambda theme: _draw(records, theme), folder / "learning-curve.png")


def _draw(records: pl.DataFrame, theme: Theme) -> Figure:
    last = records.row(-1, named=True)
    figure = new_figure(7.6, 6.4)
    classes = "test_accuracy" in records.columns
    panels = list(figure.subplots(1 + classes, sharex=True, squeeze=False)[:, 0])
    panels[0].set_title(_title(last), loc="left")
    if classes:
        _draw_accuracy(panels[0], records, theme)
    loss = panels[-1]
    loss.set_ylabel("loss")
    loss.set_xlabel("step")
    for name, label, colour, style in (
        ("train_loss", "training batches", theme.middle, "-"),
        ("test_loss", "test", theme.ordinary, "-"),
        ("validation_loss", "validation", theme.adaptive, "--"),
    ):
        values = [value if value is not None and value <= _DRAWN else math.nan for value in records[name]]
        loss.plot(records["step"], values, style, color=colour, label=label)
    _scale(loss, records)
    for axes in panels:
        _mark_updates(axes, records, theme)
        if last["diverged_at"] is not None:
            axes.axvline(last["diverged_at"], color=theme.outline, label=f"diverged at step {last['diverged_at']}")
        axes.legend(loc="best")
    return figure


def _draw_accuracy(axes: Axes, records: pl.DataFrame, theme: Theme) -> None:
    axes.set_ylabel("accuracy (%)")
    for name, label, colour, style in (
        ("test_accuracy", "test", theme.ordinary, "-"),
        ("validation_accuracy", "validation", theme.adaptive, "--"),
        ("network_test_accuracy", "test, network at θ_t", theme.lazy, ":"),
    ):
        axes.plot(records["step"], 100 * records[name], style, color=colour, label=label)


def _title(last: dict[str, Any]) -> str:
    updates, step = last["feature_updates"], last["step"]
    counted = f"{updates:,} feature update{'' if updates == 1 else 's'}"
    name = f"{last['model']} on {last['data']}, {last['schedule']}, rate {last['learning_rate']:g}"
    return f"{name}\n{counted} in {step:,} steps"


def _scale(axes: Axes, records: pl.DataFrame) -> None:
    """A logarithmic axis where the losses span decades."""
    values = [value for name in _LOSSES for value in records[name] if value is not None and 0 < value <= _DRAWN]
    if values and max(values) > 30 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_updates(axes: Axes, records: pl.DataFrame, theme: Theme) -> None:
    """Ticks along the lower edge, exactly where a period tells the steps, else at the first record after them."""
    last = records.row(-1, named=True)
    if last["period"] is None:
        increased = records.filter(pl.col("feature_updates").diff() > 0)
        steps, label = increased["step"].to_list(), "feature updates before this record"
    else:
        count = last["feature_updates"]
        steps = [int(last["period"]) * (i + 1) for i in range(count)] if 0 < count <= _MOST_MARKS else []
        label = "feature updates"
    if steps:
        axes.plot(
            steps,
            [0.015] * len(steps),
            linestyle="none",
            marker="|",
            markersize=9,
            color=theme.accent,
            transform=axes.get_xaxis_transform(),
            label=label,
        )
