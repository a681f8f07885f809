"""Runs made elsewhere get the verdict and the page of relin's own; what is wrong with them is told in a sentence."""

import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from relin import study
from relin.study import SpecError, conclude, parse_condition, stored_study

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NUMBERS = {"step", "run_steps", "learning_rate", "seed", "train_loss", "validation_loss"}
DOCUMENTED = [*NUMBERS, "schedule", "validation_accuracy", "test_accuracy", "network_test_accuracy", "feature_updates"]


def made_elsewhere(question, name, left_out=()):
    """The answer of a stored study, and that of its runs as another loop could have written them down."""
    spec, result, records = stored_study(RESULTS / name)
    if spec.axis is None:
        records = records.filter(run_steps=spec.steps)
    unfinished = pl.when(pl.col("result") == "diverged").then(math.nan).otherwise("test_accuracy")
    runs = records.with_columns(test_accuracy=unfinished).select(DOCUMENTED)
    own = {"layers": spec.layers} if question == "layers" else {}
    named = {"data": spec.data, "model": spec.model, "chance": result.chance, "num_classes": records["num_classes"][0]}
    return result, conclude(
        question, runs.drop(left_out), margin=spec.margin, batch_size=spec.batch_size, **named, **own
    )


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("essential", "essential-digits-mlp"),
        ("timing", "timing-digits-mlp"),
        ("layers", "layers-digits-mlp"),
        ("phase", "phase-digits-mlp"),
    ],
)
def test_the_conclusions_are_those_of_the_study(question, name):
    result, answer = made_elsewhere(question, name)
    assert answer.verdict == result.verdict
    assert answer.result == result


def test_feature_updates_may_be_left_out_where_they_follow():
    result, answer = made_elsewhere("essential", "essential-digits-mlp", left_out=["feature_updates", "run_steps"])
    assert answer.result == result


def test_frequency_concludes_as_the_study_with_the_same_comparison():
    result, answer = made_elsewhere("frequency", "frequency-digits-mlp")
    assert answer.result.outcomes == result.outcomes
    assert answer.result.k_star == result.k_star


@pytest.mark.parametrize("name", ["essential-digits-mlp", "timing-digits-mlp", "layers-digits-mlp"])
def test_feature_updates_follow_from_schedules_as_they_were_counted(name):
    records = pl.read_parquet(RESULTS / name / "records.parquet")
    whole = records.filter(pl.col("result") != "diverged")
    places = whole.select("schedule", "step", "run_steps", "feature_updates").unique()
    followed = [
        (updates, count)
        for schedule, step, steps, count in places.iter_rows()
        if (updates := parse_condition(schedule).schedule.updates_by(step, steps)) is not None
    ]
    assert len(followed) > 50
    assert all(updates == count for updates, count in followed)


