"""The report of the stability study: *up to which learning rate does sparse feature learning train?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._axes import UpdatesAxis
from relin.report._figures import Plot
from relin.report._html import Column
from relin.report._page import Report, Tile, in_words, shared_tiles, statistics
from relin.report._records import StudyRecords
from relin.report._style import Theme
from relin.report._tables import Extra, interval_columns, outcomes_csv, outcomes_table
from relin.studies.stability.accuracy import accuracy_against_updates, group_styles, what_parts_bring
from relin.studies.stability.data import (
    PLAIN,
    Descent,
    best_gain,
    descent,
    groups,
    limit_of,
    trains_as_far,
)
from relin.studies.stability.figures import rates_that_train
from relin.studies.stability.result import StabilityResult
from relin.studies.stability.sharpness import passes, selection, sharpness_in_training
from relin.study._abstract import Against
from relin.study._result import ScheduleOutcome

QUESTION = "Up to which learning rate does sparse feature learning train?"
_METHOD = (
    "Every schedule is run at every learning rate with every seed, so that failures are seen and not avoided; the "
    "largest rate that trains is the largest at which every run trained. To periods K between 1 and infinity parts are "
    "added that may keep training stable: gradients clipped by their global norm, a line search or a trust region that "
    "scales the step from one anchor to the next, a proximal term, optimiser moments shrunk or reset at each feature "
    "update, and the preset named sparse. Sharpness is the largest eigenvalue λ_max of JᵀHJ of the linearised problem "
    "at the anchor. {stable}A schedule is on the Pareto front if none reaches its mean test accuracy with as few or "
    "fewer feature updates."
)
_STABLE = (
    "Gradient descent on that problem is stable below the rate 2/λ_max, with momentum β below 2 (1 + β)/λ_max; the "
    "network itself may train beyond it or diverge below it, since its features move. "
)
_STABLE_RATES = (
    " Dots are 2/λ_max with the largest sharpness λ_max recorded in a run at the chosen rate, with their 95 % interval "
    "over seeds; the dotted line is 2/λ_max at the initial parameters, and the dashed one the same times 1 + β = "
    "{factor}, up to which gradient descent with momentum is stable on the linearised problem."
)
_STABLE_SHARPNESS = (
    " The dashed line is 2 (1 + β) over the rate at that step, with 1 + β = {factor} and the rate’s decay ({decay}): "
    "below it, gradient descent on the linearised problem is stable."
)


def page(result: StabilityResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the stability study shows."""
    data = StudyRecords(result, records, more_columns=("sharpness",))
    training = descent(spec, result)
    columns = _limit_columns(result, training)
    return Report(
        question=QUESTION,
        tiles=tiles(result, training),
        plots=plots(result, data, training, against),
        tables=[outcomes_table(result, result.answers, "Marked rows are the Pareto front.", columns)],
        method=[_METHOD.format(stable=_if_known(_STABLE, training)), statistics(result)],
        files={"table.csv": outcomes_csv(result.outcomes, _limit_record(result), result.scale)},
    )


def _if_known(sentence: str, training: Descent) -> str:
    """What is said of stable rates, of gradient descent alone."""
    if training.factor is None:
        return ""
    return sentence.format(factor=text.tick(training.factor), decay=training.course.decay)


def _limit_columns(result: StabilityResult, training: Descent) -> list[Extra]:
    def stable(outcome: ScheduleOutcome) -> str:
        rate = limit_of(result, outcome).stable_rate
        return text.DASH if rate is None else f"{rate.mean:.3g} [{rate.low:.3g}, {rate.high:.3g}]"

    columns: list[Extra] = [
        (Column("Trains up to", "learning rate"), lambda o: text.rate(limit_of(result, o).largest_rate)),
        (Column("2/λ_max at the anchors", "95 % interval"), stable),
    ]
    return columns[:1] if training.factor is None else columns


def _limit_record(result: StabilityResult) -> dict[str, dict[str, Any]]:
    """By schedule, the columns of the file that only this study has."""
    record = {}
    for limit in result.limits:
        counts = zip(result.rates, limit.num_diverged, limit.num_failed, limit.num_runs, strict=True)
        record[limit.schedule] = {
            "largest_rate": limit.largest_rate,
            **interval_columns("stable_rate", limit.stable_rate),
            "pareto": limit.schedule in result.pareto,
        }
        for rate, diverged, failed, runs in counts:
            own = {"num_diverged": diverged, "num_failed": failed, "num_runs": runs}
            record[limit.schedule] |= {f"{name}_at_{rate:g}": value for name, value in own.items()}
    return record


def tiles(result: StabilityResult, training: Descent) -> list[Tile]:
    """The key numbers, in the order of the page."""
    ordinary = result.outcome("every-1")
    largest = None if ordinary is None else limit_of(result, ordinary).largest_rate
    as_far, others = trains_as_far(result)
    fewest = _fewest_on_par(result)
    gap, _, *others_too = shared_tiles(result)
    return [
        Tile("Largest rate of K = 1", text.rate(largest), "at which every run trained"),
        *_stable_tiles(result, training),
        Tile("Train at as large a rate", f"{as_far} of {others}", "of the other schedules"),
        Tile(
            "Fewest updates on par",
            text.count(fewest.feature_updates if fewest else None),
            fewest.label if fewest else _missed(result),
        ),
        gap,
        *others_too,
    ]


