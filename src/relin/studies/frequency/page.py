"""The report of the frequency study: *how rarely can features be updated without loss?*"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._figures import Plot
from relin.report._page import Column, Html, Row, Tile, prose, table
from relin.report._periods import sparse_period, stands_beside
from relin.report._rate_map import rates_title
from relin.report._study_page import Report, shared_tiles, spoken
from relin.report._table import outcomes_csv, outcomes_table
from relin.studies.frequency.checks import linearity, rates_tried, widest_gap
from relin.studies.frequency.data import FrequencyRecords, answered, frequency_records, with_period
from relin.studies.frequency.figures import (
    COMPARISONS,
    accuracy_against_period,
    accuracy_against_updates,
    both_comparisons,
    learning_curves,
    selection,
)
from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome

QUESTION = "How rarely can features be updated without loss?"


def page(result: FrequencyResult, records: pl.DataFrame, spec: Mapping[str, Any]) -> Report:
    """What the page of the frequency study shows."""
    results = [result, *([result.equal_distance] if result.equal_distance is not None else [])]
    answers = [frequency_records(each, records) for each in results]
    return Report(
        question=QUESTION,
        tiles=_tiles(answers),
        plots=plots(answers),
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
        star = "largest K on par with ordinary training" if answered(result) else "no larger K is shown to be on par"
        if len(answers) == 1:
            tiles += [
                Tile("K*", text.period(result.k_star), star),
                Tile("Feature updates that suffice", updates, steps),
            ]
        else:
            enough = f"{updates} feature updates {steps} suffice" if answered(result) else star
            tiles.append(Tile(f"K*, {COMPARISONS[result.comparison]}", text.period(result.k_star), enough))
    return tiles + shared_tiles(answers[0].result)


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
        Column("Lazy gap", "points, 95 % interval"),
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
            text.DASH if gap is None else f"{text.signed(gap.mean)} {text.bracket(gap)}",
            *(f"{sum(lost)} of {sum(o.num_seeds for o in result.outcomes)}" for lost in _lost(result)),
        ]
        rows.append(Row(cells))
    return table(
        "The answers of both comparisons. The lazy gap is the accuracy of K = 1 less that of K = ∞.", columns, rows
    )


def _lost(result: FrequencyResult) -> tuple[list[int], list[int]]:
    """Of each schedule, the runs at its chosen rate that diverged, and those that failed to train."""
    return [o.num_diverged for o in result.outcomes], [o.num_failed for o in result.outcomes]


def _csv(results: Sequence[FrequencyResult]) -> str:
    """The outcomes of every comparison, told apart by a last column."""
    parts = [
        outcomes_csv(each.outcomes, {outcome.schedule: {"comparison": each.comparison} for outcome in each.outcomes})
        for each in results
    ]
    return parts[0] + "".join(part.split("\n", 1)[1] for part in parts[1:])


def _method(answers: Sequence[FrequencyRecords]) -> list[str]:
    first = answers[0].result
    told = []
    if len(answers) > 1:
        told.append(
            f"The question is answered twice: with {_kept_equal(answers[0])}, and with {_kept_equal(answers[1])}. "
            "Learning rates are chosen for each answer by itself, and runs at a rate that takes as many steps either "
            "way are part of both. Learning curves, the map of learning rates and the check of linearity are those of "
            f"{COMPARISONS[first.comparison]}."
        )
    elif first.comparison == "equal-distance":
        told.append(f"Schedules are compared with {_kept_equal(answers[0])}.")
    told.append(
        "K* is the largest K that is on par together with every smaller one tested. Its family of Holm’s correction "
        "are the K tested"
        + ("; the periods of the preset “sparse” are another" if any(map(sparse_period, first.outcomes)) else "")
        + ("; all other schedules are one of their own" if any(map(stands_beside, first.outcomes)) else "")
        + "."
    )
    return told


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


def plots(answers: Sequence[FrequencyRecords]) -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    first, *others = answers
    checks = [_curves_plot(first), _rates_plot(first), _linearity_plot(first)]
    if others:
        updates = [_updates_plot(first, among=answers), *(_updates_plot(data, among=answers) for data in others)]
        shown = [_both_plot(answers), *updates, *checks]
    else:
        shown = [_period_plot(first), _updates_plot(first), *checks]
    return [replace(plot, title=_tied(plot.title)) for plot in shown]


def _tied(title: str) -> str:
    """A title in which no line of a figure begins with a sign."""
    return re.sub(r" ([=×]) ", "\u00a0\\1\u00a0", title)


def _period_plot(data: FrequencyRecords) -> Plot:
    result = data.result
    margin = text.points(result.margin)
    return Plot(
        name="accuracy-against-period",
        title=f"Up to K = {text.period(result.k_star)} the loss of test accuracy is less than {margin}"
        if answered(result)
        else f"No K above 1 is shown to lose less than {margin} of test accuracy",
        caption=_period_caption([result], result.outcomes),
        description=f"Test accuracy against K. {spoken(result.outcomes)}",
        draw=lambda theme: accuracy_against_period(data, theme),
    )


def _both_plot(answers: Sequence[FrequencyRecords]) -> Plot:
    results = [data.result for data in answers]
    found = [
        f"up to K = {text.period(result.k_star)} with {COMPARISONS[result.comparison]}"
        if answered(result)
        else f"no K above 1 with {COMPARISONS[result.comparison]}"
        for result in results
    ]
    shown = [outcome for result in results for outcome in result.outcomes if not stands_beside(outcome)]
    told = [f"{COMPARISONS[r.comparison]}: {spoken([o for o in r.outcomes if not stands_beside(o)])}" for r in results]
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
        description=f"Test accuracy against K. {' '.join(told)}",
        draw=lambda theme: both_comparisons(answers, theme),
    )


def _period_caption(results: Sequence[FrequencyResult], shown: Sequence[ScheduleOutcome]) -> str:
    """How to read an axis of K that shows these outcomes; only of what is there."""
    sentences = [
        "Mean test accuracy of the linearised network and its 95 % interval; faint dots are seeds.",
        "Bands are the intervals of ordinary (K = 1) and lazy (K = ∞) training"
        if with_period(shown, math.inf)
        else "The band is the interval of ordinary (K = 1) training",
    ]
    sentences[-1] += ", the dashed line is one margin below ordinary training, and filled marks are on par with it."
    if any(sparse_period(outcome) is not None for outcome in shown):
        sentences.append("Joined squares are the preset “sparse” at the same K.")
    if any(outcome.num_untrained for outcome in shown):
        sentences.append(f"{text.LOST_MEANS}.")
    if any(outcome.rate_edge is not None for outcome in shown):
        sentences.append(f"{text.EDGES_MEAN}.")
    if any(map(stands_beside, shown)) and any(outcome.period is not None for outcome in results[0].outcomes):
        sentences.append("To the right of the dotted line stand schedules without a place on the axis of K.")
    return " ".join(sentences)


def _updates_plot(data: FrequencyRecords, among: Sequence[FrequencyRecords] = ()) -> Plot:
    """Accuracy against feature updates; `among` are the comparisons of the page, if there are several."""
    result = data.result
    alike = f" with {COMPARISONS[result.comparison]}" if among else ""
    updates, steps = text.count(result.sufficient_feature_updates), f"{_steps(data):,}"
    caption = [
        "The same accuracies against the mean number of feature updates in a run, on a logarithmic axis that includes "
        "zero. Circles update every K steps, and a mark above their line spends its updates better than a fixed K."
    ]
    if any(sparse_period(outcome) is not None for outcome in result.outcomes):
        caption.append("Joined squares are the preset “sparse”, named by its K.")
    if any(map(stands_beside, result.outcomes)):
        caption.append("Diamonds are schedules that are adaptive or have parts of their own.")
    if result.comparison == "equal-distance":
        caption.append("Where the chosen rate is smaller a run takes more steps, and so more updates at the same K.")
    title = (
        f"{updates} feature updates in {steps} steps suffice{alike}"
        if answered(result)
        else f"No K above 1 is shown to suffice{alike or f' in {steps} steps'}"
    )
    return Plot(
        name="accuracy-against-updates" + ("" if data in among[:1] or not among else f"-{result.comparison}"),
        title=title + _fewer(result),
        caption=" ".join(caption),
        description=f"Test accuracy against the number of feature updates{alike}. {spoken(result.outcomes)}",
        draw=lambda theme: accuracy_against_updates(result, theme),
    )


def _fewer(result: FrequencyResult) -> str:
    """What a schedule that is no fixed K spends where that is the least of all on par."""
    fewest = result.outcome(result.fewest_updates or "")
    most = result.sufficient_feature_updates if answered(result) else None
    if fewest is None or fewest.period is not None or (most is not None and fewest.feature_updates >= most):
        return ""
    return f"; {fewest.label} makes do with {text.count(fewest.feature_updates)}"


def _curves_plot(data: FrequencyRecords) -> Plot:
    title = _curves_title(data.result)
    return Plot(
        name="learning-curves",
        title=title,
        caption="Mean over seeds and its 95 % interval at the learning rate chosen for each K"
        + (", which tells how many steps a run takes" if data.result.comparison == "equal-distance" else "")
        + f". {text.EDGES_MEAN}. From where a run diverged, and at the end of one that failed to train, accuracy "
        "counts at chance; a training loss has no such value, so there the mean is over the runs that are left.",
        description=f"Test accuracy and training loss against the step. {title}.",
        draw=lambda theme: learning_curves(data, theme),
    )


def _rates_plot(data: FrequencyRecords) -> Plot:
    title = _rates_title(data.result)
    lost = data.result.num_diverged + data.result.num_failed > 0
    return Plot(
        name="learning-rates",
        title=title,
        caption="Mean final validation accuracy in percent of each schedule at each learning rate, with the chosen "
        "rate outlined."
        + (
            f" {text.LOST_MEANS}; cells of which no run trained are hatched, with dots where none diverged. Colours "
            "span the accuracies of cells of which every run trained."
            if lost
            else ""
        )
        + f" {text.EDGES_MEAN}.",
        description=f"Validation accuracy for every schedule and learning rate. {title}.",
        draw=lambda theme: rates_tried(data, theme),
    )


def _linearity_plot(data: FrequencyRecords) -> Plot:
    gap, label = widest_gap(data.result)
    title = f"Linearised and true network differ by at most {text.percent(gap, 1)} points of accuracy, at {label}"
    return Plot(
        name="linearity",
        title=title,
        caption="Left: accuracy of the linearised network, which is what was trained, and of the network itself at "
        "the same parameters θ. Right: linearisation error ‖f − f̄‖ / ‖f − fₛ‖ and distance of the parameters from "
        "their start, both at the last recorded step, over the runs that trained.",
        description=f"Both predictors, linearisation error and parameter movement against K. {title}.",
        draw=lambda theme: linearity(data, theme),
    )


def _curves_title(result: FrequencyResult) -> str:
    ends = [(o.period, f"{text.percent(o.test_accuracy.mean, 1)} %") for o in selection(result)]
    shown = [(K, end) for K, end in ends if K in (1.0, result.k_star, math.inf)]
    if not shown:
        return "Test accuracy and training loss as training goes on"
    return "Test accuracy ends at " + ", ".join(f"{end} for K = {text.period(K)}" for K, end in shown)


def _rates_title(result: FrequencyResult) -> str:
    calm = [o for o in (with_period(result.outcomes, K) for K in (1.0, math.inf)) if o and not o.share_untrained]
    if not result.num_diverged + result.num_failed or not calm:
        return rates_title(result)
    return f"{rates_title(result)}, none at {' or '.join(o.label for o in calm)}"
