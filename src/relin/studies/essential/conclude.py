"""The essential study: without feature learning, until some update only, or from some step on."""

import polars as pl

from relin.studies.essential.result import EssentialResult
from relin.studies.essential.settings import EssentialSpec
from relin.study._condition import parse_condition
from relin.study._outcomes import compare_by
from relin.study._result import ScheduleOutcome
from relin.study._schedules import After, Until
from relin.study._settings import Comparison
from relin.study._verdict import count, criterion, lazy_clause, no_answer, outcome_clauses


def conclude(spec: EssentialSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> EssentialResult:
    """How much is lost without feature learning, and how early it may stop or how late begin.

    Freezing after n updates, starting at step s, and K = ∞ each are a family of Holm's correction.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    compared = compare_by(spec, records["equal-steps"], chance, family=lambda schedule: parse_condition(schedule).kind)
    frozen = [compared.outcome(Until(number).name) for number in reversed(spec.frozen_after)]
    late = [compared.outcome(After(step).name) for step in spec.learnt_from]
    result = EssentialResult(
        **compared.shared,
        enough_updates=_last_on_par(frozen),
        latest_start=_last_on_par(late),
    )
    return result.model_copy(update={"verdict": _verdict(result, spec)})


def _last_on_par(outcomes: list[ScheduleOutcome | None]) -> int | None:
    """The number of the last schedule on par together with all before it."""
    last = None
    for outcome in outcomes:
        if outcome is None or not outcome.on_par:
            break
        last = int(parse_condition(outcome.schedule).value)
    return last


def _verdict(result: EssentialResult, spec: EssentialSpec) -> str:
    if not result.is_comparable:
        return no_answer(result)
    clauses = []
    gap = result.lazy_gap
    if gap is not None:
        essential = (
            "is essential" if gap.low > result.margin else "matters" if gap.low > 0 else "is not shown to matter"
        )
        clauses.append(f"On {result.data}, feature learning {essential}: {lazy_clause(gap, result.scale)}")
    if spec.frozen_after:
        if result.enough_updates is None:
            most = count(max(spec.frozen_after), "update")
            clauses.append(f"features frozen after {most}, one a step from the start, are not shown to be on par")
        else:
            most = count(result.enough_updates, "update")
            clauses.append(f"features may be frozen after {most}, one a step from the start")
    if spec.learnt_from:
        if result.latest_start is None:
            clauses.append(f"features that start to move at step {min(spec.learnt_from)} are not shown to be on par")
        else:
            clauses.append(
                f"features may stay as they were initialised until step {result.latest_start} of {result.num_steps}"
            )
    return "; ".join([*clauses, *outcome_clauses(result)]) + f" ({criterion(result)})."
