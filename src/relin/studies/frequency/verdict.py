"""What the frequency study concluded, in words."""

import math

from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome
from relin.study._verdict import criterion, gap_clause, lazy_clause, no_answer, outcome_clauses


def tested_periods(outcomes: list[ScheduleOutcome]) -> list[ScheduleOutcome]:
    """The family K* is read from: every K but 1, in increasing order."""
    return [outcome for outcome in outcomes if outcome.period is not None and outcome.period != 1]


def told_of(result: FrequencyResult) -> ScheduleOutcome | None:
    """The schedule whose feature updates are told beside K*: that with the fewest on par, or where none is on par and
    no K above 1 was tested, the nearest to ordinary training."""
    if result.fewest_updates is not None or tested_periods(result.outcomes):
        return result.outcome(result.fewest_updates or "")
    others = [(o.difference.mean, o) for o in result.outcomes if o.difference is not None]
    return max(others, key=lambda pair: pair[0])[1] if others else None


def verdict(result: FrequencyResult, num_steps: int, most_paired: int, told_steps: int) -> str:
    """The answer of a study in one sentence.

    **Arguments:**

    - `result`: all that was concluded but the verdict.
    - `num_steps`: of the runs of K*.
    - `most_paired`: the most seeds any K has in common with K = 1; `result.num_seeds` are the fewest.
    - `told_steps`: of the runs of the schedule `told_of` the result.
    """
    tested, told = tested_periods(result.outcomes), told_of(result)
    if not result.is_comparable:
        return no_answer(result)
    equal = ", equal learning rate × steps" if result.comparison == "equal-distance" else ""
    rule = criterion(result, f"over {len(tested)} K" if tested else "", most_paired) + equal
    if tested:
        clauses = [f"On {result.data}, {_answer(result, tested, num_steps)} ({rule})"]
    elif told is None or told.difference is None:
        clauses = [f"On {result.data}, no K above 1 was tested, so nothing is known about rarer feature updates"]
    else:
        gap = gap_clause(-told.difference, result.scale)
        found, how = _without_periods(told, told_steps, alone=len(result.outcomes) == 2)
        clauses = [f"On {result.data}, {found} ({rule})", f"{how}{gap}"]
    if told is not None and told.period is None and told.feature_updates < (result.sufficient_feature_updates or 0):
        clauses.append(f"the fewest feature updates on par are those of {_with_updates(told, told_steps)}")
    if result.lazy_gap is not None and result.k_star is not None:
        clauses.append(lazy_clause(result.lazy_gap, result.scale))
    clauses += outcome_clauses(result)
    return "; ".join(clauses) + "."


def both_verdicts(equal_steps: FrequencyResult, equal_distance: FrequencyResult) -> str:
    """The answers of both comparisons, one sentence each."""
    return f"With equal steps: {equal_steps.verdict} With more steps at smaller rates: {equal_distance.verdict}"


def _without_periods(told: ScheduleOutcome, steps: int, alone: bool) -> tuple[str, str]:
    """What is shown where no schedule has a period, and of which one the difference is told next."""
    which = _with_updates(told, steps)
    if told.on_par:
        return f"the fewest feature updates on par with ordinary training are those of {which}", "with them "
    if alone:
        return f"the feature updates of {which}, were not shown to be on par with ordinary training", ""
    return "no schedule tested was shown to be on par with ordinary training", f"nearest is {which}: "


def _with_updates(told: ScheduleOutcome, steps: int) -> str:
    return f"{told.label}, {told.feature_updates:,.4g} in {steps} steps"


def _answer(result: FrequencyResult, tested: list[ScheduleOutcome], num_steps: int) -> str:
    updates = result.sufficient_feature_updates
    if result.k_star == 1:
        missed = (
            f"{tested[0].label}, the smallest K tested above 1, was not shown"
            if any(outcome.on_par for outcome in tested)
            else "no K tested above 1 was shown"
        )
        return f"K* = 1: {missed} to be on par, so all {updates} feature updates in {num_steps} steps stay"
    if result.k_star == math.inf:
        star = "∞"
    else:
        star = f"{result.k_star:.0f}" + (", the largest K tested" if result.k_star == tested[-1].period else "")
    match updates:
        case 0:
            enough = f"no feature update in {num_steps} steps is needed"
        case 1:
            enough = f"1 feature update in {num_steps} steps suffices"
        case _:
            enough = f"{updates} feature updates in {num_steps} steps suffice"
    return f"K* = {star}: {enough}"
