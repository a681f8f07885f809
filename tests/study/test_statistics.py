import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from relin.study._statistics import holm, known_interval, lower_bound, mean_interval, p_value_not_worse

P_VALUES = hnp.arrays(np.float64, st.integers(0, 12), elements=st.floats(0, 1))


def closed_holm(p_values):
    """Holm by the closure principle: the largest Bonferroni p-value of all subfamilies a hypothesis is in."""
    m = len(p_values)
    subsets = [[i for i in range(m) if mask >> i & 1] for mask in range(1, 2**m)]
    bonferroni = [min(1.0, len(subset) * min(p_values[i] for i in subset)) for subset in subsets]
    return [max(b for b, subset in zip(bonferroni, subsets, strict=True) if i in subset) for i in range(m)]


@pytest.mark.parametrize("n", [2, 3, 12, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_interval_and_bound_agree_with_scipy(n, confidence):
    values = np.random.default_rng(n).normal(-0.3, 2.0, n)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    interval = mean_interval(values, confidence)
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], rtol=1e-10)
    np.testing.assert_allclose(interval.mean, math.fsum(values) / n, rtol=1e-12)
    one_sided = scipy.stats.ttest_1samp(values, 0.0, alternative="greater").confidence_interval(confidence)
    np.testing.assert_allclose(lower_bound(values, confidence), one_sided.low, rtol=1e-10)


def test_interval_of_what_is_known():
    values = np.random.default_rng(0).normal(size=7)
    expected = scipy.stats.t.interval(0.95, 6, loc=values.mean(), scale=scipy.stats.sem(values))
    interval = known_interval(np.append(values, [np.nan, np.inf]))
    np.testing.assert_allclose((interval.mean, interval.low, interval.high), (values.mean(), *expected), rtol=1e-10)
    one, none = known_interval(np.array([1.0, np.nan])), known_interval(np.array([np.nan]))
    assert one.mean == 1.0
    assert np.isnan([one.low, one.high, none.mean, none.low, none.high]).all()


def test_accuracies_are_equal_sooner_than_other_numbers():
    values = 1e-9 * np.array([1.0, 2.0, 3.0])
    assert known_interval(values).low == known_interval(values).high
    interval = known_interval(values, resolution=0.0)
    expected = scipy.stats.t.interval(0.95, 2, loc=2e-9, scale=scipy.stats.sem(values))
    np.testing.assert_allclose((interval.low, interval.high), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("margin", [0.0, 0.01, 0.5])
def test_p_value_agrees_with_scipy_paired_t_test(n, margin):
    rng = np.random.default_rng(n)
    reference, candidate = rng.normal(0.9, 0.02, n), rng.normal(0.89, 0.03, n)
    expected = scipy.stats.ttest_rel(candidate + margin, reference, alternative="greater").pvalue
    np.testing.assert_allclose(p_value_not_worse(candidate - reference, margin), expected, rtol=1e-10)


def test_example_by_hand():
    # Mean 0.02, s = 0.01, standard error 0.01/√3; with 2 degrees of freedom the t-distribution function is
    # ½ + t/(2√(2 + t²)) and its 95 % quantile 2.91999.
    values = np.array([0.01, 0.02, 0.03])
    error = 0.01 / math.sqrt(3)
    np.testing.assert_allclose(lower_bound(values, 0.95), 0.02 - 2.9199855804 * error, rtol=1e-9)
    t = 0.03 / error
    np.testing.assert_allclose(p_value_not_worse(values, 0.01), 0.5 - t / (2 * math.sqrt(2 + t**2)), rtol=1e-10)


@given(
    hnp.arrays(np.float64, st.integers(2, 20), elements=st.floats(-1, 1)),
    st.floats(0, 0.5),
    st.floats(0.5, 0.999),
)
def test_bound_and_p_value_decide_alike(differences, margin, confidence):
    bound = lower_bound(differences, confidence)
    if abs(bound + margin) > 1e-6:
        assert (bound > -margin) == (p_value_not_worse(differences, margin) < 1 - confidence)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([0.0, 0.0, 0.0], 0.0),
        ([-0.0099, -0.0099], 0.0),
        ([-0.0101, -0.0101], 1.0),
        ([-0.01, -0.01, -0.01], 1.0),
        ([0.98 - 0.99, 0.97 - 0.98, 0.58 - 0.59], 1.0),  # −0.01 up to rounding, which must not decide
        ([np.float32(0.98) - np.float32(0.99), np.float32(0.17) - np.float32(0.18)], 1.0),
    ],
)
def test_without_spread_the_common_value_decides(differences, p_value):
    differences = np.array(differences, dtype=np.float64)
    assert p_value_not_worse(differences, 0.01) == p_value
    interval = mean_interval(differences, 0.95)
    assert interval.low == interval.mean == interval.high == lower_bound(differences, 0.95)


