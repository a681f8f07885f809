"""How scores are read: units, digits and words, and what counts as a difference."""

import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from frequency_records import records, runs

from relin.study._measured import interval_of
from relin.study._outcomes import compare
from relin.study._result import Interval
from relin.study._scale import R_SQUARED, Scale, tick
from relin.study._verdict import in_measure

SECONDS = Scale("MAE", "s", "lower", 0.05)


@pytest.mark.parametrize(
    ("scale", "value", "margin"),
    [
        (Scale("MAE", "s", "lower", 0.05), "0.312 s", "0.05 s"),
        (Scale("bits", "bits", "lower", 2.0), "0.3 bits", "2 bits"),
        (Scale("ρ", "", "lower", 0.004), "0.3123", "0.004"),
        (Scale("F1", "%", "higher", 0.01), "−31.23 %", "1 percentage point"),
    ],
)
def test_digits_follow_from_the_margin(scale, value, margin):
    assert (scale.told(-0.31234), scale.margin_words()) == (value, margin)


def test_names_with_the_word_in_them_are_put_in_once():
    once = in_measure("Test accuracy of K = 1", "top-5 accuracy")
    assert once == in_measure(once, "top-5 accuracy") == "Test top-5 accuracy of K = 1"


def test_digits_of_units_of_ones_own_show_the_margin_wherever_they_stand():
    assert SECONDS.told(-0.31234, 1) == SECONDS.told(-0.31234) == "0.312 s"


def test_zero_has_no_sign():
    assert [tick(value) for value in (-0.0, 0.0, -1.5)] == ["0", "0", "−1.5"]


@pytest.mark.parametrize(
    ("scale", "chance", "told"),
    [
        (SECONDS, -0.9, "MAE 0.900 s, which stands for a run that did not train"),
        (Scale(R_SQUARED), 0.0, "R² = 0, the constant predictor’s"),
        (Scale(), 0.1, "chance accuracy (10 %)"),
    ],
)
def test_what_runs_that_did_not_train_count_at(scale, chance, told):
    assert scale.counted(chance) == told


def test_an_interval_with_the_other_sign_has_its_ends_exchanged():
    assert SECONDS.own(Interval(mean=1.0, low=0.5, high=2.0)) == Interval(mean=-1.0, low=-2.0, high=-0.5)


def of_values(error, half=0.5):
    """R² of runs whose error is about this, and of others whose error is `half` of it."""
    parts = np.random.default_rng(0).normal(1.0, 0.02, (2, 6)) * [[1.0], [half]]
    rows = [runs(name, list(1 - error * own)) for name, own in zip(("every-1", "every-4"), parts, strict=True)]
    return parts, records(*rows).with_columns(measure=pl.lit(R_SQUARED))


@pytest.mark.parametrize("error", [1e-3, 1e-6, 1e-9])
def test_small_errors_of_values_are_told_apart(error):
    """A test on the errors, each as a part of ordinary training's, does not depend on how large they are."""
    parts, frame = of_values(error, half=1.04)
    compared = compare(frame, margin=0.05, confidence=0.95, chance=0.0)
    worse, reference = (parts[1] - parts[0]) / parts[0].mean(), scipy.stats.ttest_1samp
    outcome = compared.outcomes[1]
    assert outcome.p_value == pytest.approx(reference(worse, 0.05, alternative="less").pvalue, rel=1e-3)
    interval = reference(worse, 0).confidence_interval(0.95)
    found = np.array([-outcome.difference.high, -outcome.difference.low]) / (error * parts[0].mean())
    np.testing.assert_allclose(found, interval, rtol=1e-3)
    differences = compared.versus("every-4", "every-1")
    assert compared.p_value(differences) == outcome.p_value
    assert compared.interval(differences) == outcome.difference


def test_a_difference_far_below_the_margin_is_none():
    tied = records(runs("every-1", [0.5, 0.5 + 1e-9, 0.5]), runs("every-4", [0.5, 0.5, 0.5 + 1e-9]))
    outcome = compare(tied.with_columns(measure=pl.lit(R_SQUARED)), margin=0.05, confidence=0.95, chance=0.0).outcomes[
        1
    ]
    assert (outcome.p_value, outcome.difference.low) == (0.0, outcome.difference.high)


@pytest.mark.parametrize("error", [1e-3, 1e-9])
def test_intervals_without_a_margin_of_small_errors(error):
    parts, frame = of_values(error)
    for values, near in ((1 - error * parts[0], None), (error * (parts[0] - parts[1]), 1 - error * parts[1])):
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        found = interval_of(values, frame, near)
        assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=1e-3)
    tied = interval_of(np.array([0.5, 0.5 + 1e-9, 0.5]), frame)
    assert tied.low == tied.high
    assert math.isclose(tied.mean, 0.5, abs_tol=1e-8)
