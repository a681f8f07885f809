"""The report of the timing study: the page as a reader gets it, and what its figures draw."""

import re

import numpy as np
import polars as pl
import pytest
from made_up_studies import ENVIRONMENT, OFFSETS, SPEC, STEPS, timing
from pages import check_csv, check_page, is_filled, plain, points, texts

from relin.report import write_report
from relin.report._axes import UpdatesAxis
from relin.report._records import StudyRecords
from relin.report._style import LIGHT, themed
from relin.studies.timing.figures import (
    accuracy_against_updates,
    accuracy_of_placements,
    placement_curves,
    updates_in_training,
)
from relin.studies.timing.page import plots
from relin.study._result import Interval

pytestmark = pytest.mark.slow

FIGURES = (
    "accuracy-of-placements",
    "accuracy-against-updates",
    "updates-in-training",
    "learning-curves",
    "learning-rates",
)


@pytest.fixture(scope="module")
def study():
    result, records = timing()
    return result, records, StudyRecords(result, records)


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    result, records, _ = study
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("timing") / "report")


def test_page_and_files(page, study, parse):
    parsed = parse(page.read_text(encoding="utf-8"))
    check_page(page, parsed, study[0], FIGURES, more_files=("placements.csv",))
    check_csv(page.parent / "table.csv", study[0])


def test_page_holds_the_answers(page, parse):
    html = page.read_text(encoding="utf-8")
    text = plain(html)
    assert '<dt>Best for 8 updates</dt><dd class="value">94.9 %</dd>' in text
    assert "adaptive, +0.9 points to even, 95 % interval [+0.5, +1.3]" in text
    assert '<dt>Best for 2 updates</dt><dd class="value">93.0 %</dd><dd class="note">even</dd>' in text
    assert "Even placement is best for 2, adaptive for 8 updates<" in text
    assert "6 feature updates are on par with ordinary training, placed by the adaptive schedule" in text
    rows = [row for row in parse(html).rows if len(row) == 7]
    assert rows[1:3] == [
        ["2", "early", "2 updates, early", "2", "88.00 ± 0.90", "−5.00 [−5.40, −4.60]", "✗"],
        ["2", "even", "2 updates, even", "2", "93.00 ± 0.90", "–", "✗"],
    ]
    assert rows[7] == ["8", "adaptive", "error ≤ 0.3", "6", "94.90 ± 0.90", "+0.90 [+0.50, +1.30]", "✓"]


def test_placements_in_full_precision(page, study):
    table = pl.read_csv(page.parent / "placements.csv")
    assert table.height == len(study[0].placements)
    for row, placement in zip(table.iter_rows(named=True), study[0].placements, strict=True):
        assert (row["budget"], row["placement"]) == (placement.budget, placement.placement)
        assert row["versus_even"] == (placement.versus_even and placement.versus_even.mean)
        assert row["versus_even_low"] == (placement.versus_even and placement.versus_even.low)


def test_title_says_where_a_gain_may_be_chance(study):
    result, _, data = study
    unsure = [
        p.model_copy(update={"versus_even": Interval(mean=0.009, low=-0.001, high=0.02)}) if p.versus_even else p
        for p in result.placements
    ]
    titles = {plot.name: plot.title for plot in plots(result.model_copy(update={"placements": unsure}), data)}
    assert titles["accuracy-of-placements"].endswith("for 8 updates; 95 % intervals of gains over even contain zero")


