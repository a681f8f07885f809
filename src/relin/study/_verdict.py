"""What a study concluded, in words."""

import math

from relin.study._result import FrequencyResult, Interval, ScheduleOutcome
from relin.study._statistics import INTERVAL_CONFIDENCE


def tested_periods(outcomes: list[ScheduleOutcome]) -> list[ScheduleOutcome]:
    """The family K* is read from: every K but 1, in increasing order."""
    return [outcome for outcome in outcomes if outcome.period is not None and outcome.period != 1]


def verdict(result: FrequencyResult, num_steps: int, equal_distance: bool, most_paired: int) -> str:
    """The answer of a study in one sentence.

    **Arguments:**

    - `result`: all that was concluded but the verdict.
    - `num_steps`: of the runs of K*.
    - `equal_distance`: whether runs at smaller learning rates took more steps.
    - `most_paired`: the most seeds any K has in common with K = 1; `result.num_seeds` are the fewest.
    """
    tested = tested_periods(result.outcomes)
    if not tested:
        clauses = [f"On {result.data}, no K above 1 was tested, so nothing is known about rarer feature updates"]
    elif result.k_star is None:
        clauses = [
            f"On {result.data}, all runs of ordinary training (K = 1) diverged even at the best of its "
            "learning rates, so there is nothing to compare with and lower rates must be offered"
        ]
    else:
        equal = ", equal learning rate × steps" if equal_distance else ""
        criterion = _criterion(result, len(tested), most_paired) + equal
        clauses = [f"On {result.data}, {_answer(result, tested, num_steps)} ({criterion})"]
    if result.lazy_gap is not None and result.k_star is not None:
        clauses.append(_lazy_clause(result.lazy_gap))
    diverged = sum(outcome.num_diverged for outcome in result.outcomes)
    if diverged:
        total = sum(outcome.num_seeds for outcome in result.outcomes)
        clauses.append(
            f"{diverged} of the {total} runs at the chosen learning rates diverged and "
            f"{'counts' if diverged == 1 else 'count'} at chance accuracy ({100 * result.chance:.3g} %)"
        )
    return "; ".join(clauses) + "."


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


def _criterion(result: FrequencyResult, num_tested: int, most_paired: int) -> str:
    seeds = f"{result.num_seeds}" if result.num_seeds == most_paired else f"{result.num_seeds} to {most_paired}"
    margin = f"{100 * result.margin:g} percentage point" + ("" if 100 * result.margin == 1 else "s")
    return (
        f"test accuracy at most {margin} below ordinary training, "
        f"one-sided {100 * result.confidence:g} % confidence, Holm-corrected over {num_tested} K, "
        f"{seeds} paired seeds"
    )


def _lazy_clause(gap: Interval) -> str:
    """The lazy gap in words; the interval is told in their direction, so that the mean lies in it."""
    lower = gap.mean >= 0
    low, high = (gap.low, gap.high) if lower else (-gap.high, -gap.low)
    zero = ", which contains zero" if low <= 0 <= high else ""
    return (
        f"without feature learning (K = ∞) accuracy is {_points(abs(gap.mean))} points "
        f"{'lower' if lower else 'higher'}, "
        f"{100 * INTERVAL_CONFIDENCE:g} % interval [{_points(low)}, {_points(high)}]{zero}"
    )


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:.2f}"  # + 0.0 turns −0.0 into 0.0
