"""What the phase study concluded, in words."""

from relin._common.words import listed
from relin.studies.phase.result import FEWEST_SEEDS, FEWEST_TOTALS, PhaseResult, TotalOutcome
from relin.study._verdict import count, criterion, no_answer, no_yardstick, outcome_clauses, spelled


def phase_verdict(result: PhaseResult) -> str:
    """The answer in one sentence, its conditions after semicolons."""
    answered = [own for own in result.totals if own.enough_updates is not None]
    if answered:
        rule = criterion(result, "over the n of each T").replace("ordinary training", "ordinary training of the same T")
        clauses = [f"On {result.data}, {enough_words(answered)} ({rule})", growth_clause(result)]
    elif not result.is_comparable:
        return no_answer(result, "T")
    else:
        clauses = [
            f"On {result.data}, nothing but ordinary training was tested, so nothing is known about fewer updates"
        ]
    missing = [
        f"{own.total:,}" for own in result.totals if own.enough_updates is None and len(result.at(own.total)) > 1
    ]
    if answered and missing:
        clauses.append(f"in {listed(missing)} steps {no_yardstick(result)} learning rates")
    clauses += best_clauses(result)
    return "; ".join([*clauses, *outcome_clauses(result, "T")]) + "."


def enough_words(answered: list[TotalOutcome]) -> str:
    """How many updates suffice in each T, those T together in which no fewer than all do."""
    fewer = [own for own in answered if own.is_fewer]
    every = [own.total for own in answered if not own.is_fewer]
    parts = []
    if fewer:
        first, *others = (f"{own.enough_updates:,} in {own.total:,}" for own in fewer)
        parts.append("the feature updates that suffice are " + ", ".join([f"{first} steps", *others]))
    if every:
        steps = ", ".join(f"{total:,}" for total in every)
        parts.append(f"no fewer than ordinary training’s are shown to suffice in {steps}{'' if fewer else ' steps'}")
    return " and ".join(parts)


def growth_clause(result: PhaseResult) -> str:
    """How the number of updates at which the mean loss reaches the margin grows with T."""
    growth, known = result.growth, [own for own in result.totals if own.crossing is not None]
    if growth is None or result.misfit is None:
        if len(known) < FEWEST_TOTALS:
            return (
                f"in {len(known)} of {len(result.totals)} T does the mean loss reach the margin at an n, and "
                f"{FEWEST_TOTALS} are needed to say how that n grows with T"
            )
        return (
            f"{FEWEST_SEEDS} seeds are needed to say how the n at which the mean loss reaches the margin grows with T"
        )
    how = "grows" if growth.low > 0 else "falls" if growth.high < 0 else "is not shown to grow or fall with T: it goes"
    pace = ", more slowly than T" if growth.low > 0 and growth.high < 1 else ""
    return (
        f"n + 1 at which the mean loss reaches the margin {how} as T to the power {spelled(growth)}{pace} "
        f"({len(known)} T, each within a factor of {result.misfit:.3g} of that; 95 % jackknife interval over seeds)"
    )


def best_clauses(result: PhaseResult) -> list[str]:
    """The fewest updates on par with ordinary training of the best T, if there are several T."""
    if result.best_total is None or len(result.totals) < 2:
        return []
    reached = [cell for cell in result.cells if cell.reaches_best]
    what = f"ordinary training of the best T, {result.best_total:,}"
    if not reached:
        return [f"no other cell is shown to be on par with {what}"]
    fewest, shortest = (
        min(reached, key=key) for key in (lambda c: (c.updates, c.total), lambda c: (c.total, c.updates))
    )
    clause = f"on par with {what}, are at the fewest {count(fewest.updates, 'update')} in {fewest.total:,} steps"
    if shortest.total < fewest.total:
        clause += f", and in the shortest training {shortest.updates:,} in {shortest.total:,}"
    return [clause]
