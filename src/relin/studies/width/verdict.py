"""What the width study concluded, in words."""

from relin.studies.width.result import WidthOutcome, WidthResult
from relin.study._kernel import constancy_clause, violated
from relin.study._result import Interval
from relin.study._statistics import INTERVAL_CONFIDENCE
from relin.study._verdict import count, outcome_clauses, spelled

_ROUNDING = 1e-9
"""Of a slope."""


def width_verdict(result: WidthResult) -> str:
    """The answer in one sentence, its conditions after semicolons; a violated constancy comes first."""
    narrow, wide = result.widths[0], result.widths[-1]
    clauses = [
        f"On {result.data}, {_moved(result, narrow, wide)}",
        *([_gaps(result, narrow, wide)] if result.is_comparable else []),
        *_deviated(result, narrow, wide),
        constancy_clause(result.constancy),
        *outcome_clauses(result, "widths"),
    ]
    text = "; ".join(clauses)
    seeds = count(result.num_seeds, "paired seed")
    return f"{violated(result.constancy)}{text} ({100 * INTERVAL_CONFIDENCE:g} % intervals over {seeds} a width)."


def _moved(result: WidthResult, narrow: WidthOutcome, wide: WidthOutcome) -> str:
    slope = result.change_slope
    if slope is None or narrow.change is None or wide.change is None:
        return "too few runs of ordinary training (K = 1) trained to say how the NTK moves with width"
    how = "moves less" if slope.high < 0 else "moves more" if slope.low > 0 else "is not shown to move less or more"
    return (
        f"the NTK {how} in wider networks: in ordinary training it changes by {spelled(narrow.change)} at width "
        f"{narrow.width} and by {spelled(wide.change)} at width {wide.width}, as width to the power {spelled(slope)} "
        f"({_against_theory(slope)})"
    )


def _against_theory(slope: Interval) -> str:
    """Theory says O(1/√width) of both: at most that of the change (Lee et al. 2019, arXiv:1902.06720)."""
    if slope.low - _ROUNDING <= -0.5 <= slope.high + _ROUNDING:
        return "theory: −1/2"
    return f"{'faster' if slope.mean < -0.5 else 'more slowly'} than the −1/2 of theory"


def _gaps(result: WidthResult, narrow: WidthOutcome, wide: WidthOutcome) -> str:
    scale = result.scale

    def gap(at: WidthOutcome) -> str:
        mean, low, high = (scale.gain(score) for score in (at.gap.mean, at.gap.low, at.gap.high))
        return f"{scale.in_points(mean)} [{low}, {high}] at width {at.width}"

    shown = [at.width for at in result.widths if at.gap.low > 0]
    where = "at every width" if len(shown) == len(result.widths) else f"at {len(shown)} of {len(result.widths)} widths"
    return (
        f"ordinary training is {gap(narrow)} and {gap(wide)} {scale.superior} than lazy training (K = ∞), "
        f"{'with zero below the interval' if scale.turned else 'above zero'} {where}"
    )


def _deviated(result: WidthResult, narrow: WidthOutcome, wide: WidthOutcome) -> list[str]:
    slope = result.deviation_slope
    if slope is None or narrow.deviation is None or wide.deviation is None:
        return []
    return [
        f"the initial kernel deviates from that of infinite width by {spelled(narrow.deviation)} and "
        f"{spelled(wide.deviation)}, as width to the power {spelled(slope)} ({_against_theory(slope)})"
    ]
