"""Measures of one's own in the place of accuracy: what is recorded, decided and said."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest
import scipy.stats
from frequency_records import records, runs
from matplotlib.text import Text

import relin as il
from relin import study
from relin._core import constant
from relin.study._network import key_of_network
from relin.study._outcomes import compare, rank_learning_rates

TINY = {
    "periods": [1, 4, "inf"],
    "sparse_periods": [],
    "tolerances": [],
    "steps": 24,
    "batch_size": 16,
    "seeds": 3,
    "select_seeds": 1,
    "finalists": None,
    "num_records": 2,
}


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def build(key, outputs=3):
    first, second = jax.random.split(key)
    return apply, {"a": jax.random.normal(first, (5, 8)), "b": jax.random.normal(second, (8, outputs)) / 3}


def macro_f1(outputs, targets):
    """Over three classes."""
    classes = jnp.arange(3)[None, :]
    said, true = (jnp.argmax(outputs, -1)[:, None] == classes), targets[:, None] == classes
    hit = jnp.sum(said & true, 0)
    return jnp.mean(2 * hit / jnp.maximum(jnp.sum(said, 0) + jnp.sum(true, 0), 1))


def f1_by_loops(outputs, targets):
    said, scores = np.asarray(outputs).argmax(-1), []
    for c in range(3):
        hit = sum(1 for s, t in zip(said, targets, strict=True) if s == c and t == c)
        either = sum(1 for s in said if s == c) + sum(1 for t in targets if t == c)
        scores.append(2 * hit / either if either else 0.0)
    return sum(scores) / 3


def absolute_error(outputs, targets):
    return jnp.mean(jnp.abs(outputs - targets))


F1 = study.Measure(macro_f1, "macro F1", margin=2.0, unit="%")
MAE = study.Measure(absolute_error, "MAE", False, margin=0.05, unit="s")


def classes():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 5)).astype(np.float32)
    return study.Data((x, (x[:, 0] > 0).astype(int) + (x[:, 1] * x[:, 2] > 0.3)))


def values():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 5)).astype(np.float32)
    return study.Data((x, 0.5 + x[:, :1]))


@pytest.fixture(scope="module")
def f1(tmp_path_factory):
    asked = study.Frequency(network=build, data=classes(), measure=F1, learning_rates=[0.1, 0.01], **TINY)
    return asked.run(tmp_path_factory.mktemp("f1") / "study", progress=False)


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    asked = study.Frequency(
        network=lambda key: build(key, 1),
        data=values(),
        loss="squared-error",
        measure=MAE,
        learning_rates=[0.1, 0.03],
        **TINY | {"steps": 80},
    )
    return asked.run(tmp_path_factory.mktemp("mae") / "study", progress=False)


def test_what_is_recorded_is_the_measure_of_all_outputs_of_a_part(f1):
    data = classes()
    start = f1.records.filter(pl.col("step") == 0).unique("seed").sort("seed")
    for seed, recorded in start.select("seed", "network_test_accuracy").iter_rows():
        outputs = apply(build(key_of_network(seed))[1], jnp.asarray(data.test.x))
        assert recorded == pytest.approx(f1_by_loops(outputs, data.test.y), abs=1e-6)
    assert f1.records["measure"].unique().to_list() == ["macro F1"]
    assert not [name for name in f1.records.columns if name.endswith("_measure")]


def test_the_constant_predictors_measure_is_of_each_part(f1, mae):
    for answer, data, of in ((f1, classes(), f1_by_loops), (mae, values(), lambda f, y: np.abs(f - y).mean())):
        y = np.asarray(data.train.y)
        best = np.log(np.bincount(y) / len(y)) if y.ndim == 1 else y.mean(0)
        for part, column in ((data.test, "constant_accuracy"), (data.validation, "constant_validation_accuracy")):
            expected = of(np.broadcast_to(best, (len(part.y), best.size)), part.y)
            assert answer.records[column].unique().to_list() == [pytest.approx(float(expected), rel=1e-5)]


@pytest.mark.parametrize("name", ["f1", "mae"])
def test_decisions_are_those_of_the_measure_itself(name, request):
    """Against textbook formulas on the measure's own values, in which a worse one is higher for MAE."""
    answer = request.getfixturevalue(name)
    sign, margin = (1, 0.02) if name == "f1" else (-1, 0.05)
    last = answer.records.filter(pl.col("step") == pl.col("run_steps"))
    chosen = {}
    for schedule in ("every-1", "every-4", "never"):
        own = last.filter(pl.col("schedule") == schedule)
        means = own.filter(pl.col("seed") == 0).sort("learning_rate", descending=True)
        best = means["validation_accuracy"].to_numpy() * sign
        outcome = answer.result.outcome(schedule)
        if not math.isclose(*best, abs_tol=1e-6):
            assert outcome.learning_rate == means["learning_rate"][int(best.argmax())]
        chosen[schedule] = own.filter(pl.col("learning_rate") == outcome.learning_rate).sort("seed")
    ordinary, p_values = chosen["every-1"]["test_accuracy"].to_numpy(), {}
    for schedule in ("every-4", "never"):
        worse = sign * (ordinary - chosen[schedule]["test_accuracy"].to_numpy())
        outcome = answer.result.outcome(schedule)
        assert outcome.difference.mean == pytest.approx(-worse.mean())
        if np.ptp(worse) > 1e-6:
            p_values[schedule] = scipy.stats.ttest_1samp(worse, margin, alternative="less").pvalue
            assert outcome.p_value == pytest.approx(p_values[schedule])
            error = worse.std(ddof=1) / 3**0.5
            assert outcome.bound == pytest.approx(-(worse.mean() + scipy.stats.t.ppf(0.95, 2) * error))
    assert p_values
    assert answer.result.margin == pytest.approx(margin)


