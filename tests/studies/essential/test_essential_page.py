"""The report of the essential study: the page as a reader gets it, and what its figures draw."""

import math
import re

import numpy as np
import polars as pl
import pytest
from made_up_studies import ENVIRONMENT, NUM_STEPS, OFFSETS, SPEC, essential
from pages import check_csv, check_page, is_filled, plain, points, texts

from relin.report import write_report
from relin.report._accuracy import floor
from relin.report._curves import Line, learning_curves
from relin.report._rate_map import rate_map
from relin.report._records import StudyRecords
from relin.report._style import DARK, LIGHT, themed
from relin.studies.essential.figures import accuracy_against_number, essential_curves, selection
from relin.studies.essential.page import plots
from relin.study._result import Interval

FIGURES = ("frozen-after", "learnt-from", "learning-curves", "learning-rates")


@pytest.fixture(scope="module")
def study():
    result, records = essential()
    return result, records, StudyRecords(result, records)


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    result, records, _ = study
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("essential") / "report")


def test_page_and_files(page, study, parse):
    parsed = parse(page.read_text(encoding="utf-8"))
    check_page(page, parsed, study[0], FIGURES)
    check_csv(page.parent / "table.csv", study[0])


def test_page_holds_the_answers(page, study, parse):
    html = page.read_text(encoding="utf-8")
    text = plain(html)
    assert "Is feature learning essential, and when?" in text
    assert '<dt>Enough updates at the start</dt><dd class="value">16</dd>' in text
    assert '<dt>Latest start of feature learning</dt><dd class="value">64</dd>' in text
    assert "Features may be frozen after 16 updates at the start" in text
    assert "Features may start to move as late as step 64 of 400" in text
    assert "points, 95 % interval 7.0 to 9.0" in text
    rows = {row[0]: row[1:] for row in parse(html).rows[1:]}
    assert list(rows) == [outcome.label for outcome in study[0].outcomes]
    assert rows["frozen after 16"][:5] == ["✓", "16", "0.3", "94.70 ± 0.90", "−0.30 [−1.50, +0.90]"]
    marked = re.findall(r'<tr class="marked"><th scope="row">(.*?)</th>', html)
    assert marked == ["from step 64", "frozen after 16"]


def test_titles_without_an_answer(study):
    result, _, data = study
    nothing = result.model_copy(update={"enough_updates": None, "latest_start": None})
    titles = {plot.name: plot.title for plot in plots(nothing, data)}
    assert (
        titles["frozen-after"] == "Features frozen after 64 updates are not shown to be on par with ordinary training"
    )
    assert titles["learnt-from"].startswith("Features that start to move at step 64 are not shown to be on par")
    only_late = result.model_copy(update={"outcomes": [o for o in result.outcomes if "until" not in o.schedule]})
    assert [plot.name for plot in plots(only_late, data)] == list(FIGURES[1:])


def test_accuracy_stands_at_the_logarithm_of_the_number(study):
    result, _, data = study
    with themed(LIGHT):
        (axes,) = accuracy_against_number(result, data, "until", LIGHT).axes
    drawn = points(axes)
    expected = {2.0: 89.0, 4.0: 94.7, 6.0: 94.9}  # log2 of 4, 16, 64
    ends = {min(x for x, _ in drawn): 87.0, max(x for x, _ in drawn): 95.0}  # lazy and ordinary training
    assert dict(drawn.keys()) == pytest.approx(expected | ends)
    assert [is_filled(drawn[x, round(y, 6)]) for x, y in expected.items()] == [False, True, True]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["none\n(lazy)", "4", "16", "64", "all\n(ordinary)"]
    seeds = next(line for line in axes.lines if line.get_marker() == "." and abs(line.get_xdata().mean() - 4) < 0.2)
    np.testing.assert_allclose(seeds.get_ydata(), 100 * (0.947 + OFFSETS))
    dashed = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == pytest.approx([94.0])  # the margin is one point
    low, high = axes.get_ylim()
    assert low < 87.0 - 0.9
    assert high > 95.0 + 0.9


def test_late_starts_lie_between_ordinary_and_lazy_training(study):
    result, _, data = study
    with themed(DARK):
        (axes,) = accuracy_against_number(result, data, "after", DARK).axes
    drawn = points(axes)
    left, right = min(drawn), max(drawn)
    assert (left[1], right[1]) == pytest.approx((95.0, 87.0))
    assert {(math.log2(64), 94.8), (math.log2(256), 90.0)} <= set(drawn)


def test_what_lies_far_below_is_pointed_at(study):
    result, records, _ = study
    worse = [
        o.model_copy(update={"test_accuracy": o.test_accuracy.model_copy(update={"mean": 0.31})})
        if o.schedule == "until-4"
        else o
        for o in result.outcomes
    ]
    result = result.model_copy(update={"outcomes": worse})
    with themed(LIGHT):
        (axes,) = accuracy_against_number(result, StudyRecords(result, records), "until", LIGHT).axes
    assert "31.0" in texts(axes)
    assert not any(y < 86 for _, y in points(axes))
    assert axes.get_ylim()[0] > 80


