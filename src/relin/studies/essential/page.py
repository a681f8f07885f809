"""The report of the essential study: *is feature learning essential, and when?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._axes import UpdatesAxis
from relin.report._curves import CAPTION
from relin.report._figures import Plot
from relin.report._page import Report, Tile, in_words, shared_tiles, statistics
from relin.report._rate_map import rates_plot
from relin.report._records import StudyRecords
from relin.report._tables import outcomes_csv, outcomes_table
from relin.studies.essential.figures import KINDS, accuracy_against_number, essential_curves, family, selection
from relin.studies.essential.result import EssentialResult
from relin.study._abstract import Against

QUESTION = "Is feature learning essential, and when?"
_METHOD = (
    "Three ways of training stand beside ordinary training: on the first linearisation only, so that no feature is "
    "learned (lazy, K = ∞); with an update of the features before every step until a number of them is spent, after "
    "which features stay frozen; and lazily until some step, from which on features move as in ordinary training. The "
    "second says how many updates at the start are enough, the third how late feature learning may begin. A number of "
    "updates is enough if it and every larger one tested are on par with ordinary training; a start is early enough "
    "if it and every earlier one tested are. Accuracy is that of the linearised network, which is what was trained."
)
_READING = (
    "Mean test accuracy of the linearised network and its 95 % interval; faint dots are seeds. Bands are the intervals "
    "of ordinary and lazy training, the dashed line is one margin worse than ordinary training, and filled marks are "
    f"on par with it. {text.UNTRAINED_MEANS}; {text.EDGES_MEAN}; "
    "an arrow points at accuracies far worse than the others."
)


def page(result: EssentialResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the essential study shows."""
    data = StudyRecords(result, records)
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, data, against),
        tables=[outcomes_table(result, result.answers, f"Marked: {result.what_answers}.")],
        method=[_METHOD, statistics(result)],
        files={"table.csv": outcomes_csv(result.outcomes, scale=result.scale)},
    )


def _tiles(result: EssentialResult) -> list[Tile]:
    gap, *others = shared_tiles(result)
    nothing = None if result.is_comparable else text.NOTHING_TO_COMPARE
    frozen, late = family(result, "until"), family(result, "after")
    return [
        gap,
        Tile(
            "Enough updates at the start",
            text.count(result.enough_updates),
            _note(
                "one a step, then features are frozen",
                nothing or "no number tested is shown to be enough",
                result.enough_updates,
                frozen,
            ),
        ),
        Tile(
            "Latest start of feature learning",
            text.count(result.latest_start),
            _note(
                f"of {result.num_steps:,} steps; lazy training until then",
                nothing or "no start tested is shown to be early enough",
                result.latest_start,
                late,
            ),
        ),
        *others,
    ]


def _note(found: str, missed: str, answer: int | None, tested: list[Any]) -> str:
    return "not part of the study" if not tested else missed if answer is None else found


def plots(result: EssentialResult, data: StudyRecords, against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    axis = UpdatesAxis(against, result.num_steps)
    spent = (
        "the number of updates on the axis is spent, then they stay frozen"
        if against == "n"
        else f"n updates are spent, then they stay frozen; on the axis are the {axis.named('')}"
    )
    frozen = Plot(
        name="frozen-after",
        title=_frozen_title(result),
        caption=f"Features are updated before every step until {spent}. {_READING}",
        description=f"Test accuracy against the number of {axis.named('feature updates before features are frozen')}. "
        + in_words(result, [outcome for _, outcome in family(result, "until")]),
        draw=lambda theme: accuracy_against_number(result, data, "until", theme, against),
    )
    late = Plot(
        name="learnt-from",
        title=_late_title(result),
        caption="Training is lazy until the step on the axis; from it on, features move as in ordinary training. "
        f"{_READING}",
        description="Test accuracy against the step from which features move. "
        + in_words(result, [outcome for _, outcome in family(result, "after")]),
        draw=lambda theme: accuracy_against_number(result, data, "after", theme),
    )
    curves = Plot(
        name="learning-curves",
        title=_curves_title(result),
        caption=f"{CAPTION} Dashed lines are those of features that start to move late.",
        description=f"Test accuracy and training loss against the step. {_curves_title(result)}.",
        draw=lambda theme: essential_curves(result, data, theme),
        shown=data.has_curves,
    )
    own = [plot for kind, plot in zip(KINDS, (frozen, late), strict=True) if family(result, kind)]
    return [*own, curves, rates_plot(result, data)]


def _frozen_title(result: EssentialResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    if result.enough_updates is None:
        most = max((number for number, _ in family(result, "until")), default=0)
        plural = "update is" if most == 1 else "updates are"
        return f"Features frozen after {most:,} {plural} not shown to be on par with ordinary training"
    plural = "update" if result.enough_updates == 1 else "updates"
    return f"Features may be frozen after {result.enough_updates:,} {plural} at the start"


def _late_title(result: EssentialResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    if result.latest_start is None:
        first = min((number for number, _ in family(result, "after")), default=0)
        return f"Features that start to move at step {first:,} are not shown to be on par with ordinary training"
    return f"Features may start to move as late as step {result.latest_start:,} of {result.num_steps:,}"


def _curves_title(result: EssentialResult) -> str:
    chosen = [o for o in selection(result) if o.period is not None or o.schedule in result.answers]
    shown = chosen or selection(result)[:3]
    ended = ", ".join(f"{result.scale.told(o.test_accuracy.mean, 1)} for {text.schedule(o)}" for o in shown)
    return f"Test accuracy ends at {ended}"
