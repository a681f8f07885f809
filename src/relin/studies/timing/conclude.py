"""The timing study: the same number of feature updates spent early, late, evenly, geometrically or adaptively."""

import polars as pl

from relin.studies.timing.result import Placement, TimingResult
from relin.studies.timing.settings import TimingSpec
from relin.study._outcomes import Compared, compare_by
from relin.study._schedules import WhenError
from relin.study._settings import Comparison
from relin.study._verdict import count, criterion, no_answer, outcome_clauses


def conclude(spec: TimingSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> TimingResult:
    """How each placement of N feature updates came out, and which is best.

    Of the adaptive schedules, the one that spends most updates on average but at most N stands for N. Placements are
    compared with the even one seed by seed, without correction for the number of comparisons.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    compared = compare_by(spec, records["equal-steps"], chance)
    placements = [placement for budget in spec.feature_updates for placement in _placements(spec, compared, budget)]
    result = TimingResult(
        **compared.shared,
        placements=placements,
        best={},
    )
    best = {budget: _best(result, budget).placement for budget in spec.feature_updates}
    result = result.model_copy(update={"best": best})
    return result.model_copy(update={"verdict": _verdict(result)})


def _placements(spec: TimingSpec, compared: Compared, budget: int) -> list[Placement]:
    schedules: dict[str, str] = {place: f"{place}-{budget}" for place in spec.placements}
    adaptive = _adaptive(spec, compared, budget)
    if adaptive is not None:
        schedules["adaptive"] = adaptive
    even = schedules.get("even")
    return [_placement(compared, budget, place, schedule, even) for place, schedule in schedules.items()]


def _adaptive(spec: TimingSpec, compared: Compared, budget: int) -> str | None:
    outcomes = [compared.outcome(WhenError(tolerance).name) for tolerance in spec.tolerances]
    within = [outcome for outcome in outcomes if outcome is not None and 0 < outcome.feature_updates <= budget]
    return max(within, key=lambda outcome: outcome.feature_updates).schedule if within else None


def _placement(compared: Compared, budget: int, place: str, schedule: str, even: str | None) -> Placement:
    outcome = compared.outcome(schedule)
    assert outcome is not None, schedule
    differences = None if even is None or schedule == even else compared.versus(schedule, even)
    return Placement(
        budget=budget,
        placement=place,
        schedule=schedule,
        feature_updates=outcome.feature_updates,
        versus_even=None if differences is None else compared.interval(differences),
    )


def _best(result: TimingResult, budget: int) -> Placement:
    own = [placement for placement in result.placements if placement.budget == budget]
    return max(own, key=lambda placement: _accuracy(result, placement))


def _accuracy(result: TimingResult, placement: Placement) -> float:
    outcome = result.outcome(placement.schedule)
    assert outcome is not None, placement.schedule
    return outcome.test_accuracy.mean


def _verdict(result: TimingResult) -> str:
    if not result.is_comparable:
        return no_answer(result)
    clauses = [_clause(result, budget) for budget in result.best]
    text = f"On {result.data}, {'; '.join([*clauses, *outcome_clauses(result)])}"
    return f"{text} (differences to the even placement with 95 % intervals, {criterion(result)})."


def _clause(result: TimingResult, budget: int) -> str:
    """Which placement is best, and how sure that is."""
    best = _best(result, budget)
    outcome, ordinary = result.outcome(best.schedule), result.outcome("every-1")
    assert outcome is not None, best
    assert ordinary is not None, "K = 1"
    scale = result.scale
    reached, whole = (scale.told(o.test_accuracy.mean) for o in (outcome, ordinary))
    spent = "" if best.placement != "adaptive" else f" ({best.feature_updates:.4g} of them)"
    text = f"{count(budget, 'feature update')} in {result.num_steps} steps {'is' if budget == 1 else 'are'} best spent "
    text += f"{_WORDS[best.placement]}{spent}, {reached} against {whole} of ordinary training"
    if best.versus_even is not None:
        gain = best.versus_even
        sure = "" if gain.low > 0 else ", which contains zero"
        above = "better than" if scale.turned else "above"
        text += f", {scale.in_points(scale.gain(gain.mean))} {above} evenly "
        text += f"[{scale.gain(gain.low)}, {scale.gain(gain.high)}]{sure}"
    return text + (", on par with it" if outcome.on_par else "")


_WORDS = {
    "early": "early, one a step from the start",
    "even": "evenly",
    "geometric": "geometrically",
    "late": "late, one a step at the end",
    "adaptive": "adaptively",
}
