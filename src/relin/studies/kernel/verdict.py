"""What the studies of the kernel concluded, in words."""

import math

from relin.studies.kernel.result import FrozenKernel, KernelOutcome, KernelResult
from relin.study._kernel import constancy_clause, violated
from relin.study._statistics import INTERVAL_CONFIDENCE
from relin.study._verdict import count, outcome_clauses, spelled

_NEARLY = 0.01
"""Of the relative change: a kernel that moved by less is nearly constant."""


def kernel_verdict(result: KernelResult) -> str:
    """The answer in one sentence, its conditions after semicolons; a violated constancy comes first."""
    ordinary = result.kernel("every-1")
    clauses = [
        f"On {result.data}, {_ordinary(ordinary)}",
        *_rarer(result),
        constancy_clause(result.constancy),
        *(_frozen(result, frozen) for frozen in result.frozen),
        *outcome_clauses(result),
    ]
    text = "; ".join(clauses)
    interval = f"{100 * INTERVAL_CONFIDENCE:g} % intervals over {result.num_seeds} paired seeds"
    return f"{violated(result.constancy)}{text} ({interval}; distance is 1 − ⟨K, K₀⟩/(‖K‖‖K₀‖))."


def _ordinary(kernel: KernelOutcome | None) -> str:
    if kernel is None or kernel.distance is None or kernel.change is None:
        return "fewer than two runs of ordinary training (K = 1) trained, so nothing is known of its NTK"
    if kernel.change.high == 0:
        return "the NTK stayed exactly constant in ordinary training"
    how = "stayed constant within 1 %" if kernel.change.high < _NEARLY else "did not stay constant"
    return (
        f"the NTK {how} in ordinary training: it ended at distance {spelled(kernel.distance)} from the initial one, "
        f"a relative change of {spelled(kernel.change)}"
    )


def _rarer(result: KernelResult) -> list[str]:
    """The largest finite K, and K = ∞."""
    clauses = []
    periods = [o for o in result.outcomes if o.period is not None and 1 < o.period < math.inf]
    if periods:
        kernel = result.kernel(periods[-1].schedule)
        if kernel is not None and kernel.distance is not None and kernel.change is not None:
            updates = count(periods[-1].feature_updates, "feature update")
            clauses.append(
                f"at K = {periods[-1].period:g} ({updates}) at {spelled(kernel.distance)}, "
                f"a change of {spelled(kernel.change)}"
            )
    lazy = result.kernel("never")
    if lazy is not None and lazy.change is not None:
        still = lazy.change.low == lazy.change.high == 0
        clauses.append("at K = ∞ it did not move at all" if still else f"at K = ∞ it changed by {spelled(lazy.change)}")
    return clauses


def _frozen(result: KernelResult, frozen: FrozenKernel) -> str:
    outcome = result.outcome(frozen.schedule)
    name = "" if frozen.schedule == "every-1" or outcome is None else f" from {outcome.label}"
    gain, last, scale = frozen.gain, frozen.steps[-1], result.scale
    first, reached = (scale.told(interval.mean) for interval in (frozen.accuracy[0], frozen.accuracy[-1]))
    measure = "" if result.measure == "accuracy" else f"{result.measure} of "
    if gain.low > 0:
        how = "do better"
    elif gain.high < 0:
        how = "do worse"
    else:
        how = "are not shown to do better"
    return (
        f"frozen kernels taken later{name} {how}: lazy training on the one of step {last:,} reaches "
        f"{measure}{reached} against {first} on the initial one, "
        f"a difference of {scale.in_points(scale.gain(gain.mean))} [{scale.gain(gain.low)}, {scale.gain(gain.high)}] "
        f"over {count(frozen.num_seeds, 'seed')}"
    )
