"""How stored runs ended: trained, failed to train, diverged; in every conclusion, and in the results of the docs."""

import math
from pathlib import Path

import polars as pl
import pytest
from frequency_records import answer, by_name, records, run, runs, steady

from relin.study import GridSpec, stored_study
from relin.study._judged import chance_of, judged, trained
from relin.study._scale import PERCENT
from relin.study._verdict import untrained

RESULTS = sorted(path.parent for path in (Path(__file__).parents[2] / "docs/results").glob("*/spec.json"))
LN10 = math.log(10)


def ended(*, loss="cross-entropy", **cells):
    """How one run ended by its last record, which has these cells."""
    first = {"schedule": "every-1", "learning_rate": 0.1, "seed": 0, "num_classes": 10, "diverged_at": None}
    first |= {"step": 0, "train_loss": math.nan, "result": "successful"} | cells
    last = first | {"step": 20, "train_loss": 0.1} | cells
    frame = pl.DataFrame([first | {"step": 0, "train_loss": math.nan}, last], infer_schema_length=None)
    frame = judged(frame, loss)
    assert frame["result"].n_unique() == 1
    assert frame.equals(judged(frame, loss))
    return frame["result"][0], frame["diverged_at"][0], frame["constant_loss"][0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"train_loss": 0.99 * LN10 - 1e-6}, ("successful", None)),
        ({"train_loss": 0.99 * LN10 + 1e-6}, ("failed to train", None)),
        ({"train_loss": 1e21}, ("failed to train", None)),
        ({"train_loss": math.inf, "result": "diverged", "diverged_at": 7}, ("diverged", 7)),
        ({"train_loss": 0.3, "result": "diverged", "diverged_at": 7}, ("diverged", 7)),
        # As older records have it: the loss, finite, ended above that of the untrained network.
        ({"train_loss": 2.4, "result": "diverged", "diverged_at": 20}, ("failed to train", None)),
        ({"train_loss": 1.4, "result": "diverged", "diverged_at": 20}, ("successful", None)),
        ({"train_loss": None}, ("successful", None)),
        ({"train_loss": None, "result": "diverged"}, ("diverged", None)),
        ({"train_loss": 2.31, "result": "failed to train"}, ("failed to train", None)),
    ],
)
def test_a_run_is_judged_by_its_last_record(cells, expected):
    assert ended(**cells)[:2] == expected


def test_the_constant_predictor_is_the_records_own_or_that_of_balanced_classes():
    assert ended()[2] == pytest.approx(LN10)
    assert ended(loss="squared-error")[2] == pytest.approx(sum(p * (1 - p) for p in [0.1] * 10) / 2)
    assert ended(train_loss=0.6, constant_loss=0.5) == ("failed to train", None, 0.5)
    assert ended(train_loss=0.6, final_loss=0.2, constant_loss=0.5)[0] == "successful"
    assert chance_of(pl.DataFrame({"num_classes": [4]})) == 0.25
    assert chance_of(pl.DataFrame({"num_classes": [4], "constant_accuracy": [0.7]})) == 0.7


def test_runs_are_told_apart_by_all_that_names_them():
    rows = [
        row | {"width": width}
        for width, loss in ((16, 0.1), (32, 2.4))
        for row in runs("every-1", [0.9, 0.9], loss=loss, num_classes=10)
    ]
    frame = judged(pl.DataFrame(rows, infer_schema_length=None), "cross-entropy")
    assert set(frame.select("width", "result").unique().rows()) == {(16, "successful"), (32, "failed to train")}


def collapsed(schedule, seeds, **options):
    return [row for seed in seeds for row in run(schedule, seed, 0.6, loss=2.31, num_classes=10, **options)]


def concluded(*rows):
    return answer(judged(records(*rows), "cross-entropy"))


def test_a_run_that_failed_to_train_counts_at_chance_apart_from_those_that_diverged():
    ordinary = runs("every-1", [0.9, 0.9, 0.9, 0.9], num_classes=10)
    rarer = [*runs("every-2", [0.9, 0.9], num_classes=10), *collapsed("every-2", [2])]
    rarer += run("every-2", 3, 0, loss=math.nan, diverged_at=17, num_classes=10)
    result = concluded(ordinary, rarer)
    outcome = by_name(result)["every-2"]
    assert (outcome.num_diverged, outcome.num_failed, outcome.num_untrained) == (1, 1, 2)
    assert (result.num_diverged, result.num_failed, result.num_runs) == (1, 1, 8)
    assert outcome.test_accuracy.mean == pytest.approx((0.9 + 0.9 + 0.1 + 0.1) / 4)
    assert (
        "1 of the 8 runs at the chosen learning rates diverged, 1 failed to train, and all count at chance accuracy "
        "(10 %)" in result.verdict
    )