def shown(answer):
    page = answer.report.read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_fractions_are_shown_in_percent(f1):
    words = shown(f1)
    assert "test macro F1 at most 2 percentage points below ordinary training" in f1.verdict
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])", words)
    assert "macro macro" not in words
    assert "at chance" not in words
    mean = f1.result.outcome("never").test_accuracy.mean
    assert f"{100 * mean:.2f}" in words
    assert "test_macro_f1" in f1.table.columns


def test_lower_values_are_shown_in_their_own_unit_and_sense(mae):
    words, result = shown(mae), mae.result
    assert "test MAE at most 0.05 s above ordinary training" in mae.verdict
    assert not re.search(r"[Aa]ccurac(y|ies)(?![-\w])|\bpoints\b|percentage", mae.verdict)
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])|percentage point", words)
    assert "excludes a rise of 0.05 s" in words
    ordinary, lazy = result.outcome("every-1"), result.outcome("never")
    assert ordinary.test_accuracy.mean < 0  # results hold scores
    assert f"{-lazy.test_accuracy.mean:.3f}" in words
    table = mae.table.filter(pl.col("schedule") == "never").row(0, named=True)
    assert table["test_mae"] == pytest.approx(-lazy.test_accuracy.mean)
    assert table["test_mae_low"] < table["test_mae"] < table["test_mae_high"]
    assert table["difference"] == pytest.approx(table["test_mae"] + ordinary.test_accuracy.mean)
    assert table["bound"] == pytest.approx(-lazy.bound)
    if abs(lazy.difference.mean) > 0.001:
        assert (
            f"MAE is {abs(lazy.difference.mean):.3f} s {'higher' if lazy.difference.mean < 0 else 'lower'}"
            in mae.verdict
        )


