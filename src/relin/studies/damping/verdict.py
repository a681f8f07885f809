"""What the damping study concluded, in words."""

from relin.studies.damping.result import Choice, DampingResult, Ridge
from relin.study._result import Interval
from relin.study._scale import PERCENT
from relin.study._statistics import INTERVAL_CONFIDENCE
from relin.study._verdict import count, untrained


def damping_verdict(result: DampingResult) -> str:
    """The answer in one sentence, its conditions after semicolons."""
    ridges = [_ridge(ridge, result) for ridge in result.ridges]
    clauses = [
        f"On {result.data}, {ridges[0]}",
        *ridges[1:],
        _generalises(result),
        _kernel(result),
    ]
    clauses += untrained(
        result.num_diverged, result.num_failed, f"{result.num_runs} runs", result.scale.counted(result.chance)
    )
    seeds = count(result.num_seeds, "paired seed")
    return f"{'; '.join(clauses)} ({100 * INTERVAL_CONFIDENCE:g} % intervals over {seeds})."


def _ridge(ridge: Ridge, result: DampingResult) -> str:
    steps = count(ridge.after, "outer step")
    if ridge.slope is None or ridge.factor is None:
        return f"too few runs ended without diverging to say which damping a period is after {steps}"
    whether = "acts" if ridge.along_the_line else "does not act"
    factor = Interval(**{name: 2**value for name, value in ridge.factor.model_dump().items()})
    lines = [interval.mean for interval in ridge.on_line if interval is not None]
    ends = f"{100 * min(lines):.2g} to {100 * max(lines):.2g} %" if lines else ""
    apart = f", {ends} of the movement apart" if lines else ""
    return (
        f"after {steps} period K {whether} like Gauss–Newton damped by about 1/(ηK){apart}: the nearest is 1/(ηκ) with "
        f"κ = {rounded(factor)} K, growing as K to the power {rounded(ridge.slope)}"
    )


def _generalises(result: DampingResult) -> str:
    newton = result.gauss_newton
    return f"nearly undamped Gauss–Newton {_against_best(newton)}; {_descent(result.descent)}"


def _against_best(choice: Choice) -> str:
    if choice.best == choice.least:
        return "is the best on validation data"
    low, high = choice.difference.low, choice.difference.high
    apart = PERCENT.gain(abs(choice.difference.mean))
    interval = f"{apart} points [{PERCENT.gain(low)}, {PERCENT.gain(high)}]"
    if high < 0:
        return f"generalises worse than at its best damping, by {interval}"
    if low > 0:
        return f"generalises better than at the damping that validation data choose, by {interval}"
    return f"does not generalise worse than at its best damping, {interval} apart"


def _descent(choice: Choice) -> str:
    return f"the largest K {_against_best(choice).replace('damping', 'K')}"


def _kernel(result: DampingResult) -> str:
    newton = result.of("gauss-newton")
    least = newton[-1].kernel_distance
    known = [run for run in newton if run.kernel_distance is not None]
    if least is None or not known:
        return "too few undamped runs ended without diverging to say how they move the NTK"
    most = max(known, key=lambda run: run.kernel_distance.mean if run.kernel_distance else 0.0)
    largest = most.kernel_distance or least
    if most.number == newton[-1].number:
        return f"undamped Gauss–Newton moves the NTK more than any damped one, to a distance of {rounded(least)}"
    return (
        f"undamped Gauss–Newton moves the NTK to a distance of {rounded(least)}, the damping that moves "
        f"it most (κ = {most.number:g}) to {rounded(largest)}"
    )


def rounded(interval: Interval) -> str:
    return f"{interval.mean:.2g} [{interval.low:.2g}, {interval.high:.2g}]".replace("-", "−")
