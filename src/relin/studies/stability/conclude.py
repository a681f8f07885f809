"""The stability study: up to which learning rate schedules and parts train, and what their feature updates bring."""

import math

import numpy as np
import polars as pl

from relin.studies.stability.result import RateLimit, StabilityResult
from relin.studies.stability.settings import StabilitySpec
from relin.study._condition import parse_condition
from relin.study._outcomes import Compared, compare_by
from relin.study._result import Interval, ScheduleOutcome
from relin.study._settings import Comparison
from relin.study._statistics import INTERVAL_CONFIDENCE, mean_interval
from relin.study._verdict import criterion, outcome_clauses


def conclude(spec: StabilitySpec, records: dict[Comparison, pl.DataFrame], chance: float) -> StabilityResult:
    """The largest learning rate at which every run of a schedule trained, beside 2/λ_max at its anchors.

    λ_max is the sharpness of the linearised problem, the largest eigenvalue of JᵀHJ at the anchor: gradient descent on
    it is stable below 2/λ_max, with momentum β below 2 (1 + β)/λ_max. Other optimisers are not held against it.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    own = records["equal-steps"]
    compared = compare_by(spec, own, chance, family=_family)
    rates = sorted(spec.learning_rates)
    at_start = own.filter(pl.col("step") == 0)["sharpness"]
    result = StabilityResult(
        **compared.shared,
        limits=[_limit(outcome, compared, own, rates, spec) for outcome in compared.outcomes],
        rates=rates,
        stable_rate_at_start=None if spec.momentum is None else float(np.mean(2 / at_start.to_numpy())),
        pareto=pareto_front(compared.outcomes),
    )
    return result.model_copy(update={"verdict": _verdict(result, spec)})


def _family(schedule: str) -> tuple[str, ...]:
    condition = parse_condition(schedule)
    return condition.kind, *(modifier.kind for modifier in condition.modifiers)


def pareto_front(outcomes: list[ScheduleOutcome]) -> list[str]:
    """Schedules whose mean test accuracy none reaches with as few or fewer feature updates; fewest updates first."""
    front, best = list[str](), -math.inf
    for outcome in sorted(outcomes, key=lambda o: (o.feature_updates, -o.test_accuracy.mean)):
        if outcome.test_accuracy.mean > best:
            front.append(outcome.schedule)
            best = outcome.test_accuracy.mean
    return front


def _limit(
    outcome: ScheduleOutcome, compared: Compared, records: pl.DataFrame, rates: list[float], spec: StabilitySpec
) -> RateLimit:
    runs = compared.runs.filter(schedule=outcome.schedule)
    at_rate = [runs.filter(learning_rate=rate) for rate in rates]
    counts = {
        how: [int(own[how].sum()) if own.height else None for own in at_rate]
        for how in ("diverged", "failed", "untrained")
    }
    trains = [rate for rate, untrained in zip(rates, counts["untrained"], strict=True) if untrained == 0]
    chosen = records.filter(schedule=outcome.schedule, learning_rate=outcome.learning_rate)
    return RateLimit(
        schedule=outcome.schedule,
        largest_rate=max(trains, default=None),
        num_diverged=counts["diverged"],
        num_failed=counts["failed"],
        num_runs=[own.height for own in at_rate],
        stable_rate=None if spec.momentum is None else _stable_rate(chosen),
    )


def _stable_rate(records: pl.DataFrame) -> Interval | None:
    """2/λ_max, with the largest finite λ_max that each seed's run recorded."""
    finite = records.filter(pl.col("sharpness").is_finite() & (pl.col("sharpness") > 0))
    largest = finite.group_by("seed").agg(pl.max("sharpness"))["sharpness"].sort().to_numpy()
    return mean_interval(2 / largest, INTERVAL_CONFIDENCE) if largest.size >= 2 else None


def _verdict(result: StabilityResult, spec: StabilitySpec) -> str:
    limits = {limit.schedule: limit for limit in result.limits}
    ordinary = limits["every-1"]
    if ordinary.largest_rate is None:
        return (
            f"On {result.data}, at no learning rate did every run of ordinary training (K = 1) train, so there is "
            "nothing to compare with and lower rates must be offered."
        )
    kinds = dict.fromkeys(_kind(outcome) for outcome in result.outcomes)
    parts = {kind: [o for o in result.outcomes if _kind(o) == kind] for kind in kinds}
    safe = [
        f"{name or 'a fixed K alone'} at {_share(own, limits, ordinary.largest_rate)}" for name, own in parts.items()
    ]
    best = [result.outcome(name) for name in result.pareto]
    front = ", ".join(
        f"{outcome.label} ({outcome.feature_updates:.4g}: {result.scale.told(outcome.test_accuracy.mean, 1)})"
        for outcome in best
        if outcome is not None
    )
    stable = ""
    if spec.momentum is not None:
        stable = (
            f", 2/λ_max at the initial parameters being {result.stable_rate_at_start:.3g} (times "
            f"{1 + spec.momentum:g} with momentum {spec.momentum:g})"
        )
    return (
        f"On {result.data}, ordinary training trains up to rate {ordinary.largest_rate:g}{stable}; as large "
        f"a rate trains for {', '.join(safe)} of the schedules tested; the Pareto front "
        f"of test accuracy against feature updates is {front}"
        f"{''.join(f'; {clause}' for clause in outcome_clauses(result))} ({criterion(result)})."
    )


def _kind(outcome: ScheduleOutcome) -> str:
    """The modifiers of a schedule, or the kind of an adaptive one; empty for plain periods between 1 and infinity."""
    condition = parse_condition(outcome.schedule)
    if condition.period is not None:
        return {1.0: "K = 1", float("inf"): "K = ∞"}.get(condition.period, "")
    return ", ".join(modifier.label for modifier in condition.modifiers) or "the adaptive schedule"


def _share(outcomes: list[ScheduleOutcome], limits: dict[str, RateLimit], rate: float) -> str:
    reached = [(limits[outcome.schedule].largest_rate or 0.0) >= rate for outcome in outcomes]
    return f"{sum(reached)} of {len(reached)}"