def test_figures_turn_the_axis_of_what_is_better_lower(mae):
    figure = mae.figures["accuracy-against-period"]
    axes = figure.axes[0]
    figure.canvas.draw()
    ticks = {tick: label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert ticks
    assert all(float(label.replace("−", "-")) == pytest.approx(-tick, abs=1e-9) for tick, label in ticks.items())
    labels = {label.get_text() for label in figure.findobj(Text)}
    assert "test MAE, s" in labels
    assert any("margin, 0.05 s" in label for label in labels)
    assert not any("accuracy" in label or "point" in label or "%" in label for label in labels)


def test_a_finished_study_is_concluded_without_the_code(mae):
    spec, result, _ = study.stored_study(mae.folder)
    assert result == mae.result
    assert (spec.measure, spec.margin) == ("Measure::MAE", 0.05)


def test_another_measure_is_another_study(mae):
    def asked(measure):
        return study.Frequency(
            network=lambda key: build(key, 1),
            data=values(),
            loss="squared-error",
            measure=measure,
            learning_rates=[0.1, 0.03],
            **TINY | {"steps": 80},
        )

    squared = dataclasses.replace(MAE, function=lambda f, y: jnp.mean((f - y) ** 2))
    for other in (squared, dataclasses.replace(MAE, unit="ms"), dataclasses.replace(MAE, higher_is_better=True)):
        with pytest.raises(study.SpecError, match=r"MAE|digests"):
            asked(other).run(mae.folder, progress=False)
    with pytest.raises(study.SpecError, match="margin"):
        asked(dataclasses.replace(MAE, margin=0.1)).run(mae.folder, progress=False)


def refused(measure, tmp_path, data=None, **settings):
    asked = study.Frequency(
        network=build, data=data or classes(), measure=measure, learning_rates=[0.1], **TINY, **settings
    )
    with pytest.raises(ValueError) as refusal:
        asked.run(tmp_path / "study", progress=False)
    assert not (tmp_path / "study").exists()
    return str(refusal.value)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda f, y: np.mean(np.argmax(np.asarray(f), -1) == np.asarray(y)), "jax.pure_callback"),
        (lambda f, y: jnp.mean(f, 0), "one real number"),
        (lambda f, y: jnp.nan * jnp.sum(f), "nan of the untrained network's outputs of the test part"),
        (lambda f, y: f.nothing, "fails on outputs"),
        (lambda f, y: jnp.mean(f) / jnp.std(f[:, 0] - f[0, 0]), "inf of the best constant predictor"),
        (None, "no function"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_run(function, said, tmp_path):
    assert said in refused(study.Measure(function, "r", margin=0.1), tmp_path)


def test_a_plain_function_is_refused():
    with pytest.raises(study.SpecError, match=r"macro_f1 must be a relin\.study\.Measure, got function"):
        study.Frequency(measure=macro_f1)


def test_studies_of_kernels_compare_accuracies():
    with pytest.raises(study.SpecError, match="measure: this study takes no measure of your own, since of lazy train"):
        study.Kernel(measure=F1)
    with pytest.raises(study.SpecError, match="there is no setting measure"):
        study.Damping(measure=F1)


def test_accuracy_is_the_default():
    assert study.Frequency(data="digits", measure=study.Accuracy()).spec == study.Frequency(data="digits").spec
    assert study.Frequency(data="digits", measure=study.Accuracy(margin=3.0)).spec.margin == 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "accuracy"},
        {"name": "<b>"},
        {"margin": 0.0},
        {"margin": math.inf},
        {"margin": 100.0, "unit": "%"},
        {"unit": "s\n"},
        {"untrained": math.nan},
        {"higher_is_better": "no"},
        {"function": 3},
    ],
)
def test_measures_that_cannot_be_shown_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        study.Measure(**({"function": macro_f1, "name": "F1", "margin": 1.0} | wrong))


def of_lower(frame, unit="s"):
    told = {"measure": pl.lit("MAE"), "measure_unit": pl.lit(unit), "measure_better": pl.lit("lower")}
    return frame.with_columns(**told)


def test_records_say_themselves_that_lower_is_better():
    frame = of_lower(records(runs("every-1", [0.30, 0.31, 0.29]), runs("every-4", [0.50, 0.52, 0.49])))
    worse = compare(frame, margin=0.05, confidence=0.95, chance=0.9).outcomes[1]
    assert not worse.on_par
    assert worse.difference.mean < -0.1


def test_lower_values_choose_the_rate():
    frame = of_lower(
        records(runs("every-1", [0.3, 0.3], validation=0.4), runs("every-1", [0.2, 0.2], validation=0.3, rate=0.05))
    )
    assert rank_learning_rates(frame, chance=0.9) == {"every-1": [0.05, 0.1]}