def test_small_spread_approaches_the_limits():
    spread = 1e-6 * np.array([-1.0, 0.0, 1.0])
    assert p_value_not_worse(-0.005 + spread, 0.01) < 1e-6
    assert p_value_not_worse(-0.015 + spread, 0.01) > 1 - 1e-6


@pytest.mark.parametrize("values", [[], [0.1], [0.1, math.nan], [0.1, math.inf], [[0.1, 0.2], [0.3, 0.4]]])
def test_too_few_or_unusable_values_are_refused(values):
    for statistic in (mean_interval, lower_bound, p_value_not_worse):
        with pytest.raises(ValueError, match=r"at least 2 finite values in one dimension, got .*; please run more"):
            statistic(np.array(values), 0.95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_outside_the_unit_interval_is_refused(confidence):
    for statistic in (mean_interval, lower_bound):
        with pytest.raises(ValueError, match=r"confidence between 0 and 1, got .* fraction such as 0.95"):
            statistic(np.array([0.1, 0.2]), confidence)


def test_holm_example_by_hand():
    # Sorted: 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; never decreasing: 0.06 last.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    np.testing.assert_array_equal(holm(np.array([0.6, 0.9])), [1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 7), elements=st.floats(0, 1)))
def test_holm_is_the_closure_of_bonferroni(p_values):
    np.testing.assert_allclose(holm(p_values), closed_holm(p_values.tolist()), rtol=1e-12)


@given(P_VALUES)
def test_holm_lies_between_raw_and_bonferroni_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert np.all(adjusted >= p_values)
    assert np.all(adjusted <= np.minimum(1, p_values.size * p_values))
    assert np.all(np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0)


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order_of_hypotheses(p_values, random):
    permutation = list(range(p_values.size))
    random.shuffle(permutation)
    np.testing.assert_array_equal(holm(p_values[permutation]), holm(p_values)[permutation])


@given(P_VALUES, st.data())
def test_holm_grows_with_every_p_value(p_values, data):
    larger = np.array([data.draw(st.floats(float(p), 1.0)) for p in p_values])
    assert np.all(holm(larger) >= holm(p_values))


@pytest.mark.parametrize("p_values", [[0.1, math.nan], [-0.1], [1.1]])
def test_holm_refuses_what_is_no_p_value(p_values):
    with pytest.raises(ValueError, match="p-values between 0 and 1, got"):
        holm(np.array(p_values))


def simulated_p_values(trials, num_tested, loss, *, num_seeds=12, spread=0.01, margin=0.01, seed=0):
    """Trials × K p-values of a simulated study; all K are compared with the same runs of K = 1."""
    rng = np.random.default_rng(seed)
    ordinary = rng.normal(0.9, spread, (trials, 1, num_seeds))
    rarer = rng.normal(0.9 - loss, spread, (trials, num_tested, num_seeds))
    differences = (rarer - ordinary).reshape(-1, num_seeds)
    return np.array([p_value_not_worse(row, margin) for row in differences]).reshape(trials, num_tested)


def binomial_range(trials, probability):
    return scipy.stats.binom.ppf([1e-4, 1 - 1e-4], trials, probability)


@pytest.mark.parametrize("num_seeds", [2, 5, 12])
def test_a_loss_of_exactly_the_margin_passes_in_five_percent_of_trials(num_seeds):
    rejected = np.sum(simulated_p_values(8000, 1, loss=0.01, num_seeds=num_seeds, seed=num_seeds) < 0.05)
    low, high = binomial_range(8000, 0.05)
    assert low <= rejected <= high


def test_holm_keeps_the_family_wise_error():
    trials = 2500
    p_values = simulated_p_values(trials, 8, loss=0.01, seed=1)
    _, high = binomial_range(trials, 0.05)
    corrected = sum(bool(np.any(holm(row) < 0.05)) for row in p_values)
    uncorrected = np.sum(np.any(p_values < 0.05, axis=1))
    assert corrected <= high
    assert uncorrected > high  # so the study is one in which an uncorrected test would be found out


def test_no_loss_is_shown_with_high_power():
    # True difference 0, spread of the differences √2·0.003: the margin is 8 standard errors away.
    p_values = simulated_p_values(200, 8, loss=0.0, spread=0.003, seed=2)
    assert np.mean([np.all(holm(row) < 0.05) for row in p_values]) > 0.99
