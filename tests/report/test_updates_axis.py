"""What figures of feature updates have on their axis: one choice for all studies that have such figures."""

import numpy as np
import pytest
from made_up_kernels import kernel
from made_up_studies import NUM_STEPS, SPEC, essential, stability, timing
from pages import points

from relin.report._axes import UpdatesAxis
from relin.report._report import check_against
from relin.report._style import LIGHT, themed
from relin.study._answer import Answer
from relin.study._registry import find, shipped

NAMES = {"K": "steps in a window, K = T/(n + 1)", "T/K": "windows in a run, T/K = n + 1"}
MADE_UP = {"essential": essential, "timing": timing, "stability": stability, "kernel": kernel}
FIGURES = {
    "essential": "frozen-after",
    "timing": "accuracy-against-updates",
    "stability": "accuracy-against-updates",
    "kernel": "accuracy-and-alignment",
}


def test_n_windows_and_their_length_are_three_names_for_one_place():
    updates = np.array([0.0, 1.0, 3.0, 99.0])
    np.testing.assert_array_equal(UpdatesAxis("n", 100).at(updates), updates)
    np.testing.assert_array_equal(UpdatesAxis("T/K", 100).at(updates), [1, 2, 4, 100])
    np.testing.assert_array_equal(UpdatesAxis("K", 100).at(updates), [100, 50, 25, 1])
    assert UpdatesAxis("K", 100).at(3.0, 200) == 50


@pytest.mark.parametrize(("name", "against"), [(name, a) for name in MADE_UP for a in find(name).drawn_against])
def test_the_figure_of_updates_is_drawn_against_what_was_asked_for(name, against):
    result, records = MADE_UP[name]()
    plots = {plot.name: plot for plot in find(name).page(result, records, SPEC, against).plots}
    plot = plots[FIGURES[name]]
    with themed(LIGHT):
        axes = plot.draw(LIGHT).axes[-1]
    expected = NAMES.get(against, "feature updates")
    assert expected in axes.get_xlabel()
    assert (NAMES.get(against, "no other name") in plot.caption) == (against in NAMES)


@pytest.mark.parametrize("against", ["n", "K", "T/K"])
def test_every_mark_stands_where_its_updates_say(against):
    result, records = stability()
    plots = {plot.name: plot for plot in find("stability").page(result, records, SPEC, against).plots}
    with themed(LIGHT):
        axes = plots["accuracy-against-updates"].draw(LIGHT).axes[0]
    at = {"n": lambda n: n, "T/K": lambda n: n + 1, "K": lambda n: NUM_STEPS / (n + 1)}[against]
    shown = {x for x, _ in points(axes)}
    assert shown <= {round(at(o.feature_updates), 6) for o in result.outcomes}
    assert {at(NUM_STEPS - 1), at(0)} <= shown
    (front,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    spent = [result.outcome(name).feature_updates for name in result.pareto]
    assert list(front.get_xdata()) == [at(n) for n in spent]


def test_frozen_features_stand_between_ordinary_and_lazy_training_on_either_axis():
    result, records = essential()
    ends = {}
    for against in ("n", "K"):
        plot = next(p for p in find("essential").page(result, records, SPEC, against).plots if p.name == "frozen-after")
        with themed(LIGHT):
            axes = plot.draw(LIGHT).axes[0]
        labels = [label.get_text() for label in axes.get_xticklabels()]
        ends[against] = labels[0], labels[-1]
        ordered = sorted(points(axes))
        ends[against] += (ordered[0][1], ordered[-1][1])
    assert ends["n"][:2] == ends["K"][1::-1] == ("none\n(lazy)", "all\n(ordinary)")
    assert ends["n"][2:] == ends["K"][:1:-1]


@pytest.mark.parametrize(
    ("against", "name"),
    [("n", "feature updates so far"), ("T/K", "windows so far, n + 1"), ("K", "feature updates so far")],
)
def test_on_the_way_there_are_updates_or_windows(against, name):
    result, records = kernel()
    plots = {plot.name: plot for plot in find("kernel").page(result, records, SPEC, against).plots}
    with themed(LIGHT):
        axes = plots["kernel-distance"].draw(LIGHT).axes[1]
    assert axes.get_xlabel() == name


def test_an_answer_has_its_figures_against_either():
    result, records = timing()
    answer = Answer(result, records, SPEC)
    axes = answer.figures_against("T/K")["accuracy-against-updates"].axes[0]
    assert axes.get_xlabel() == NAMES["T/K"]
    with pytest.raises(ValueError, match="can be drawn against n, K, T/K, got t"):
        answer.figures_against("t")


def test_studies_without_such_a_figure_say_so():
    without = [name for name in shipped() if not find(name).drawn_against]
    assert set(without) == {"damping", "layers", "width"}
    for name in without:
        check_against(name, None)
        with pytest.raises(ValueError, match=f"no figure of the study {name} has the feature updates of a run on its"):
            check_against(name, "n")