def test_small_units_are_no_ties():
    """Differences of 1e-9 are real where the margin is 1e-9: an absolute resolution would call all of them equal."""
    small = of_lower(records(runs("every-1", [3.0, 3.1, 2.9]), runs("every-4", [3.1, 3.4, 2.8])), "m")
    tiny = small.with_columns(pl.col(name) * 1e-9 for name in ("test_accuracy", "validation_accuracy"))
    one = compare(small, margin=1.0, confidence=0.95, chance=9.0).outcomes[1]
    other = compare(tiny, margin=1e-9, confidence=0.95, chance=9e-9).outcomes[1]
    assert other.p_value == pytest.approx(one.p_value)
    assert other.bound == pytest.approx(1e-9 * one.bound)


def test_a_measure_that_is_nan_at_the_end_is_an_error():
    frame = of_lower(records(runs("every-1", [0.3, 0.31]), runs("every-4", [0.3, math.nan])))
    with pytest.raises(ValueError, match=r"Expected a finite MAE of every-4 at learning rate .* did not diverge"):
        compare(frame, margin=0.1, confidence=0.95, chance=0.9)


def test_untrained_runs_count_at_each_parts_own_value():
    frame = of_lower(records(runs("every-1", [0.3, 0.31, 0.29]), runs("every-4", [0.3, 0.3, 0.3], result="diverged")))
    frame = frame.with_columns(constant_validation_accuracy=pl.lit(0.7))
    compared = compare(frame, margin=0.1, confidence=0.95, chance=0.9)
    outcome = compared.outcome("every-4")
    assert (outcome.test_accuracy.mean, outcome.validation_accuracy) == pytest.approx((-0.9, -0.7))


def test_the_best_constant_predictor():
    y = np.array([0, 1, 1, 2])
    np.testing.assert_allclose(constant.best_outputs((4, 3), y, logits=True), np.log([0.25, 0.5, 0.25]))
    np.testing.assert_allclose(constant.best_outputs((4, 3), y, logits=False), [0.25, 0.5, 0.25])
    positions = np.array([[0, 1], [0, 0]])
    expected = [[1.0, 0.0], [0.5, 0.5]]
    np.testing.assert_allclose(constant.best_outputs((2, 2, 2), positions, logits=False), expected)
    np.testing.assert_allclose(constant.best_outputs((4, 1), y[:, None] / 2, logits=False), [0.5])


def test_performance_records_any_measure():
    x, y = jnp.ones((4, 5)), jnp.array([0, 1, 2, 0])
    problem, params = il.Problem(apply, il.CrossEntropy()), build(jax.random.key(0))[1]
    observer = il.Performance((x, y), "held", measure=macro_f1)
    solution = il.train(
        problem,
        il.WeightSpace(optax.sgd(0.1)),
        il.Every(1),
        params,
        (x, y),
        num_steps=1,
        observers=[observer],
        key=jax.random.key(0),
    )
    assert solution.records["network_held_measure"][0] == pytest.approx(f1_by_loops(apply(params, x), np.asarray(y)))


def test_runs_made_elsewhere_are_judged_by_a_measure_too():
    frame = records(runs("every-1", [0.30, 0.31, 0.29]), runs("every-4", [0.32, 0.34, 0.30]))
    frame = frame.select("schedule", "seed", "learning_rate", "step", "test_accuracy", run_steps=pl.max("step"))
    frame = frame.filter(pl.col("step") == pl.col("run_steps"))
    measure = study.Measure(None, "MAE", False, margin=0.15, unit="s", untrained=0.9)
    answer = study.conclude("frequency", frame, measure=measure)
    differences = np.array([0.02, 0.03, 0.01])
    outcome = answer.result.outcome("every-4")
    assert outcome.p_value == pytest.approx(scipy.stats.ttest_1samp(differences, 0.15, alternative="less").pvalue)
    assert "test MAE at most 0.15 s above ordinary training" in answer.verdict
    assert answer.table["test_mae"].to_list() == pytest.approx([0.30, 0.32])
    assert "measure" in answer.settings
    with pytest.raises(ValueError, match="the MAE at which a run that did not train counts"):
        study.conclude("frequency", frame, measure=dataclasses.replace(measure, untrained=None))
    with pytest.raises(ValueError, match="`measure` must be an object of Python"):
        study.conclude("frequency", frame, measure="MAE")