def test_a_panel_for_each_number_and_a_row_for_each_placement(study):
    result, _, data = study
    with themed(LIGHT):
        two, eight = accuracy_of_placements(result, data, LIGHT).axes
    names = [label.get_text() for label in two.get_yticklabels()]
    assert names == ["early", "even", "geometric", "late", "adaptive"]
    assert set(points(two)) == {(88.0, 0), (93.0, 1)}
    drawn = points(eight)
    assert set(drawn) == {(91.0, 0), (94.0, 1), (94.5, 2), (94.9, 4)}  # late is far below all others
    assert [is_filled(drawn[place]) for place in ((94.0, 1), (94.5, 2), (94.9, 4))] == [False, True, True]
    assert {"30.0", "94.9", "6 spent"} <= set(texts(eight))
    assert eight.get_xlim() == two.get_xlim()
    assert eight.get_xlim()[0] > 60
    seeds = [line for line in eight.lines if line.get_marker() == "."]
    np.testing.assert_allclose(seeds[-1].get_xdata(), 100 * (0.949 + OFFSETS))
    margin = [line.get_xdata()[0] for line in eight.lines if line.get_linestyle() == "--"]
    assert margin == pytest.approx([94.0])


def test_accuracy_against_updates_has_every_number_and_tolerance(study):
    result, _, _ = study
    with themed(LIGHT):
        (axes,) = accuracy_against_updates(result, UpdatesAxis("n", result.num_steps), LIGHT).axes
    drawn = points(axes)
    assert {(6.0, 94.9), (399.0, 95.0), (0.0, 87.0)} <= set(drawn)
    near_eight = sorted(y for x, y in drawn if 7 < x < 9)
    assert near_eight == [91.0, 94.0, 94.5]
    assert len({x for x, _ in drawn if 7 < x < 9}) == 3  # set apart, to be told from each other
    assert axes.get_xscale() == "symlog"
    assert "30.0" in texts(axes)
    with themed(LIGHT):
        (axes,) = accuracy_against_updates(result, UpdatesAxis("K", result.num_steps), LIGHT).axes
    assert {(round(400 / 7, 6), 94.9), (1.0, 95.0), (400.0, 87.0)} <= set(points(axes))


def test_updates_are_drawn_where_the_schedules_have_them(study):
    result, _, data = study
    with themed(LIGHT):
        rug, counted = updates_in_training(result, data, LIGHT).axes
    steps = {
        round(c.get_lineoffset()): sorted(c.get_positions()) for c in rug.collections if hasattr(c, "get_positions")
    }
    assert steps[0] == list(range(1, 9))
    assert steps[3] == list(range(392, 400))
    np.testing.assert_allclose(steps[1], 400 * np.arange(1, 9) / 9, atol=0.5)
    ratios = np.array(steps[2][3:]) / np.array(steps[2][2:-1])
    np.testing.assert_allclose(ratios, 400 ** (1 / 9), rtol=0.1)  # evenly spaced powers
    curves = {line.get_label(): line for line in counted.lines}
    assert list(curves) == ["early", "even", "geometric", "late", "adaptive"]
    for name in ("early", "even", "geometric", "late"):
        assert curves[name].get_ydata()[-1] == 8
        assert curves[name].get_drawstyle() == "steps-post"
    np.testing.assert_allclose(curves["adaptive"].get_xdata()[1:], STEPS[1:])
    np.testing.assert_allclose(curves["adaptive"].get_ydata(), [0, 2, 3, 4, 6])  # rounded quarters of six
    assert counted.get_xscale() == "log"


def test_curves_of_the_largest_number(study):
    result, _, data = study
    with themed(LIGHT):
        accuracy, _ = placement_curves(result, data, LIGHT).axes
    ends = [float(line.get_ydata()[-1]) for line in accuracy.lines]
    assert ends == pytest.approx([95.0, 87.0, 91.0, 94.0, 94.5, 30.0, 94.9])
    assert any("late ↓ 30.0" in text for text in texts(accuracy))
    assert accuracy.get_ylim()[0] > 60


def test_refuses_a_result_without_numbers_of_updates(study, tmp_path):
    result, records, _ = study
    with pytest.raises(ValueError, match=re.escape("at least one number of feature updates in the result of study")):
        write_report(result.model_copy(update={"best": {}}), records, SPEC, ENVIRONMENT, tmp_path)
    assert list(tmp_path.iterdir()) == []
