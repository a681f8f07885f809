"""The report of the frequency study: *how rarely can features be updated without loss?*"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._accuracy import is_far_below
from relin.report._axes import UpdatesAxis
from relin.report._curves import CAPTION
from relin.report._figures import Plot
from relin.report._html import Column, Html, Row, prose, table
from relin.report._page import Report, Tile, in_words, shared_tiles, statistics
from relin.report._rate_map import rates_plot
from relin.report._tables import outcomes_csv, outcomes_table
from relin.studies.frequency.data import (
    FrequencyRecords,
    answer_of,
    frequency_records,
    sparse_period,
    stands_beside,
    with_period,
)
from relin.studies.frequency.figures import (
    COMPARISONS,
    accuracy_against_period,
    accuracy_against_updates,
    both_comparisons,
    linearity,
    period_curves,
    selection,
    widest_gap,
)
from relin.studies.frequency.result import FrequencyResult
from relin.studies.frequency.verdict import tested_periods, told_of
from relin.study._abstract import Against
from relin.study._result import ScheduleOutcome
from relin.study._verdict import gap_words

QUESTION = "How rarely can features be updated without loss?"
_ARROW = "An arrow points at accuracies far worse than the others."


def page(result: FrequencyResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the frequency study shows; beside K, accuracy is drawn against updates as `against` says."""
    results = [result, *([result.equal_distance] if result.equal_distance is not None else [])]
    answers = [frequency_records(each, records) for each in results]
    return Report(
        question=QUESTION,
        tiles=_tiles(answers),
        plots=plots(answers, against),
        tables=_tables(answers),
        method=_method(answers),
        files={"table.csv": _csv(results)},
    )


def _tiles(answers: Sequence[FrequencyRecords]) -> list[Tile]:
    """K* and what suffices: two tiles for one answer, one for each of two."""
    tiles = []
    for data in answers:
        result = data.result
        updates, steps = text.count(result.sufficient_feature_updates), f"in {_steps(data):,} steps"
        star = "largest K on par with ordinary training" if answer_of(result) else _missed(result)
        if len(answers) == 1:
            tiles += [
                Tile("K*", text.period(result.k_star), star),
                Tile("Feature updates that suffice", updates, steps),
            ]
        else:
            enough = f"{updates} feature updates {steps} suffice" if answer_of(result) else star
            tiles.append(Tile(f"K*, {COMPARISONS[result.comparison]}", text.period(result.k_star), enough))
    return tiles + shared_tiles(answers[0].result)


def _missed(result: FrequencyResult) -> str:
    if not tested_periods(result.outcomes):
        return "no K above 1 was tested"
    return "no larger K is shown to be on par" if result.is_comparable else text.NOTHING_TO_COMPARE


def _tables(answers: Sequence[FrequencyRecords]) -> list[Html]:
    if len(answers) == 1:
        return [_table(answers[0].result)]
    tables = [_answers_table(answers)]
    for data in answers:
        heading = prose(COMPARISONS[data.result.comparison].capitalize())
        tables += [
            Html(f'<h3 style="margin-top: 2rem">{heading}</h3>'),
            _table(data.result),
        ]
    return tables


def _table(result: FrequencyResult) -> Html:
    return outcomes_table(result, result.answers, "The marked row is K*.")


def _answers_table(answers: Sequence[FrequencyRecords]) -> Html:
    """A row for the answer of each comparison."""
    columns = [
        Column("What is equal", numeric=False),
        Column("K*"),
        Column("Feature updates that suffice"),
        Column("in steps", "of K*’s runs"),
        Column("Fewest feature updates on par", "of any schedule", numeric=False),
        Column("Lazy gap", answers[0].result.scale.headed("95 % interval", difference=True)),
        Column("Diverged", "at chosen rates"),
        Column("Failed to train", "at chosen rates"),
    ]
    rows = []
    for data in answers:
        result, gap = data.result, data.result.lazy_gap
        fewest = result.outcome(result.fewest_updates or "")
        cells = [
            COMPARISONS[result.comparison],
            text.period(result.k_star),
            text.count(result.sufficient_feature_updates),
            text.count(_steps(data)),
            text.DASH if fewest is None else f"{text.count(fewest.feature_updates)}, {fewest.label}",
            result.scale.with_interval(gap),
            *(f"{sum(counts)} of {sum(o.num_seeds for o in result.outcomes)}" for counts in _untrained(result)),
        ]
        rows.append(Row(cells))
    return table(
        "The answers of both comparisons. The lazy gap is the accuracy of K = 1 less that of K = ∞.", columns, rows
    )


