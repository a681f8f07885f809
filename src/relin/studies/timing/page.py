"""The report of the timing study: *when are feature updates best spent?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._axes import UpdatesAxis
from relin.report._curves import CAPTION
from relin.report._figures import Plot
from relin.report._html import paragraph
from relin.report._page import Report, Tile, in_words, shared_tiles, statistics
from relin.report._rate_map import rates_plot
from relin.report._records import StudyRecords
from relin.report._tables import outcomes_csv, outcomes_table
from relin.studies.timing.figures import (
    accuracy_against_updates,
    accuracy_of_placements,
    placed,
    placement_curves,
    updates_in_training,
)
from relin.studies.timing.result import Placement, TimingResult
from relin.studies.timing.table import placements_csv, placements_table
from relin.study._abstract import Against
from relin.study._result import ScheduleOutcome

QUESTION = "When are feature updates best spent?"
_METHOD = (
    "The same number of feature updates is spent in different ways: early, before each of the first steps; evenly; "
    "geometrically, at evenly spaced powers of the step, so that they become rarer; late, before each of the last "
    "steps; and adaptively, whenever the linearised network has moved away from the network itself by more than a "
    "tolerance. How many updates a tolerance spends is not known beforehand: of the tolerances tried, the one that "
    "spends most, but at most the number allowed, stands for adaptive. Placements are compared with the even one seed "
    "by seed. Accuracy is that of the linearised network, which is what was trained."
)


def page(result: TimingResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the timing study shows."""
    data = StudyRecords(result, records)
    if not result.best:
        raise ValueError(
            f"Expected at least one number of feature updates in the result of study {result.study!r}, got no best "
            "placement; give the study numbers of feature updates to spend."
        )
    return Report(
        question=QUESTION,
        tiles=[*(_tile(result, budget) for budget in result.best), *shared_tiles(result)],
        plots=plots(result, data, against),
        tables=[
            placements_table(result),
            paragraph("All schedules, the adaptive one with every tolerance:"),
            outcomes_table(result, result.answers, f"Marked: {result.what_answers}."),
        ],
        method=[_METHOD, statistics(result)],
        files={
            "table.csv": outcomes_csv(result.outcomes, scale=result.scale),
            "placements.csv": placements_csv(result),
        },
    )


def _best(result: TimingResult, budget: int) -> tuple[Placement, ScheduleOutcome]:
    return next(pair for pair in placed(result, budget) if pair[0].placement == result.best[budget])


def _tile(result: TimingResult, budget: int) -> Tile:
    (placement, outcome), scale = _best(result, budget), result.scale
    note = placement.placement
    gain = placement.versus_even
    if gain is not None:
        apart = scale.in_points(scale.signed(gain.mean, 1))
        note += f", {apart} to even, 95 % interval {scale.bracket(gain, 1)}"
    accuracy = scale.told(outcome.test_accuracy.mean, 1)
    return Tile(f"Best for {budget:,} update{'' if budget == 1 else 's'}", accuracy, note)


def plots(result: TimingResult, data: StudyRecords, against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    most, axis = max(result.best), UpdatesAxis(against, result.num_steps)
    return [
        Plot(
            name="accuracy-of-placements",
            title=_placements_title(result),
            caption="Mean test accuracy of the linearised network and its 95 % interval, a panel for each number of "
            "feature updates; faint dots are seeds. Bands are the intervals of ordinary and lazy training, the dashed "
            "line is one margin worse than ordinary training, and filled marks are on par with it. Adaptive schedules "
            "may spend fewer updates than allowed: below their mark stands how many they did. An arrow points at "
            f"accuracies far worse than the others; {text.UNTRAINED_MEANS}; {text.EDGES_MEAN}.",
            description="Test accuracy of every placement. "
            + " ".join(
                f"{budget} updates: {in_words(result, [o for _, o in placed(result, budget)])}"
                for budget in result.best
            ),
            draw=lambda theme: accuracy_of_placements(result, data, theme),
        ),
        Plot(
            name="accuracy-against-updates",
            title=_updates_title(result),
            caption=f"The same accuracies against the number of {axis.named('feature updates in a run')}, on "
            f"{axis.kind}, with every tolerance of the adaptive schedule. Lines join the means of one placement; a "
            "line above another spends its updates better. Marks of the same number are set a little apart.",
            description=f"Test accuracy against the number of {axis.named('feature updates')}. "
            f"{_updates_title(result)}.",
            draw=lambda theme: accuracy_against_updates(result, axis, theme),
        ),
        Plot(
            name="updates-in-training",
            title=f"Where {most:,} feature update{'' if most == 1 else 's'} in {result.num_steps:,} steps lie",
            caption="Left: a mark for each update of the schedules whose steps are known beforehand; for the adaptive "
            "schedule, whose steps are counted at records only, a bar between two records is the stronger the more "
            "updates a step fall there, in the mean over seeds. Right: the number of updates so far against the step "
            "on a logarithmic axis.",
            description=f"The steps of the {most} feature updates of every placement: "
            + ", ".join(placement.placement for placement, _ in placed(result, most))
            + ".",
            draw=lambda theme: updates_in_training(result, data, theme),
        ),
        Plot(
            name="learning-curves",
            title=_curves_title(result),
            caption=f"{CAPTION} Placements of {most:,} updates; dashed lines are ordinary and lazy training.",
            description=f"Test accuracy and training loss against the step. {_curves_title(result)}.",
            draw=lambda theme: placement_curves(result, data, theme),
            shown=data.has_curves,
        ),
        rates_plot(result, data),
    ]


def _placements_title(result: TimingResult) -> str:
    """What wins for each number of updates; the same answer is told once."""
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    budgets: dict[str, list[str]] = {}
    for budget, placement in result.best.items():
        budgets.setdefault(placement, []).append(f"{budget:,}")
    clauses = []
    for placement, numbers in budgets.items():
        listed = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
        clauses.append(f"{placement} {'' if clauses else 'placement is best '}for {listed}")
    updates = "update" if list(result.best) == [1] else "updates"
    title = f"{', '.join(clauses)} {updates}"
    best = [_best(result, budget)[0] for budget in result.best]
    if any(placement.versus_even is not None for placement in best) and not any(map(_sure, best)):
        title += "; 95 % intervals of gains over even contain zero"
    return title[0].upper() + title[1:]


def _sure(placement: Placement) -> bool:
    return placement.versus_even is not None and placement.versus_even.low > 0


def _updates_title(result: TimingResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    pairs = [pair for budget in result.best for pair in placed(result, budget)]
    par = [outcome for _, outcome in pairs if outcome.on_par]
    if not par:
        return f"No placement of up to {max(result.best):,} feature updates is shown to be on par"
    fewest = min(par, key=lambda outcome: outcome.feature_updates)
    place = next(placement.placement for placement, outcome in pairs if outcome is fewest)
    updates = text.counted(fewest.feature_updates, "feature update")
    are = "is" if fewest.feature_updates == 1 else "are"
    return f"{updates} {are} on par with ordinary training, placed by the {place} schedule"


def _curves_title(result: TimingResult) -> str:
    most = max(result.best)
    pairs = sorted(placed(result, most), key=lambda pair: -pair[1].test_accuracy.mean)
    ended = ", ".join(f"{result.scale.told(o.test_accuracy.mean, 1)} {p.placement}" for p, o in pairs)
    return f"With {most:,} updates, test accuracy ends at {ended}"
