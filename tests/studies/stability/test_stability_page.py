"""The report of the stability study: the page as a reader gets it, and what its figures draw."""

import math
import re

import numpy as np
import pytest
from made_up_studies import ENVIRONMENT, NUM_STEPS, RATES, SPEC, STEPS, stability
from pages import check_csv, check_page, is_filled, plain, points, texts

from relin.report import write_report
from relin.report._axes import UpdatesAxis
from relin.report._records import StudyRecords
from relin.report._style import DARK, LIGHT, themed
from relin.studies.stability.accuracy import accuracy_against_updates, what_parts_bring
from relin.studies.stability.data import best_gain, descent, groups, trains_as_far
from relin.studies.stability.figures import rates_that_train
from relin.studies.stability.page import plots
from relin.studies.stability.sharpness import passes, selection, sharpness_in_training

pytestmark = pytest.mark.slow

FIGURES = ("rates-that-train", "accuracy-against-updates", "what-parts-bring", "sharpness")
EDGES = [0.03 / (0.1 / 0.03) ** 0.5, (0.03 * 0.1) ** 0.5, (0.1 * 0.3) ** 0.5, 0.3 * 3**0.5]


@pytest.fixture(scope="module")
def study():
    result, records = stability()
    return result, records, StudyRecords(result, records, more_columns=("sharpness",))


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    result, records, _ = study
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("stability") / "report")


def test_page_and_files(page, study, parse):
    result = study[0]
    check_page(page, parse(page.read_text(encoding="utf-8")), result, FIGURES)
    table = check_csv(page.parent / "table.csv", result)
    assert table["largest_rate"].to_list() == [limit.largest_rate for limit in result.limits]
    assert table["stable_rate_high"].to_list() == [limit.stable_rate and 0.25 for limit in result.limits]
    assert table["num_diverged_at_0.1"].to_list() == [limit.num_diverged[1] for limit in result.limits]
    assert table["pareto"].to_list() == [outcome.schedule in result.pareto for outcome in result.outcomes]


def test_page_holds_the_answers(page, parse):
    html = page.read_text(encoding="utf-8")
    text = plain(html)
    assert '<dt>Largest rate of K = 1</dt><dd class="value">0.3</dd>' in text
    assert '<dt>2/λ_max at the start</dt><dd class="value">0.25</dd>' in text
    assert "times 1.9 with momentum 0.9" in text
    assert '<dt>Train at as large a rate</dt><dd class="value">2 of 6</dd>' in text
    assert "Ordinary training trains up to rate 0.3, as do 2 of 6 other schedules" in text
    assert "6 feature updates are on par with ordinary training, spent by K = 64, clipped at 1" in text
    assert "Largest gain over a fixed K alone: +3.2 points by K = 64, clipped at 1" in text
    rows = {row[0]: row for row in parse(html).rows[1:]}
    assert rows["K = 16, clipped at 1"][5:7] == ["0.1", "0.2 [0.15, 0.25]"]
    assert rows["K = 64"][5:7] == ["–", "–"]
    marked = re.findall(r'<tr class="marked"><th scope="row">(.*?)</th>', html)
    assert marked == ["K = 1", "K = ∞ (lazy)", "error ≤ 0.1", "K = 64, clipped at 1"]


def test_groups_are_schedules_that_differ_in_a_number(study):
    result = study[0]
    assert [(group.name, group.ticks()) for group in groups(result)] == [
        ("K alone", ["1", "16", "64", "∞"]),
        ("by error", ["0.1"]),
        ("clipped at 1", ["16", "64"]),
    ]
    assert trains_as_far(result) == (2, 6)
    gain, outcome = best_gain(result)
    assert (gain, outcome.schedule) == (pytest.approx(0.032), "every-64+clip-1")


def test_map_of_rates_that_train(study):
    result = study[0]
    with themed(LIGHT):
        plain_k, _, clipped = rates_that_train(result, descent(SPEC, result), LIGHT).axes
    cells = [patch for patch in plain_k.patches if patch.get_fill() and hasattr(patch, "get_xy")]
    hatched = {(round(p.get_x() + 0.5), round(p.get_y(), 6)) for p in cells if p.get_hatch()}
    assert hatched == {(1, round(EDGES[2], 6)), (2, round(EDGES[1], 6)), (2, round(EDGES[2], 6))}
    assert texts(plain_k) == ["×1/3", "×2/3"]  # counted where some runs diverged, but not all
    colours = {(round(p.get_x() + 0.5), round(p.get_y(), 6)): p.get_facecolor() for p in cells}
    none, one, two = (
        colours[0, round(EDGES[0], 6)],
        colours[1, round(EDGES[1], 6)],
        colours[2, round(EDGES[0], 6)],
    )
    assert len({none, one, two}) == 3
    (skyline,) = [patch for patch in plain_k.patches if type(patch).__name__ == "StepPatch"]
    np.testing.assert_allclose(skyline.get_data().values, [EDGES[3], EDGES[1], EDGES[0], EDGES[3]])
    (skyline,) = [patch for patch in clipped.patches if type(patch).__name__ == "StepPatch"]
    np.testing.assert_allclose(skyline.get_data().values, [EDGES[2], EDGES[3]])
    across = [line.get_ydata()[0] for line in plain_k.lines if line.get_linestyle() == "--"]
    assert across == pytest.approx([0.25, 0.475])  # at the initial parameters, alone and times 1 + β
    assert set(points(plain_k)) == {(0, 0.2), (1, 0.2), (3, 0.2)}  # K = 64 has no finite sharpness
    outlined = [patch for patch in clipped.patches if not patch.get_fill() and hasattr(patch, "get_xy")]
    chosen = [
        patch.get_y() < rate < patch.get_y() + patch.get_height()
        for patch, rate in zip(outlined, (0.1, 0.3), strict=False)
    ]
    assert chosen[:2] == [True, True]
    assert [label.get_text() for label in plain_k.get_yticklabels()] == ["0.03", "0.1", "0.3"]