def _stable_tiles(result: StabilityResult, training: Descent) -> list[Tile]:
    start = result.stable_rate_at_start
    if start is None or training.momentum is None:
        return []
    factor = f"times {text.tick(1 + training.momentum)} with momentum {text.tick(training.momentum)}"
    rate = text.rate(float(f"{start:.2g}"))
    return [Tile("2/λ_max at the start", rate, f"{factor}: stable for the linearised problem")]


def _missed(result: StabilityResult) -> str:
    return "no schedule is shown to be on par" if result.is_comparable else text.NOTHING_TO_COMPARE


def _fewest_on_par(result: StabilityResult) -> ScheduleOutcome | None:
    return min((o for o in result.outcomes if o.on_par), key=lambda o: o.feature_updates, default=None)


def plots(result: StabilityResult, data: StudyRecords, training: Descent, against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    chosen, axis = selection(result), UpdatesAxis(against, result.num_steps)
    shown = [
        Plot(
            name="rates-that-train",
            title=_rates_title(result),
            caption="Each panel is a part, each column a period K or a tolerance, each cell a learning rate. "
            f"{text.UNTRAINED_MEANS}; {text.EDGES_MEAN}. The thick line is the upper end of the largest rate at which "
            f"every run trained.{_if_known(_STABLE_RATES, training)}",
            description=f"Runs that did not train for every schedule and learning rate. {_rates_title(result)}.",
            draw=lambda theme: rates_that_train(result, training, theme),
        ),
        Plot(
            name="accuracy-against-updates",
            title=_front_title(result),
            caption="Mean test accuracy of the linearised network and its 95 % interval against the number of "
            f"{axis.named('feature updates in a run')}, at the rate chosen for each schedule. The step line is the "
            "Pareto front: no schedule lies above it. Its members are numbered from the fewest updates on and named at "
            "the right. Filled marks are on par with ordinary training, and an arrow points at accuracies far worse "
            "than the others. "
            f"{text.EDGES_MEAN}.",
            description=f"Test accuracy against the number of {axis.named('feature updates')}. Front: "
            f"{in_words(result, [o for o in map(result.outcome, result.pareto) if o is not None])}",
            draw=lambda theme: accuracy_against_updates(result, axis, theme),
        ),
    ]
    if any(group.is_periodic and group.name != PLAIN for group in groups(result)):
        shown.append(
            Plot(
                name="what-parts-bring",
                title=_parts_title(result),
                caption="Mean test accuracy and its 95 % interval against K: in grey a fixed K alone, in colour the "
                "same K with a part, each at its own chosen learning rate. Bands are the intervals of ordinary and "
                "lazy training. Gains in the title are differences of means, the largest of several, and not tested.",
                description=f"Test accuracy against K with and without each part. {_parts_title(result)}.",
                draw=lambda theme: what_parts_bring(result, theme),
            )
        )
    shown.append(
        Plot(
            name="sharpness",
            title=_sharpness_title(result, data, training),
            caption="Mean sharpness λ_max of the linearised problem at the anchor and its 95 % interval over the seeds "
            f"that trained, at the rate chosen for each schedule.{_if_known(_STABLE_SHARPNESS, training)}",
            description=f"Sharpness against the step. {_sharpness_title(result, data, training)}.",
            draw=lambda theme: sharpness_in_training(chosen, _colours(result, theme), data, training, theme),
        )
    )
    return shown


def _colours(result: StabilityResult, theme: Theme) -> list[str]:
    styles = group_styles(result, theme)
    own = {o.schedule: styles[group.name].colour for group in groups(result) for o in group.outcomes}
    own |= {"every-1": theme.ordinary, "never": theme.lazy}
    return [own[outcome.schedule] for outcome in selection(result)]


def _rates_title(result: StabilityResult) -> str:
    ordinary = next((limit for limit in result.limits if limit.schedule == "every-1"), None)
    if ordinary is None or ordinary.largest_rate is None:
        return "At no learning rate did every run of ordinary training train"
    as_far, others = trains_as_far(result)
    return (
        f"Ordinary training trains up to rate {text.rate(ordinary.largest_rate)}, "
        f"as do {as_far} of {others} other schedules"
    )


def _front_title(result: StabilityResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    fewest = _fewest_on_par(result)
    if fewest is None:
        return "No schedule with fewer feature updates is shown to be on par with ordinary training"
    updates = text.counted(fewest.feature_updates, "feature update")
    are = "is" if fewest.feature_updates == 1 else "are"
    return f"{updates} {are} on par with ordinary training, spent by {fewest.label}"


def _parts_title(result: StabilityResult) -> str:
    gain = best_gain(result)
    if gain is None or gain[0] <= 0:
        return f"No part is {result.scale.superior} than the same K alone"
    scale = result.scale
    return f"Largest gain over a fixed K alone: {scale.in_points(scale.signed(gain[0], 1))} by {gain[1].label}"


def _sharpness_title(result: StabilityResult, data: StudyRecords, training: Descent) -> str:
    chosen = selection(result)
    if training.factor is None:
        return "Sharpness at the chosen rates"
    above = [outcome.label for outcome in chosen if passes(outcome, data, training)]
    if not above:
        return "At their chosen rates, sharpness stays within what is stable"
    if len(above) == len(chosen):
        return "At their chosen rates, sharpness passes what is stable for all schedules shown"
    return f"At the chosen rate, sharpness passes what is stable for {' and '.join(above)}"
