"""What the interpolation study concluded, in words."""

import math

from relin.studies.interpolation.result import InterpolationResult
from relin.study._result import Interval
from relin.study._statistics import INTERVAL_CONFIDENCE
from relin.study._verdict import count, untrained


def interpolation_verdict(result: InterpolationResult) -> str:
    """The answer in one sentence, its conditions after semicolons."""
    if result.ends_apart is None:
        seeds = count(result.num_seeds, "seed")
        return (
            f"On {result.data}, ordinary training diverged in {result.num_ordinary_diverged} of {seeds}, at "
            f"{result.rate:g} of the largest stable rate, so that there is too little to compare with; lower `rate`."
        )
    clauses = [
        f"On {result.data}, {_ends(result)}",
        _between(result),
        _half_way(result),
        f"test accuracy goes from {_percent(result.ordinary_accuracy)} to {_percent(result.regression_accuracy)}, "
        f"and is highest at K = {_highest(result)}",
    ]
    clauses += untrained(
        result.num_diverged, result.num_failed, f"{result.num_runs} runs", result.scale.counted(result.chance)
    )
    seeds = count(result.num_seeds, "paired seed")
    return f"{'; '.join(clauses)} ({100 * INTERVAL_CONFIDENCE:g} % intervals over {seeds})."


def _ends(result: InterpolationResult) -> str:
    first, last = result.coincide
    steps = f"after {result.num_steps:,} steps"
    ordinary = f"K = 1 {_is(first)} ordinary training (relative distance {_exact(result.at_ordinary)})"
    regression = f"K = ∞ {_is(last)} NTK regression ({_exact(result.at_regression)}) {steps}"
    return f"{ordinary} and {regression}"


def _is(same: bool) -> str:
    return "is" if same else "is not"


def _between(result: InterpolationResult) -> str:
    if not result.compared:
        return "too few runs ended without diverging to say what is between"
    far, near, all_ = result.farther, result.nearer, result.compared
    steadily = far == near == all_
    how = "K interpolates steadily" if steadily else "K does not interpolate steadily"
    return (
        f"between them {how}: from one K to the next the predictor moves away from ordinary training {far} times of "
        f"{all_}, and towards NTK regression {near} times"
    )


def _half_way(result: InterpolationResult) -> str:
    if result.half_way is None:
        return "no K is nearer to NTK regression than to ordinary training"
    k = "∞" if math.isinf(result.half_way) else f"{result.half_way:,.0f}"
    return f"the smallest K nearer to NTK regression than to ordinary training is {k}"


def _highest(result: InterpolationResult) -> str:
    best = max(result.periods, key=lambda p: p.test_accuracy.mean)
    k = "∞" if math.isinf(best.period) else f"{best.period:,.0f}"
    return f"{k}, {_percent(best.test_accuracy)}"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _exact(value: float) -> str:
    """A relative distance: 0, or one digit and a power of ten."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "not finite"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}·10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
