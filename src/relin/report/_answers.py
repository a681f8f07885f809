"""Which schedules answer the question of a study: they stand out in tables and on terminals."""

from relin.study._method import Method
from relin.study._result import EssentialResult, FrequencyResult, StabilityResult, StudyResult, TimingResult


def answers(result: StudyResult) -> list[str]:
    """Names of the schedules: of K*, of enough updates and the latest start, of the best placements, of the front."""
    match result:
        case FrequencyResult(k_star=star):
            return [o.schedule for o in result.outcomes if o.period is not None and o.period == star]
        case EssentialResult(enough_updates=enough, latest_start=latest):
            found = (("until", enough), ("after", latest))
            return [Method(kind, number).name for kind, number in found if number is not None]
        case TimingResult(best=best):
            return [p.schedule for p in result.placements if best.get(p.budget) == p.placement]
        case StabilityResult(pareto=pareto):
            return pareto
        case _:
            return []


def what_answers(result: StudyResult) -> str:
    """What the schedules of `answers` are, as the subject of a sentence."""
    match result:
        case FrequencyResult():
            return "K*"
        case EssentialResult():
            return "the fewest updates and the latest start on par together with those between"
        case TimingResult():
            return "the placement of highest accuracy for each number of updates"
        case StabilityResult():
            return "the Pareto front of accuracy against feature updates"
        case _:
            return ""