def _untrained(result: FrequencyResult) -> tuple[list[int], list[int]]:
    """Of each schedule, the runs at its chosen rate that diverged, and those that failed to train."""
    return [o.num_diverged for o in result.outcomes], [o.num_failed for o in result.outcomes]


def _csv(results: Sequence[FrequencyResult]) -> str:
    """The outcomes of every comparison, told apart by a last column."""
    parts = [
        outcomes_csv(each.outcomes, {o.schedule: {"comparison": each.comparison} for o in each.outcomes}, each.scale)
        for each in results
    ]
    return parts[0] + "".join(part.split("\n", 1)[1] for part in parts[1:])


def _method(answers: Sequence[FrequencyRecords]) -> list[str]:
    first = answers[0].result
    paragraphs = []
    if len(answers) > 1:
        paragraphs.append(
            f"The question is answered twice: with {_kept_equal(answers[0])}, and with {_kept_equal(answers[1])}. "
            "Learning rates are chosen for each answer by itself, and runs at a rate that takes as many steps either "
            "way are part of both. Learning curves, the map of learning rates and the check of linearity are those of "
            f"{COMPARISONS[first.comparison]}."
        )
    elif first.comparison == "equal-distance":
        paragraphs.append(f"Schedules are compared with {_kept_equal(answers[0])}.")
    paragraphs.append(
        "K* is the largest K that is on par together with every smaller one tested. Its family of Holm’s correction "
        "are the K tested"
        + ("; the periods of the preset “sparse” are another" if any(map(sparse_period, first.outcomes)) else "")
        + ("; all other schedules are one of their own" if any(map(stands_beside, first.outcomes)) else "")
        + "."
    )
    return [*paragraphs, statistics(first)]


def _kept_equal(data: FrequencyRecords) -> str:
    """What the runs of a comparison have in common, in words."""
    result = data.result
    if result.comparison == "equal-steps":
        return f"equal steps, {result.num_steps:,} for every run"
    return (
        "equal learning rate × steps, as far as the limit on steps allows: runs at smaller rates take more than "
        f"{result.num_steps:,} steps, at the chosen rates up to {data.longest:,}"
    )


def _steps(data: FrequencyRecords) -> int:
    """Steps of the runs of K*."""
    star = with_period(data.result.outcomes, data.result.k_star)
    return data.result.num_steps if star is None else data.run_steps(star)


