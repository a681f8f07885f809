"""What the frequency study concluded, in words."""

import math

from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome
from relin.study._verdict import criterion, lazy_clause, no_answer, outcome_clauses


def tested_periods(outcomes: list[ScheduleOutcome]) -> list[ScheduleOutcome]:
    """The family K* is read from: every K but 1, in increasing order."""
    return [outcome for outcome in outcomes if outcome.period is not None and outcome.period != 1]


def verdict(result: FrequencyResult, num_steps: int, most_paired: int, fewest_steps: int) -> str:
    """The answer of a study in one sentence.

    **Arguments:**

    - `result`: all that was concluded but the verdict.
    - `num_steps`: of the runs of K*.
    - `most_paired`: the most seeds any K has in common with K = 1; `result.num_seeds` are the fewest.
    - `fewest_steps`: of the runs of the schedule with the fewest feature updates on par.
    """
    tested = tested_periods(result.outcomes)
    if not tested:
        clauses = [f"On {result.data}, no K above 1 was tested, so nothing is known about rarer feature updates"]
    elif result.k_star is None:
        return no_answer(result)
    else:
        equal = ", equal learning rate × steps" if result.comparison == "equal-distance" else ""
        rule = criterion(result, f"over {len(tested)} K", most_paired) + equal
        clauses = [f"On {result.data}, {_answer(result, tested, num_steps)} ({rule})"]
    fewest = result.outcome(result.fewest_updates or "")
    if (
        fewest is not None
        and fewest.period is None
        and fewest.feature_updates < (result.sufficient_feature_updates or 0)
    ):
        clauses.append(
            f"the fewest feature updates on par are those of {fewest.label}, "
            f"{fewest.feature_updates:,.4g} in {fewest_steps} steps"
        )
    if result.lazy_gap is not None and result.k_star is not None:
        clauses.append(lazy_clause(result.lazy_gap, result.scale))
    clauses += outcome_clauses(result)
    return "; ".join(clauses) + "."


def both_verdicts(equal_steps: FrequencyResult, equal_distance: FrequencyResult) -> str:
    """The answers of both comparisons, one sentence each."""
    return f"With equal steps: {equal_steps.verdict} With more steps at smaller rates: {equal_distance.verdict}"


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
