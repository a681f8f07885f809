"""Numbers as people read them: percent, percentage points, p-values; NaN and none read as a dash."""

import math

from relin.study._result import Interval, ScheduleOutcome
from relin.study._scale import DASH as DASH, MINUS, fixed as fixed, tick as tick

EDGES = {"largest": "↥", "smallest": "↧", None: ""}
"""What marks a schedule whose chosen learning rate is an end of those offered."""
NOTHING_TO_COMPARE = "Ordinary training is nothing to compare with"
"""The title of a figure, or what a tile says, where no schedule can be on par."""
EDGES_MEAN = "↥ marks a chosen rate that is the largest offered, and ↧ the smallest"
UNTRAINED_MEANS = "×2∅1/12 says that of twelve runs two diverged and one failed to train, each counted at chance"


def percent(fraction: float | None, digits: int = 2) -> str:
    """A fraction as percent, without the sign: 0.943 is "94.30"."""
    return fixed(None if fraction is None else 100 * fraction, digits)


def p_value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return DASH
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def rate(value: float | None) -> str:
    return DASH if value is None or math.isnan(value) else f"{value:.4g}"


def chosen_rate(outcome: ScheduleOutcome) -> str:
    """The learning rate chosen for a schedule, marked where it is an end of those offered: "0.3↥"."""
    return rate(outcome.learning_rate) + EDGES[outcome.rate_edge]


def untrained_mark(diverged: int, failed: int, runs: int) -> str:
    """How many runs did not train, as figures mark it: "×2∅1/12"; empty where all did."""
    signs = "".join(f"{sign}{number}" for sign, number in (("×", diverged), ("∅", failed)) if number)
    return f"{signs}/{runs}" if signs else ""


UNTRAINED_HEADING = "div.\nfail"
"""Of a narrow column of `untrained_counts`."""


def untrained_counts(diverged: int, failed: int) -> str:
    """Runs that diverged and runs that failed to train in a narrow column: "2, 1"."""
    return f"{diverged}, {failed}"


def untrained_words(diverged: int, failed: int) -> str:
    """The same in words, "2 diverged, 1 failed to train"; empty where all trained."""
    counts = ((diverged, "diverged"), (failed, "failed to train"))
    return ", ".join(f"{number:,} {how}" for number, how in counts if number)


def name_and_untrained(name: str, outcome: ScheduleOutcome) -> str:
    """The name of a schedule's curve, with the mark of its learning rate, and its runs that did not train."""
    name, words = name + EDGES[outcome.rate_edge], untrained_words(outcome.num_diverged, outcome.num_failed)
    return f"{name} ({words})" if words else name


def count(value: float | None) -> str:
    """A count or a mean of counts: 1999 is "1,999", 61.33 is "61.3"."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def counted(value: float | None, noun: str) -> str:
    """A count with its noun: "1 update", "1,999 updates"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def period(K: float | None) -> str:
    if K is None or math.isnan(K):
        return DASH
    return "∞" if math.isinf(K) else f"{K:g}"


def schedule(outcome: ScheduleOutcome) -> str:
    """The shortest name that still says what it is: "K = ∞", "error ≤ 0.1"."""
    return outcome.label if outcome.period is None else f"K = {period(outcome.period)}"


def significant(value: float | None) -> str:
    """Three significant digits: 0.13624 is "0.136", 21.93 is "21.9"."""
    return DASH if value is None or math.isnan(value) else power(value)


def span(interval: Interval) -> str:
    """The ends of an interval in words, in three significant digits."""
    return f"{significant(interval.low)} to {significant(interval.high)}"


def measured(interval: Interval | None, gap: str = " ") -> str:
    """Mean ± half the width of the interval, with as many decimals as the half needs for two digits."""
    if interval is None or math.isnan(interval.mean):
        return DASH
    half = (interval.high - interval.low) / 2
    if half > 0:
        digits = min(max(1 - math.floor(math.log10(half)), 0), 6)
    else:
        digits = 0 if float(interval.mean).is_integer() else 3
    return f"{fixed(interval.mean, digits)}{gap}±{gap}{fixed(half, digits)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(value: float) -> str:
    """A small or large number with its power of ten: 0.00002 is "2·10⁻⁵", 0.02 is "0.02"."""
    if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
        return tick(float(f"{value:.3g}"))
    mantissa, exponent = f"{value:.2e}".split("e")
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    factor = mantissa.rstrip("0").rstrip(".").replace("-", MINUS)
    return raised if factor == "1" else f"{factor}·{raised}"


def short(number: float) -> str:
    """A period in few characters: 65536 is "65,536", 1048576 "1.05·10⁶", infinity "∞"."""
    if math.isinf(number):
        return "∞"
    return count(number) if number < 1e5 and float(number).is_integer() else power(number)


def on_par(value: bool | None) -> str:
    return DASH if value is None else ("✓" if value else "✗")
