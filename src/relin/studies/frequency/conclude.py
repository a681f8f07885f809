"""The frequency study: which K are on par with ordinary training, and what suffices."""

import math
from typing import cast

import polars as pl

from relin.studies.frequency.result import FrequencyResult
from relin.studies.frequency.settings import FrequencySpec
from relin.studies.frequency.verdict import both_verdicts, tested_periods, told_of, verdict
from relin.study._condition import parse_condition
from relin.study._modifiers import Sparse
from relin.study._outcomes import Compared, compare_by
from relin.study._result import ScheduleOutcome
from relin.study._settings import Comparison


def conclude(spec: FrequencySpec, records: dict[Comparison, pl.DataFrame], chance: float) -> FrequencyResult:
    """The answer by the study's first comparison, with that of the other one beside it.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    first, *others = (
        frequency_result(compare_by(spec, records[comparison], chance, family, comparison), comparison)
        for comparison in spec.comparisons
    )
    if not others:
        return first
    return first.model_copy(update={"equal_distance": others[0], "verdict": both_verdicts(first, others[0])})


def frequency_result(compared: Compared, comparison: Comparison = "equal-steps") -> FrequencyResult:
    """Answer *how rarely can features be updated without loss?* from one comparison.

    The periods other than 1, K = ∞ included, form one family of Holm's correction; the periods of the preset form
    another, and all other schedules a third, because K* rests on the first alone and should not depend on what else was
    tried. `k_star` is 1 where the smallest K tested is not on par, and none where no K above 1 was tested or no run of
    K = 1 trained: being on par with a failure would say nothing.

    With `equal-distance` the feature updates that suffice are the mean number of K*'s runs instead of ⌈T/K*⌉ − 1.

    **Arguments:**

    - `compared`: its schedules corrected by `family`.
    - `comparison`: of its runs.
    """
    outcomes = compared.outcomes
    k_star = _k_star(tested_periods(outcomes))
    steps = compared.shared["num_steps"]
    updates = None if k_star is None else _feature_updates(steps, k_star)
    if k_star is not None and comparison == "equal-distance":
        star = next(outcome for outcome in outcomes if outcome.period == k_star)
        steps, updates = _longest(compared, star), round(star.feature_updates)
    result = FrequencyResult(
        **compared.shared,
        comparison=comparison,
        k_star=k_star,
        sufficient_feature_updates=updates,
        fewest_updates=_fewest(outcomes),
    )
    told = told_of(result)
    longest = steps if told is None else _longest(compared, told)
    return result.model_copy(update={"verdict": verdict(result, steps, compared.num_paired[1], longest)})


def family(schedule: str) -> str:
    """What a schedule is corrected with: the K, those of the preset, or all else."""
    try:
        condition = parse_condition(schedule)
    except ValueError:
        return "other"
    if condition.period is not None:
        return "periods"
    return "sparse" if condition.modifiers == (Sparse(),) else "other"


def _longest(compared: Compared, outcome: ScheduleOutcome) -> int:
    """Steps of the longest run of a schedule at its chosen rate."""
    return int(cast(int, compared.chosen[outcome.schedule]["step"].max()))


def _fewest(outcomes: list[ScheduleOutcome]) -> str | None:
    """The schedule with the fewest feature updates of those on par, of any kind; none if none is."""
    on_par = [outcome for outcome in outcomes if outcome.on_par]
    return min(on_par, key=lambda outcome: outcome.feature_updates).schedule if on_par else None


def _k_star(tested: list[ScheduleOutcome]) -> float | None:
    """Largest K that is on par together with every smaller one tested; 1 is on par with itself."""
    if not tested or tested[0].on_par is None:
        return None
    k_star = 1.0
    for outcome in tested:
        if not outcome.on_par or outcome.period is None:
            break
        k_star = outcome.period
    return k_star


def _feature_updates(num_steps: int, period: float) -> int:
    """Re-linearisations after step 0 of T steps: ⌈T/K⌉ − 1, and none for K = ∞."""
    return 0 if math.isinf(period) else math.ceil(num_steps / period) - 1