def test_front_is_a_step_line_with_numbered_members(study):
    result = study[0]
    with themed(LIGHT):
        (axes,) = accuracy_against_updates(result, UpdatesAxis("n", result.num_steps), LIGHT).axes
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(front.get_xdata(), [0, 6, 12, 399])
    np.testing.assert_allclose(front.get_ydata(), [87.0, 94.2, 94.6, 95.0])
    drawn = points(axes)
    assert set(drawn) == {(o.feature_updates, round(100 * o.test_accuracy.mean, 6)) for o in result.outcomes}
    assert is_filled(drawn[6.0, 94.2])
    assert not is_filled(drawn[24.0, 93.5])
    assert drawn[24.0, 93.5].get_color() != drawn[24.0, 93.0].get_color()  # clipped, and K alone
    names = ["1  K = ∞ (lazy)", "2  K = 64, clipped at 1", "3  error ≤ 0.1", "4  K = 1"]
    assert {"1", "2", "3", "4", *names} == set(texts(axes))


def test_parts_stand_beside_the_same_period_alone(study):
    result = study[0]
    with themed(DARK):
        (axes,) = what_parts_bring(result, DARK).axes
    assert axes.get_title(loc="left") == "clipped at 1"
    alone = sorted((x, y) for x, y in points(axes) if y in (93.0, 91.0))
    clipped = sorted((x, y) for x, y in points(axes) if y in (93.5, 94.2))
    assert [y for _, y in alone + clipped] == [93.0, 91.0, 93.5, 94.2]
    for (left, _), (right, _), period in zip(alone, clipped, (16, 64), strict=True):
        assert left < math.log2(period) < right
    assert [label.get_text() for label in axes.get_xticklabels()] == ["16", "64"]


def test_stable_sharpness_follows_momentum_and_decay(study):
    result, _, data = study
    steps = np.array([0, 100, 200, 400])
    linear = descent(SPEC, result)
    np.testing.assert_allclose(linear.stable_sharpness(0.1, steps), [38, 38 / 0.75, 76, math.inf])
    cosine = descent(SPEC | {"decay": "cosine", "momentum": 0.0}, result)
    np.testing.assert_allclose(cosine.stable_sharpness(0.1, steps[[0, 2]]), [20, 40])
    constant = descent(SPEC | {"decay": "none"}, result)
    np.testing.assert_allclose(constant.stable_sharpness(0.1, steps), [38] * 4)
    warm = descent(SPEC | {"warm_up": 0.25}, result)
    np.testing.assert_allclose(warm.stable_sharpness(0.1, steps), [38 * 101, 38, 38 / (2 / 3), math.inf])
    adam = descent(SPEC | {"momentum": None}, result)
    assert np.isinf(adam.stable_sharpness(0.1, steps)).all()
    assert not passes(result.outcome("never"), data, linear)  # a sharpness of 8 at rate 0.1
    steep = result.outcome("every-1").model_copy(update={"learning_rate": 0.3})
    assert not passes(steep, data, linear)  # 3.8/0.3 is above 8
    assert passes(steep, data, descent(SPEC | {"momentum": 0.0}, result))  # 2/0.3 is below


def test_sharpness_is_drawn_with_what_is_stable(study):
    result, _, data = study
    chosen = selection(result)
    assert [o.schedule for o in chosen] == ["every-1", "every-64", "when-error-0.1", "never"]
    with themed(LIGHT):
        panels = sharpness_in_training(chosen, ["#000000"] * 4, data, descent(SPEC, result), LIGHT).axes
    for axes, outcome in zip(panels, chosen, strict=True):
        sharpness, stable = axes.lines
        np.testing.assert_allclose(sharpness.get_xdata(), STEPS)
        np.testing.assert_allclose(sharpness.get_ydata(), 8.0 * 0.5 ** (2 * np.array(STEPS) / NUM_STEPS))
        assert stable.get_ydata()[0] == pytest.approx(3.8 / outcome.learning_rate)
        assert axes.get_ylim()[1] > 3.8 / min(RATES)


def test_without_parts_there_is_no_figure_of_them(study):
    result, _, data = study
    alone = result.model_copy(update={"outcomes": [o for o in result.outcomes if "+" not in o.schedule]})
    names = [plot.name for plot in plots(alone, data, descent(SPEC, result))]
    assert names == ["rates-that-train", "accuracy-against-updates", "sharpness"]


@pytest.mark.parametrize(
    ("change", "keep", "spec", "message"),
    [
        ({}, lambda r: r.drop("sharpness"), SPEC, "got none named sharpness"),
        (
            {},
            lambda r: r,
            {"decay": "linear"},
            "Expected the settings momentum and decay of study 'stability', got none",
        ),
        ({"limits": []}, lambda r: r, SPEC, "limit of the learning rate for every schedule, got none for 'every-1'"),
    ],
)
def test_refusals(study, tmp_path, change, keep, spec, message):
    result, records, _ = study
    with pytest.raises(ValueError, match=re.escape(message)):
        write_report(result.model_copy(update=change), keep(records), spec, ENVIRONMENT, tmp_path)
    assert list(tmp_path.iterdir()) == []
