"""What a study concluded, in words."""

import math
import re

from relin.study._result import GridResult, Interval, ScheduleOutcome
from relin.study._scale import R_SQUARED, Scale, fixed
from relin.study._statistics import INTERVAL_CONFIDENCE

ORDINARY = "every-1"
"""The schedule that all others are compared with."""


def criterion(result: GridResult, tested: str = "", most_paired: int | None = None) -> str:
    """What *on par* means in a study, and over how many seeds.

    **Arguments:**

    - `tested`: over what Holm's correction is; by default over each kind of schedule.
    - `most_paired`: the most seeds any schedule has in common with K = 1, if not as many as the fewest.
    """
    seeds = f"{result.num_seeds}" if most_paired in (None, result.num_seeds) else f"{result.num_seeds} to {most_paired}"
    return (
        f"{'' if tested else 'on par: '}{_least(result)}, "
        f"one-sided {100 * result.confidence:g} % confidence, Holm-corrected {tested or 'over schedules of a kind'}, "
        f"{seeds} paired seeds"
    )


def _least(result: GridResult) -> str:
    if result.relative_margin is not None:
        return f"test error at most {100 * result.relative_margin:g} % above that of ordinary training"
    margin = result.scale.margin_words(significant=6)
    return f"test accuracy at most {margin} {result.scale.worse} ordinary training"


def in_measure(text: str, measure: str) -> str:
    """A text with the name of what is measured in the place of the word accuracy; names of files stay."""
    if measure == "accuracy":
        return text
    parts = text.split(measure)  # which may have the word in it
    text = measure.join(re.sub(r"(?<![-/#.\w])[Aa]ccurac(?:y|ies)(?![-\w])", lambda _: measure, part) for part in parts)
    return text if measure == R_SQUARED else re.sub(r"\bat chance\b", "at the value for such runs", text)


def no_yardstick(result: GridResult) -> str:
    """That ordinary training is nothing that could be compared with."""
    scale = result.scale
    if scale.measure != "accuracy":
        least = f"{scale.counted(result.chance)}," if scale.is_own else "the constant predictor"
        return f"ordinary training (K = 1) is no better on test data than {least} even at the best of its"
    return "no run of ordinary training (K = 1) trained even at the best of its"


def nothing_to_compare_with(result: GridResult) -> str:
    tried = "rates must be offered" if result.scale.measure == "accuracy" else "rates or settings must be tried"
    return f"{no_yardstick(result)} learning rates, so there is nothing to compare with and other {tried}"


def outcome_clauses(result: GridResult, cells: str = "cells") -> list[str]:
    """What bears on all of an answer: whether there is something to compare with, chosen rates at an end of those
    offered, and runs that did not train.

    `cells` names what there is ordinary training at each of, in a study with an axis.
    """
    diverged, failed = (sum(getattr(o, f"num_{how}") for o in result.outcomes) for how in ("diverged", "failed"))
    total = sum(outcome.num_seeds for outcome in result.outcomes)
    lost = untrained(
        diverged, failed, f"{total} runs at the chosen learning rates", result.scale.counted(result.chance)
    )
    nothing = [] if result.is_comparable else [nothing_to_compare_with(result)]
    return [*nothing, *edge_clauses(result, cells), *lost]


def no_answer(result: GridResult, cells: str = "cells") -> str:
    """The verdict where ordinary training is nothing to compare with."""
    return f"On {result.data}, {'; '.join(outcome_clauses(result, cells))}."


def untrained(diverged: int, failed: int, runs: str, at: str) -> list[str]:
    """How many of `runs`, such as `8 runs`, diverged, and how many failed to train, and at what they count; nothing if
    none did."""
    if not diverged + failed:
        return []
    first, how = (diverged, "diverged") if diverged else (failed, "failed to train")
    counted = f", {failed} failed to train, and all count" if diverged and failed else " and count"
    counted += "s" if diverged + failed == 1 else ""
    return [f"{first} of the {runs} {how}{counted} at {at}"]


def edge_clauses(result: GridResult, cells: str = "cells") -> list[str]:
    """Of which schedules the best learning rate is the largest or the smallest offered, ordinary training first."""
    clauses = []
    for end in ("largest", "smallest"):
        ordinary = [o for o in result.outcomes if o.schedule == ORDINARY]
        others = [o for o in result.outcomes if o.schedule != ORDINARY]
        own, beside = ([o for o in group if o.rate_edge == end] for group in (ordinary, others))
        if own:
            what = f"the best rate of ordinary training (K = 1) is the {end} offered, {_rates_of(own)}"
            what += f", at {len(own)} of {len(ordinary)} {cells}" if len(ordinary) > 1 else ""
            what += f", as that of {_part(beside, others)} is" if beside else ""
            clauses.append(f"{what}: {'larger' if end == 'largest' else 'smaller'} ones might serve better")
        elif beside:
            clauses.append(f"the best rate of {_part(beside, others)} is the {end} offered")
    return clauses


def _part(some: list[ScheduleOutcome], others: list[ScheduleOutcome]) -> str:
    return f"{len(some)} of {len(others)} other schedules" if len(some) < len(others) else "every other schedule"


def _rates_of(outcomes: list[ScheduleOutcome]) -> str:
    return " or ".join(dict.fromkeys(f"{outcome.learning_rate:g}" for outcome in outcomes))


def count(number: float, noun: str) -> str:
    """A number of things, or a mean of numbers, in words: `1 update`, `16 updates` or `3.5 updates`."""
    shown = f"{number:.0f}" if float(number).is_integer() else f"{number:.4g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def lazy_clause(gap: Interval, scale: Scale) -> str:
    """The lazy gap in words."""
    return f"without feature learning (K = ∞) {gap_clause(gap, scale)}"


def gap_words(gap: Interval, scale: Scale) -> str:
    """A gap to ordinary training, positive where that is better, such as `0.80 points lower`."""
    side = "lower" if (gap.mean >= 0) != scale.turned else "higher"
    return f"{scale.in_points(scale.gain(abs(gap.mean)))} {side}"


def gap_clause(gap: Interval, scale: Scale) -> str:
    """The same with its interval, told in the direction of the words, so that the mean lies in it."""
    low, high = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    zero = ", which contains zero" if low <= 0 <= high else ""
    return (
        f"accuracy is {gap_words(gap, scale)}, "
        f"{100 * INTERVAL_CONFIDENCE:g} % interval [{scale.gain(low)}, {scale.gain(high)}]{zero}"
    )


def spelled(interval: Interval) -> str:
    """Mean and interval with as many digits as tell them apart, for example `0.136 [0.121, 0.151]`."""
    width = interval.high - interval.low
    size = max(abs(interval.mean), abs(interval.low), abs(interval.high))
    if size == 0:
        return "0"
    digits = 1 - math.floor(math.log10(width)) if width > 0 else 2 - math.floor(math.log10(size))
    digits = min(max(digits, 0), 8)
    mean, low, high = (fixed(value, digits) for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"
