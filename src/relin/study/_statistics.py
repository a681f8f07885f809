"""Intervals, the test of *not worse by more than a margin*, and Holm's correction; one value per seed."""

import math

import numpy as np
import scipy.special
from jaxtyping import Float

from relin.study._interval import Interval
from relin.study._scale import RESOLUTION

INTERVAL_CONFIDENCE = 0.95
"""Of the two-sided intervals of means and differences."""


def mean_interval(values: Float[np.ndarray, " n"], confidence: float, resolution: float = RESOLUTION) -> Interval:
    """Mean with its two-sided Student-t confidence interval.

    **Arguments:**

    - `values`: n ≥ 2 independent values, one per seed.
    - `confidence`: probability that the interval covers the mean, such as 0.95.
    - `resolution`: values nearer to each other than this are equal; that of accuracies by default.

    **Returns:** the interval; it has no width where all values are equal.
    """
    mean, error, freedom = _mean_and_error(values, resolution)
    reach = _quantile((1 + _probability(confidence)) / 2, freedom) * error
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


def finite_interval(values: Float[np.ndarray, " n"]) -> Interval | None:
    """Mean and two-sided interval of the values that are finite; none of fewer than two."""
    known = known_interval(values)
    return known if math.isfinite(known.low) else None


def known_interval(values: Float[np.ndarray, " n"], resolution: float = RESOLUTION) -> Interval:
    """The same with NaN for what is not known: the ends where one value is finite, all where none is.

    **Arguments:**

    - `values`: one per seed.
    - `resolution`: values nearer to each other than this are equal.
    """
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    if finite.size >= 2:
        return mean_interval(finite, INTERVAL_CONFIDENCE, resolution)
    return Interval(mean=float(finite[0]) if finite.size else math.nan, low=math.nan, high=math.nan)


def lower_bound(values: Float[np.ndarray, " n"], confidence: float, resolution: float = RESOLUTION) -> float:
    """One-sided lower confidence bound of the mean: mean − t_{confidence, n−1} s/√n.

    It lies above −margin exactly where `p_value_not_worse` lies below 1 − confidence.

    **Arguments:**

    - `values`: n ≥ 2 independent values, one per seed.
    - `confidence`: probability that the mean lies above the bound, such as 0.95.
    - `resolution`: values nearer to each other than this are equal; that of accuracies by default.
    """
    mean, error, freedom = _mean_and_error(values, resolution)
    return mean - _quantile(_probability(confidence), freedom) * error


def p_value_not_worse(differences: Float[np.ndarray, " n"], margin: float, resolution: float = RESOLUTION) -> float:
    """p-value of H₀: *the mean difference is −margin or less*, by the one-sided paired t-test.

    A small value shows non-inferiority: whatever is lost is less than the margin. Where all differences are
    equal, the test takes its limit for a vanishing spread: 0 if they lie above −margin, else 1 (at −margin
    itself H₀ holds).

    **Arguments:**

    - `differences`: n ≥ 2 paired differences, the candidate minus the reference, one per seed.
    - `margin`: the largest acceptable loss, in the unit of the differences.
    - `resolution`: differences nearer to each other than this are equal; that of accuracies by default.
    """
    mean, error, freedom = _mean_and_error(differences, resolution)
    above = mean + margin
    if error == 0.0:
        return 0.0 if above > resolution else 1.0
    return float(scipy.special.stdtr(freedom, -above / error))


def holm(p_values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Holm's step-down adjustment: rejecting where it is below α keeps the family-wise error below α.

    No independence is assumed, which matters here: all differences share the runs of K = 1.
    (Holm 1979, *A simple sequentially rejective multiple test procedure*, Scand. J. Statist. 6, 65–70.)

    **Arguments:**

    - `p_values`: one per hypothesis of the family, in any order; the family may be empty.

    **Returns:** adjusted p-values in the same order, at least as large as the raw ones and at most 1.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise ValueError(f"Expected p-values between 0 and 1, got {p_values}; please correct the test behind them.")
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def _mean_and_error(values: Float[np.ndarray, " n"], resolution: float = RESOLUTION) -> tuple[float, float, int]:
    """Mean, its standard error s/√n (0 where all values are equal) and degrees of freedom n − 1."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"Expected at least 2 finite values in one dimension, got {values.tolist()}; "
            "please run more seeds and count diverged runs at chance accuracy."
        )
    error = 0.0 if np.ptp(values) <= resolution else float(np.std(values, ddof=1)) / values.size**0.5
    return float(np.mean(values)), error, values.size - 1


def _quantile(probability: float, freedom: int) -> float:
    return float(scipy.special.stdtrit(freedom, probability))


def _probability(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(
            f"Expected a confidence between 0 and 1, got {confidence}; please give a fraction such as 0.95."
        )
    return confidence