def test_a_mean_is_in_view_where_its_interval_is_not(study):
    result, records, _ = study
    spread = result.outcome("until-16")
    mean = floor(result) / 100 + 0.005  # next to what is pointed at, with an interval far beyond and no seed near it
    wide = spread.model_copy(update={"test_accuracy": Interval(mean=mean, low=0.1, high=1.0)})
    outcomes = [wide if o.schedule == spread.schedule else o for o in result.outcomes]
    changed = result.model_copy(update={"outcomes": outcomes})
    with themed(LIGHT):
        (axes,) = accuracy_against_number(changed, StudyRecords(changed, records), "until", LIGHT).axes
    assert any(y == pytest.approx(100 * mean) for _, y in points(axes))
    assert axes.get_ylim()[0] < 100 * mean


def test_curves_are_those_of_the_records(study):
    result, _, data = study
    chosen = selection(result)
    assert [o.schedule for o in chosen] == [
        "every-1",
        "until-4",
        "until-16",
        "until-64",
        "after-64",
        "after-256",
        "never",
    ]
    with themed(LIGHT):
        accuracy, loss = essential_curves(result, data, LIGHT).axes
    assert len(accuracy.lines) == len(chosen)
    for line, outcome in zip(accuracy.lines, chosen, strict=True):
        assert line.get_ydata()[-1] == pytest.approx(100 * outcome.test_accuracy.mean)
        assert line.get_linestyle() == ("--" if outcome.schedule.startswith("after") else "-")
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1, 0.5, 0.25, 0.125])
    assert loss.get_yscale() == "log"
    assert accuracy.get_xlim() == (0, NUM_STEPS)


def test_curve_counts_a_diverged_run_at_chance(study):
    result, records, _ = study
    dead = (pl.col("schedule") == "until-16") & (pl.col("seed") == 0)
    records = records.with_columns(
        pl.when(dead).then(pl.lit("diverged")).otherwise("result").alias("result"),
        pl.when(dead).then(200).otherwise("diverged_at").alias("diverged_at"),
    )
    data, outcome = StudyRecords(result, records), result.outcome("until-16")
    curve = data.curve(outcome, "test_accuracy")
    assert curve.mean[-1] == pytest.approx((0.1 + 2 * 0.947 + 0.004) / 3)
    assert curve.mean[1] == pytest.approx(0.1 + 0.25 * (0.947 - 0.1))  # at step 100 it had not diverged
    others = [0.1 + 0.5 * (0.847 + offset) for offset in (0.0, 0.004)]
    assert curve.mean[2] == pytest.approx((0.1 + sum(others)) / 3)  # at step 200 it had
    seeds, trained = data.seeds(outcome)
    assert trained.tolist() == [False, True, True]
    assert seeds[0] == 0.1
    with themed(LIGHT):
        (axes,) = accuracy_against_number(result, data, "until", LIGHT).axes
        curves = learning_curves(result, data, [Line(outcome, "sixteen", "#000000")], LIGHT)
    assert "×1/3" in texts(axes)
    np.testing.assert_allclose(curves.axes[0].lines[0].get_ydata(), 100 * curve.mean)


def test_rate_map_outlines_the_chosen_rate(study):
    result, _, data = study
    with themed(LIGHT):
        (axes,) = rate_map(result, data, LIGHT).axes
    outlined = [patch for patch in axes.patches if not patch.get_fill()]
    columns = [round(patch.get_x() + patch.get_width() / 2) for patch in outlined]
    assert columns == [{0.03: 0, 0.1: 1, 0.3: 2}[o.learning_rate] for o in result.outcomes]
    cells = texts(axes)
    assert len(cells) == 3 * len(result.outcomes)
    assert cells[:3] == ["93.8", "94.8", "93.8"]  # validation accuracy is 0.2 points lower, other rates one point


@pytest.mark.parametrize(
    ("change", "keep", "message"),
    [
        ({"outcomes": []}, lambda r: r, "at least one schedule in the result of study 'essential', got no outcome"),
        ({}, lambda r: r.clear(), "Expected the records of study 'essential', got no row"),
        ({}, lambda r: r.drop("feature_updates"), "got none named feature_updates"),
        ({}, lambda r: r.filter(pl.col("schedule") != "never"), "records of 'never' at learning rate 0.1, got none"),
        (
            {},
            lambda r: r.with_columns(data=pl.when(pl.col("seed") == 0).then(pl.lit("mnist1d")).otherwise("data")),
            "one model on one data set, got",
        ),
    ],
)
def test_refusals(study, tmp_path, change, keep, message):
    result, records, _ = study
    with pytest.raises(ValueError, match=re.escape(message)):
        write_report(result.model_copy(update=change), keep(records), SPEC, ENVIRONMENT, tmp_path)
    assert list(tmp_path.iterdir()) == []