def plots(answers: Sequence[FrequencyRecords], against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    first, *others = answers
    checks = [_curves_plot(first), rates_plot(first.result, first), _linearity_plot(first)]
    if others:
        updates = [_updates_plot(data, against, among=answers) for data in answers]
        shown = [_both_plot(answers), *updates, *checks]
    else:
        shown = [_period_plot(first), _updates_plot(first, against), *checks]
    return [replace(plot, title=_unbroken(plot.title)) for plot in shown]


def _unbroken(title: str) -> str:
    """A title in which no line of a figure begins with a sign."""
    return re.sub(r" ([=×]) ", "\u00a0\\1\u00a0", title)


def _period_plot(data: FrequencyRecords) -> Plot:
    result = data.result
    margin, scale = result.scale.margin_words(), result.scale
    kept = f"raise test accuracy by less than {margin}" if scale.turned else f"lose less than {margin} of test accuracy"
    return Plot(
        name="accuracy-against-period",
        title=f"Up to K = {text.period(result.k_star)} the {scale.loss} of test accuracy is less than {margin}"
        if answer_of(result)
        else _title_without_periods(result)
        if not tested_periods(result.outcomes)
        else f"No K above 1 is shown to {kept}"
        if result.is_comparable
        else text.NOTHING_TO_COMPARE,
        caption=_period_caption([result], result.outcomes),
        description=f"Test accuracy against K. {in_words(result, result.outcomes)}",
        draw=lambda theme: accuracy_against_period(data, theme),
    )


def _title_without_periods(result: FrequencyResult) -> str:
    """The finding where no K above 1 was tested."""
    told = told_of(result)
    if told is None or told.difference is None or not result.is_comparable:
        return "No schedule but ordinary training (K = 1) was tested" if told is None else text.NOTHING_TO_COMPARE
    how = "on par" if told.on_par else "not shown to be on par"
    return (
        f"With {told.label}, test accuracy is {gap_words(-told.difference, result.scale)}, {how} with ordinary training"
    )


def _both_plot(answers: Sequence[FrequencyRecords]) -> Plot:
    results = [data.result for data in answers]
    found = [
        f"up to K = {text.period(result.k_star)} with {COMPARISONS[result.comparison]}"
        if answer_of(result)
        else f"{_none_on_par(result) if result.is_comparable else 'nothing to compare with'} with "
        f"{COMPARISONS[result.comparison]}"
        for result in results
    ]
    shown = [outcome for result in results for outcome in result.outcomes if not stands_beside(outcome)]
    described = [
        f"{COMPARISONS[result.comparison]}: "
        + in_words(result, [outcome for outcome in result.outcomes if not stands_beside(outcome)])
        for result in results
    ]
    left_out = (
        " Schedules without a place on this axis are in the next figures."
        if any(map(stands_beside, results[0].outcomes))
        else ""
    )
    return Plot(
        name="accuracy-against-period",
        title=f"Shown to be on par with ordinary training: {', '.join(found)}",
        caption=f"Left: {_kept_equal(answers[0])}. Right: {_kept_equal(answers[1])}. "
        f"{_period_caption(results, shown)}{left_out}",
        description=f"Test accuracy against K. {' '.join(described)}",
        draw=lambda theme: both_comparisons(answers, theme),
    )


def _none_on_par(result: FrequencyResult) -> str:
    """What is on par where K* is not above 1."""
    if tested_periods(result.outcomes):
        return "no K above 1"
    fewest = result.outcome(result.fewest_updates or "")
    return "no other schedule tested" if fewest is None else fewest.label


def _period_caption(results: Sequence[FrequencyResult], shown: Sequence[ScheduleOutcome]) -> str:
    """How to read an axis of K that shows these outcomes; only of what is there."""
    sentences = [
        "Mean test accuracy of the linearised network and its 95 % interval; faint dots are seeds.",
        "Bands are the intervals of ordinary (K = 1) and lazy (K = ∞) training"
        if with_period(shown, math.inf)
        else "The band is the interval of ordinary (K = 1) training",
    ]
    sentences[-1] += ", the dashed line is one margin worse than ordinary training"
    sentences[-1] += ", and filled marks are on par with it."
    if any(sparse_period(outcome) is not None for outcome in shown):
        sentences.append("Joined squares are the preset “sparse” at the same K.")
    if any(outcome.num_untrained for outcome in shown):
        sentences.append(f"{text.UNTRAINED_MEANS}.")
    if any(outcome.rate_edge is not None for outcome in shown):
        sentences.append(f"{text.EDGES_MEAN}.")
    if any(is_far_below(outcome, result) for result in results for outcome in result.outcomes if outcome in shown):
        sentences.append(_ARROW)
    if any(map(stands_beside, shown)) and any(outcome.period is not None for outcome in results[0].outcomes):
        sentences.append("To the right of the dotted line stand schedules without a place on the axis of K.")
    return " ".join(sentences)


def _updates_plot(data: FrequencyRecords, against: Against, among: Sequence[FrequencyRecords] = ()) -> Plot:
    """Accuracy against feature updates; `among` are the comparisons of the page, if there are several."""
    result = data.result
    alike = f" with {COMPARISONS[result.comparison]}" if among else ""
    updates, steps = text.count(result.sufficient_feature_updates), f"{_steps(data):,}"
    axis = UpdatesAxis(against, result.num_steps)
    caption = [
        f"The same accuracies against the mean number of {axis.named('feature updates in a run')}, on {axis.kind}. "
        "Circles update every K steps, and a mark above their "
        "line spends its updates better than a fixed K."
    ]
    if any(sparse_period(outcome) is not None for outcome in result.outcomes):
        caption.append("Joined squares are the preset “sparse”, named by its K.")
    if any(map(stands_beside, result.outcomes)):
        caption.append("Diamonds are schedules that are adaptive or have parts of their own.")
    if result.comparison == "equal-distance":
        caption.append("Where the chosen rate is smaller a run takes more steps, and so more updates at the same K.")
    if any(is_far_below(outcome, result) for outcome in result.outcomes):
        caption.append(_ARROW)
    title = (
        f"{updates} feature updates in {steps} steps suffice{alike}"
        if answer_of(result)
        else _title_without_periods(result) + alike
        if not tested_periods(result.outcomes)
        else f"No K above 1 is shown to suffice{alike or f' in {steps} steps'}"
        if result.is_comparable
        else text.NOTHING_TO_COMPARE + alike
    )
    return Plot(
        name="accuracy-against-updates" + ("" if data in among[:1] or not among else f"-{result.comparison}"),
        title=title + _fewer(result),
        caption=" ".join(caption),
        description=f"Test accuracy against the number of {axis.named('feature updates')}{alike}. "
        + in_words(result, result.outcomes),
        draw=lambda theme: accuracy_against_updates(result, theme, against, data.run_steps),
    )


def _fewer(result: FrequencyResult) -> str:
    """What a schedule that is no fixed K spends where that is the least of all on par."""
    fewest = result.outcome(result.fewest_updates or "")
    most = result.sufficient_feature_updates if answer_of(result) else None
    if (
        fewest is None
        or fewest.period is not None
        or not tested_periods(result.outcomes)
        or (most is not None and fewest.feature_updates >= most)
    ):
        return ""
    return f"; {fewest.label} makes do with {text.count(fewest.feature_updates)}"


def _curves_plot(data: FrequencyRecords) -> Plot:
    title = _curves_title(data.result)
    return Plot(
        name="learning-curves",
        title=title,
        caption=CAPTION
        + (" The rate tells how many steps a run takes." if data.result.comparison == "equal-distance" else ""),
        description=f"Test accuracy and training loss against the step. {title}.",
        draw=lambda theme: period_curves(data, theme),
        shown=data.has_curves,
    )


def _linearity_plot(data: FrequencyRecords) -> Plot:
    gap, label = widest_gap(data.result)
    gap = data.result.scale.gain(gap, 1)
    title = f"Linearised and true network differ by at most {data.result.scale.in_points(gap)} of accuracy, at {label}"
    return Plot(
        name="linearity",
        title=title,
        caption="Left: accuracy of the linearised network, which is what was trained, and of the network itself at "
        "the same parameters θ. Right: linearisation error ‖f − f̄‖ / ‖f − fₛ‖ and distance of the parameters from "
        "their start, both at the last recorded step, over the runs that trained.",
        description=f"Both predictors, linearisation error and parameter movement against K. {title}.",
        draw=lambda theme: linearity(data, theme),
        shown=data.has("network_test_accuracy", "linearisation_error", "parameter_movement"),
    )


def _curves_title(result: FrequencyResult) -> str:
    ends = [(o.period, result.scale.told(o.test_accuracy.mean, 1)) for o in selection(result)]
    shown = [(K, end) for K, end in ends if K in (1.0, result.k_star, math.inf)]
    if not shown:
        return "Test accuracy and training loss as training goes on"
    return "Test accuracy ends at " + ", ".join(f"{end} for K = {text.period(K)}" for K, end in shown)
