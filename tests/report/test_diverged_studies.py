"""Studies in which nothing trained are reported as well: every run of every schedule diverged."""

import math

import polars as pl
import pytest
from made_up_studies import SPEC, essential, stability, timing

from relin.report._records import StudyRecords
from relin.report._style import LIGHT, themed
from relin.studies.essential import page as _essential
from relin.studies.stability import page as _stability
from relin.studies.stability.data import descent
from relin.studies.timing import page as _timing
from relin.study._result import Interval


def nothing_trained(result, records):
    """The result and records of a study of which no run survived its first steps."""
    chance = Interval(mean=0.1, low=0.1, high=0.1)
    lost = {"test_accuracy": chance, "validation_accuracy": 0.1, "num_diverged": 3, "num_diverged_all_rates": 9}
    lost |= {"on_par": None, "network_test_accuracy": chance}
    outcomes = [o.model_copy(update=lost) for o in result.outcomes]
    change = {"outcomes": outcomes, "lazy_gap": Interval(mean=0.0, low=0.0, high=0.0)}
    change |= {"enough_updates": None, "latest_start": None} if hasattr(result, "enough_updates") else {}
    if hasattr(result, "limits"):
        none = {"largest_rate": None, "num_diverged": [3, 3, 3], "stable_rate": None}
        change["limits"] = [limit.model_copy(update=none) for limit in result.limits]
        change |= {"stable_rate_at_start": math.nan, "pareto": ["never"]}
    columns = ("test_accuracy", "validation_accuracy", "train_loss", "sharpness")
    records = records.with_columns(
        pl.lit("diverged").alias("result"),
        pl.lit(0).cast(pl.Int64).alias("diverged_at"),
        *(pl.lit(math.nan).alias(name) for name in columns),
    )
    return result.model_copy(update=change), records


@pytest.mark.parametrize("study", [essential, timing, stability])
def test_every_figure_is_drawn(study):
    result, records = nothing_trained(*study())
    data = StudyRecords(result, records)
    plots = {
        essential: lambda: _essential.plots(result, data),
        timing: lambda: _timing.plots(result, data),
        stability: lambda: _stability.plots(result, data, descent(SPEC, result)),
    }[study]()
    assert len(plots) >= 4
    for plot in plots:
        assert "nan" not in plot.title.lower()
        with themed(LIGHT):
            figure = plot.draw(LIGHT)
            figure.draw_without_rendering()
        for axes in figure.axes:
            assert all(map(math.isfinite, (*axes.get_xlim(), *axes.get_ylim())))


def test_titles_say_that_nothing_trained():
    result, records = nothing_trained(*stability())
    titles = [plot.title for plot in _stability.plots(result, StudyRecords(result, records), descent(SPEC, result))]
    assert titles[0] == "At no learning rate did every run of ordinary training train"
    assert titles[1] == "Ordinary training is nothing to compare with"
    assert titles[2] == "No part is more accurate than the same K alone"
    values = {tile.label: tile.value for tile in _stability.tiles(result, descent(SPEC, result))}
    assert (values["Largest rate of K = 1"], values["2/λ_max at the start"], values["Runs that did not train"]) == (
        "–",
        "–",
        "63",
    )