def test_a_rate_at_which_runs_collapse_is_not_chosen():
    better = collapsed("every-2", [0, 1], rate=0.9, validation=0.99)
    result = concluded(runs("every-1", [0.9, 0.9]), runs("every-2", [0.9, 0.9], num_classes=10), better)
    assert by_name(result)["every-2"].learning_rate == 0.1
    assert by_name(result)["every-2"].num_failed_all_rates == 2


def test_nothing_is_compared_with_ordinary_training_that_collapsed():
    result = concluded(collapsed("every-1", [0, 1]), runs("every-2", [0.9, 0.9], num_classes=10))
    assert result.k_star is None
    assert "no run of ordinary training (K = 1) trained" in result.verdict


def test_counts_are_told_in_words():
    tenth = PERCENT.counted(0.1)
    assert untrained(0, 0, "8 runs", tenth) == []
    assert untrained(0, 1, "8 runs", tenth) == ["1 of the 8 runs failed to train and counts at chance accuracy (10 %)"]
    assert untrained(2, 0, "8 runs", tenth) == ["2 of the 8 runs diverged and count at chance accuracy (10 %)"]


# Chosen rates at an end of those offered


def at_rates(schedule, best, rates=(0.03, 0.1, 0.3)):
    rows = [steady(schedule, 0.9)[:0]]
    for rate in rates:
        rows.append(runs(schedule, [0.9, 0.91], rate=rate, validation=0.95 if rate == best else 0.9))
    return [row for group in rows for row in group]


@pytest.mark.parametrize(
    ("best", "rates", "edge"),
    [
        (0.3, (0.03, 0.1, 0.3), "largest"),
        (0.03, (0.03, 0.1, 0.3), "smallest"),
        (0.1, (0.03, 0.1, 0.3), None),
        (0.1, (0.1,), None),
    ],
)
def test_a_chosen_rate_at_an_end_of_those_offered_is_marked(best, rates, edge):
    result = answer(records(at_rates("every-1", best, rates), at_rates("every-2", 0.1)))
    assert by_name(result)["every-1"].rate_edge == edge
    assert by_name(result)["every-2"].rate_edge is None
    clause = f"the best rate of ordinary training (K = 1) is the {edge} offered, {best:g}"
    assert (clause in result.verdict) == (edge is not None)


def test_other_schedules_at_an_end_are_counted():
    middle = at_rates("every-1", 0.1)
    some = answer(records(middle, at_rates("every-2", 0.3), at_rates("every-4", 0.1))).verdict
    assert "; the best rate of 1 of 2 other schedules is the largest offered" in some
    all_ = answer(records(at_rates("every-1", 0.3), at_rates("every-2", 0.3))).verdict
    assert "is the largest offered, 0.3, as that of every other schedule is: larger ones might serve better" in all_


# The results of the docs


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_no_published_run_that_ended_as_a_constant_counts_as_trained(folder):
    """Accuracy at chance and the loss of a constant, on training batches or on test data."""
    spec, result, frame = stored_study(folder)
    last = frame.filter(pl.col("step") == pl.col("step").max().over(_name(frame)))
    loss = "cross-entropy" if isinstance(spec, GridSpec) else "squared-error"
    constant, chance = LN10 if loss == "cross-entropy" else 0.45, 0.15
    if set(last["num_classes"]) != {10}:  # of newer records, which hold the constant predictor's loss and accuracy
        constant, chance = last["constant_loss"][0], 1.05 * last["constant_accuracy"][0]
    ended_so = last.filter(trained())
    assert ended_so.filter(pl.col("train_loss") > 0.99 * constant).is_empty()
    if "test_loss" in last.columns:
        as_constant = (pl.col("test_accuracy") < chance) & ((pl.col("test_loss") / constant - 1).abs() < 0.01)
        assert ended_so.filter(as_constant).is_empty()
    not_trained = last.filter(~trained())
    if hasattr(result, "equal_distance") and result.equal_distance:
        return  # runs of both comparisons are in the records
    counted = result.num_diverged + result.num_failed
    assert counted == not_trained.filter(_counted(last)).height


def _name(frame):
    names = ("way", "number", "width", "schedule", "learning_rate", "run_steps", "seed")
    return [name for name in names if name in frame.columns]


def _counted(last):
    """All runs, of the interpolation study those of a period."""
    return (
        pl.col("way") == "every" if "limit" in last.get_column("way", default=pl.Series([""])) else pl.lit(value=True)
    )
