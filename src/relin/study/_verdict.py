"""What a study concluded, in words."""

import math

from relin.study._result import FrequencyResult, GridResult, Interval, ScheduleOutcome
from relin.study._statistics import INTERVAL_CONFIDENCE

ORDINARY = "every-1"
"""The schedule that all others are compared with."""


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
        clauses = [f"On {result.data}, {nothing_to_compare_with()}"]
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
        clauses.append(lazy_clause(result.lazy_gap))
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


def criterion(result: GridResult, tested: str = "", most_paired: int | None = None) -> str:
    """What *on par* means in a study, and over how many seeds.

    **Arguments:**

    - `tested`: over what Holm's correction is; by default over each kind of schedule.
    - `most_paired`: the most seeds any schedule has in common with K = 1, if not as many as the fewest.
    """
    seeds = f"{result.num_seeds}" if most_paired in (None, result.num_seeds) else f"{result.num_seeds} to {most_paired}"
    margin = f"{100 * result.margin:g} percentage point" + ("" if 100 * result.margin == 1 else "s")
    return (
        f"{'' if tested else 'on par: '}test accuracy at most {margin} below ordinary training, "
        f"one-sided {100 * result.confidence:g} % confidence, Holm-corrected {tested or 'over schedules of a kind'}, "
        f"{seeds} paired seeds"
    )


def nothing_to_compare_with() -> str:
    return (
        "no run of ordinary training (K = 1) trained even at the best of its learning rates, so there is nothing to "
        "compare with and other rates must be offered"
    )


def outcome_clauses(result: GridResult) -> list[str]:
    """What bears on all of an answer: chosen rates at an end of those offered, and runs that did not train."""
    diverged, failed = (sum(getattr(o, f"num_{how}") for o in result.outcomes) for how in ("diverged", "failed"))
    total = sum(outcome.num_seeds for outcome in result.outcomes)
    lost = untrained(diverged, failed, f"{total} runs at the chosen learning rates", result.chance)
    return [*edge_clauses(result), *lost]


def untrained(diverged: int, failed: int, runs: str, chance: float) -> list[str]:
    """How many of `runs`, such as `8 runs`, diverged, and how many failed to train; nothing if none did."""
    if not diverged + failed:
        return []
    first, how = (diverged, "diverged") if diverged else (failed, "failed to train")
    counted = f", {failed} failed to train, and all count" if diverged and failed else " and count"
    counted += "s" if diverged + failed == 1 else ""
    return [f"{first} of the {runs} {how}{counted} at chance accuracy ({100 * chance:.3g} %)"]


def edge_clauses(result: GridResult) -> list[str]:
    """Of which schedules the best learning rate is the largest or the smallest offered, ordinary training first."""
    clauses = []
    for end in ("largest", "smallest"):
        ordinary = [o for o in result.outcomes if o.schedule == ORDINARY]
        others = [o for o in result.outcomes if o.schedule != ORDINARY]
        own, beside = ([o for o in group if o.rate_edge == end] for group in (ordinary, others))
        if own:
            what = f"the best rate of ordinary training (K = 1) is the {end} offered, {_rates_of(own)}"
            what += f", at {len(own)} of {len(ordinary)} widths" if len(ordinary) > 1 else ""
            what += f", as that of {_part(beside, others)} is" if beside else ""
            clauses.append(f"{what}: {'larger' if end == 'largest' else 'smaller'} ones might serve better")
        elif beside:
            clauses.append(f"the best rate of {_part(beside, others)} is the {end} offered")
    return clauses


def _part(some: list[ScheduleOutcome], others: list[ScheduleOutcome]) -> str:
    return f"{len(some)} of {len(others)} other schedules" if len(some) < len(others) else "every other schedule"


def _rates_of(outcomes: list[ScheduleOutcome]) -> str:
    return " or ".join(dict.fromkeys(f"{outcome.learning_rate:g}" for outcome in outcomes))


def count(number: int, noun: str) -> str:
    """A number of things in words, for example `1 update` or `16 updates`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def lazy_clause(gap: Interval) -> str:
    """The lazy gap in words; the interval is told in their direction, so that the mean lies in it."""
    lower = gap.mean >= 0
    low, high = (gap.low, gap.high) if lower else (-gap.high, -gap.low)
    zero = ", which contains zero" if low <= 0 <= high else ""
    return (
        f"without feature learning (K = ∞) accuracy is {points(abs(gap.mean))} points "
        f"{'lower' if lower else 'higher'}, "
        f"{100 * INTERVAL_CONFIDENCE:g} % interval [{points(low)}, {points(high)}]{zero}"
    )


def points(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0 turns −0.0 into 0.0