def loop(period, seed, rate, steps=40):
    """Logistic regression of two clouds by gradient descent in NumPy, its features frozen for `period` steps."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 3))
    y = (x @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=80) > 0).astype(float)
    inner, outer = rng.normal(size=(3, 4)), rng.normal(size=4)
    train, validation, test = slice(0, 40), slice(40, 60), slice(60, 80)

    def accuracy(part):
        return float(np.mean(((x[part] @ frozen) @ outer > 0) == (y[part] > 0.5)))

    frozen = inner.copy()
    for step in range(steps):
        if step % min(period, steps) == 0:
            frozen = inner.copy()
        hidden = x[train] @ frozen
        error = 1 / (1 + np.exp(-np.clip(hidden @ outer, -30, 30))) - y[train]
        inner = inner - rate * x[train].T @ np.outer(error, outer) / 40
        outer = outer - rate * hidden.T @ error / 40
    return {
        "period": "inf" if math.isinf(period) else period,
        "seed": seed,
        "learning_rate": rate,
        "validation_accuracy": accuracy(validation),
        "test_accuracy": accuracy(test),
    }


@pytest.fixture(scope="module")
def numpy_runs():
    return [loop(K, seed, rate) for K in (1, 4, math.inf) for seed in range(4) for rate in (0.5, 0.1)]


SETTINGS = {"steps": 40, "num_classes": 2, "data": "two clouds", "model": "two layers"}


def test_a_loop_of_ones_own_gets_verdict_table_and_page(numpy_runs, tmp_path):
    answer = conclude("frequency", numpy_runs, margin=5, **SETTINGS)
    assert "two clouds" in answer.verdict
    assert "4 paired seeds" in answer.verdict
    table = answer.table
    assert table["schedule"].to_list() == ["every-1", "every-4", "never"]
    assert table["feature_updates"].to_list() == [39, 9, 0]
    runs = pl.DataFrame(numpy_runs, strict=False)
    for schedule, rate, mean in table.select("schedule", "learning_rate", "test_accuracy").iter_rows():
        period = {"every-1": "1", "every-4": "4", "never": "inf"}[schedule]
        own = runs.filter(period=period)
        best = own.group_by("learning_rate").agg(pl.mean("validation_accuracy"))
        chosen = best.filter(pl.col("validation_accuracy") > best["validation_accuracy"].max() - 1e-9)
        assert rate in chosen["learning_rate"]
        assert mean == pytest.approx(own.filter(learning_rate=rate)["test_accuracy"].mean())
    page = answer.write(tmp_path).read_text()
    assert "two layers on two clouds" in page
    assert "elsewhere, by another program than relin" in page
    assert "momentum" not in page, "nothing is said of the loop that it did not say"
    assert set(answer.figures) == {"accuracy-against-period", "accuracy-against-updates", "learning-rates"}
    assert answer.table["network_test_accuracy"].is_nan().all(), "what was not measured is not made up"
    assert repr(answer).startswith("Answer('frequency')")


def table_of(periods=(1, 4), seeds=3, **columns):
    rows = [(K, seed) for K in periods for seed in range(seeds)]
    accuracy = [0.9 + 0.01 * seed - 0.001 * min(K, 64) for K, seed in rows]
    frame = pl.DataFrame({"period": [float(K) for K, _ in rows], "seed": [seed for _, seed in rows]})
    return frame.with_columns(learning_rate=0.1, test_accuracy=pl.Series(accuracy), **columns)


def concluded(frame, question="frequency", **settings):
    return conclude(question, frame, **{"steps": 100, "num_classes": 10} | settings)


def test_one_rate_each_needs_no_validation_data():
    outcome = concluded(table_of()).result.outcome("every-4")
    assert math.isnan(outcome.validation_accuracy)
    assert outcome.difference.mean == pytest.approx(-0.003)


def test_pandas_frames_are_read():
    import pandas

    periods = ["inf" if K == 4 else "1" for K in table_of()["period"]]
    frame = table_of().with_columns(
        period=pl.Series(periods), test_accuracy=pl.Series([0.9, 0.91, 0.92, 0.9, None, 0.9])
    )
    read = concluded(pandas.DataFrame(frame.to_dict(as_series=False)))
    assert read.result == concluded(frame).result
    assert read.result.outcome("never").num_diverged == 1


@pytest.mark.parametrize("outcome", [math.nan, None, math.inf])
def test_runs_whose_outcome_is_not_finite_diverged_and_count_at_chance(outcome):
    frame = table_of()
    accuracy = [outcome if row == 4 else value for row, value in enumerate(frame["test_accuracy"])]
    if outcome == math.inf:  # no accuracy is that, but a loss is
        frame = frame.with_columns(train_loss=pl.Series([math.inf if row == 4 else 0.1 for row in range(6)]))
    else:
        frame = frame.with_columns(test_accuracy=pl.Series(accuracy))
    answer = concluded(frame)
    found = answer.result.outcome("every-4")
    assert found.num_diverged == 1
    assert found.test_accuracy.mean == pytest.approx((0.896 + 0.1 + 0.916) / 3)
    assert "1 of the 6 runs" in answer.verdict


def test_a_run_that_says_it_diverged_did():
    frame = table_of(result=pl.Series([None, None, None, "diverged", None, None]), train_loss=0.1)
    assert concluded(frame).result.outcome("every-4").num_diverged == 1


def test_failing_to_train_is_judged_where_the_losses_are_known():
    judged = concluded(table_of(train_loss=pl.Series([0.1, 0.1, 0.1, 0.1, 2.3, 0.1])))
    assert judged.result.outcome("every-4").num_failed == 1
    assert "not known" not in judged.verdict
    assert concluded(table_of()).verdict.endswith("Whether runs failed to train is not known.")


def test_unknown_columns_are_kept():
    assert concluded(table_of(host=pl.lit("mine"))).records["host"].unique().to_list() == ["mine"]


def with_value(name, value, row=3):
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(name).alias(name)
    )


REFUSED = {
    "percent": (lambda f: f.with_columns(pl.col("test_accuracy") * 100), "from 0 to 1, got 89.9 in row 0.* by 100"),
    "strings": (lambda f: f.with_columns(test_accuracy=pl.lit("high")), "test_accuracy must be a fraction.*'high'"),
    "seeds as text": (lambda f: f.with_columns(pl.col("seed").cast(pl.String)), "seed must be a whole number, got '0'"),
    "half a seed": (with_value("seed", 0.5), "seed must be a whole number, got 0.5 in row 3"),
    "no seed": (with_value("seed", None), "seed must be a whole number, got None in row 3"),
    "no seeds": (lambda f: f.drop("seed"), "none named seed; add"),
    "rate of 0": (with_value("learning_rate", 0.0), "learning_rate must be a number above 0, got 0.0"),
    "period 0": (with_value("period", 0.0), "or inf for lazy training, got 0.0 in row 3"),
    "half a period": (with_value("period", 2.5), "got 2.5 in row 3"),
    "no period": (with_value("period", None), "got None in row 3"),
    "no schedules": (lambda f: f.drop("period"), "column period .* or schedule"),
    "unknown schedule": (lambda f: f.with_columns(schedule=pl.lit("often")), "'often'"),
    "two names": (lambda f: f.with_columns(schedule=pl.lit("never")), "period is 1.0 in row 0.* schedule is never"),
    "unknown result": (lambda f: f.with_columns(result=pl.lit("fine")), "result must be one of successful"),
    "twice": (lambda f: pl.concat([f, f.head(1)]), "every-1 at learning rate 0.1, seed 0 has more than one row"),
    "no K = 1": (lambda f: f.filter(period=4), "ordinary training, K = 1, to compare with, got only every-4"),
    "K = 1 only": (lambda f: f.filter(period=1), "Expected runs to compare with"),
    "one seed": (lambda f: f.filter(seed=0), "at least 2 seeds of ordinary training, K = 1, got 1"),
    "a seed alone": (lambda f: f.slice(1), "every-4 .*seed 0 has no run of ordinary training"),
    "two data sets": (lambda f: f.with_columns(data=pl.Series(list("aaabbb"))), "runs of one data, got a, b"),
    "two lengths": (lambda f: f.with_columns(run_steps=50 + 50 * (pl.col("period") > 1)), "ask the question phase"),
    "rates without a choice": (with_value("learning_rate", 0.2), "validation_accuracy, by which the learning rate of"),
    "early end": (lambda f: f.with_columns(step=pl.col("seed") + 98), "ends at step 98 of 100; add the row"),
    "validation of some": (
        lambda f: f.with_columns(validation_accuracy=pl.Series([0.9, None, 0.9, 0.9, 0.9, 0.9])),
        "seed 1 ends without validation_accuracy",
    ),
    "a list": (lambda f: f.with_columns(seed=pl.lit([1])), r"seed must be a whole number, got \[1\] in row 0"),
    "updates of some": (
        lambda f: f.with_columns(feature_updates=pl.Series([99, 99, 99, 24, 24, None])),
        "every-4 .*seed 2 ends without feature_updates",
    ),
    "no rows": (lambda f: f.head(0), "without rows"),
    "no table": (lambda f: 3, "Expected a table of runs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_in_a_sentence(case):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        concluded(change(table_of()))
    assert re.search(r"; .*\.$", str(caught.value)), "it says what to do"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": None}, "neither num_classes nor chance"),
        ({"num_classes": 1}, "num_classes must be a whole number of at least 2"),
        ({"steps": "many"}, "run_steps must be a whole number of at least 1, got 'many'"),
        ({"steps": None}, "number of training steps T"),
        ({"margin": -1}, "margin"),
        ({"margn": 1}, "no setting margn .did you mean margin"),
        ({"periods": [1, 4]}, "periods follows from the runs"),
        ({"comparison": "equal-distance", "steps": None}, "number of training steps T"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        concluded(table_of(), **settings)


@pytest.mark.parametrize("question", ["stability", "kernel", "width", "damping", "interpolation"])
def test_studies_that_need_more_say_what(question):
    with pytest.raises(SpecError, match=f"{question} cannot be answered from runs made elsewhere, since it needs"):
        concluded(table_of(), question)


@pytest.mark.parametrize(
    ("question", "schedules", "message"),
    [
        ("timing", ["every-1", "every-4"], "timing needs runs of the schedules early-N"),
        ("timing", ["every-1", "even-8", "late-8", "even-2"], "no run was given: late-2"),
        ("essential", ["every-1", "every-4"], "essential needs runs of the schedules until-N"),
        ("layers", ["every-1", "rich-0", "lazy-0", "rich-1"], "no run was given: lazy-1"),
        ("frequency", ["every-1", "when-error-0.1"], "does not follow from the schedule when-error-0.1"),
    ],
)
def test_the_runs_a_question_needs_are_asked_for(question, schedules, message):
    rows = [{"schedule": name, "seed": seed, "learning_rate": 0.1} for name in schedules for seed in range(2)]
    with pytest.raises(ValueError, match=message):
        concluded(pl.DataFrame(rows).with_columns(test_accuracy=0.9), question)


def test_a_folder_of_a_study_is_not_written_over(numpy_runs, tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a study that was run there"):
        study.conclude("frequency", numpy_runs, **SETTINGS).write(tmp_path)
