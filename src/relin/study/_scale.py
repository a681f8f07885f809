"""How the numbers of a result are read: the one place that knows their unit, their digits and which side is better."""

import math
from dataclasses import dataclass, replace
from typing import Literal, final

from relin.study._interval import Interval

RESOLUTION = 1e-7
"""Accuracies nearer to each other than this are equal: they are ratios of counts, at worst in float32.

Without it the last bit of a subtraction would decide a tie, or pass for a spread of equal differences.
"""

DASH = "–"
MINUS = "−"
R_SQUARED = "R²"
"""Of values to predict: 1 − error over that of the constant predictor, the mean over the training set."""
Better = Literal["higher", "lower"]


def fixed(value: float | None, digits: int) -> str:
    """`value` with a true minus sign, without a negative zero."""
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def tick(value: float) -> str:
    """A tick label without mathematics, so that no label can be read as a formula, and without a negative zero."""
    return f"{value + 0.0:.6g}".replace("-", MINUS)


@final
@dataclass(frozen=True)
class Scale:
    """Of the scores that results hold.

    A score is higher the better: that of a measure of which lower values are better is its negative. What is shown is
    the measure itself, fractions in percent and their differences in points; other units have as many decimals as show
    two significant digits of the margin.
    """

    measure: str = "accuracy"
    unit: str = "%"
    """Of the measure, `%` for a fraction; empty for a number without one."""
    better: Better = "higher"
    margin: float = 0.01
    """The largest acceptable loss, in scores."""
    relative_margin: float | None = None
    """The same as a part of ordinary training's error, where R² is compared."""

    @property
    def is_own(self) -> bool:
        """Whether it is a measure of the user's own."""
        return self.measure not in ("accuracy", R_SQUARED)

    @property
    def resolution(self) -> float:
        """Scores nearer to each other than this are equal: far below the margin, which may be small.

        The rounding of float32 is smaller for values up to about eighty margins; larger ones may differ by rounding.
        """
        return 1e-5 * self.margin if self.is_own or self.relative_margin is not None else RESOLUTION

    def beside(self, ordinary: float) -> "Scale":
        """That of what is compared with ordinary training of this mean score: of R², with a margin that is a part of
        its error."""
        if self.measure != R_SQUARED:
            return self
        part = self.margin if self.relative_margin is None else self.relative_margin
        return replace(self, margin=part * (1 - ordinary), relative_margin=part)

    def of_setting(self, margin: float) -> float:
        """A margin as settings have it, in percentage points of fractions, in scores."""
        return margin / 100 if self.unit == "%" else margin

    def own(self, interval: Interval | None) -> Interval | None:
        """An interval of scores as one of the measure itself."""
        return interval if interval is None or not self.turned else -interval

    @property
    def factor(self) -> float:
        """Of a score on the axis of a figure, which is turned where lower values are better: better is up."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def turned(self) -> bool:
        return self.better == "lower"

    def shown(self, score: float) -> float:
        """The measure itself, in percent if it is a fraction."""
        return (-self.factor if self.turned else self.factor) * score

    def value(self, score: float | None, digits: int = 2) -> str:
        """A score as the measure, without its unit; `digits` is the number of decimals in percent."""
        return fixed(None if score is None else self.shown(score), self._decimals(digits))

    def told(self, score: float | None, digits: int = 2) -> str:
        """The same with its unit: 0.943 is "94.30 %"."""
        return self._with(self.value(score, digits), self.unit)

    def signed(self, difference: float | None, digits: int = 2) -> str:
        """A difference with its sign, without its unit: 0.004 is "+0.40"."""
        text = self.value(difference, digits)
        return text if text == DASH or text.startswith(MINUS) or float(text) == 0 else f"+{text}"

    def gain(self, difference: float | None, digits: int = 2) -> str:
        """By how much a score is better, without the unit: "0.40", and "−0.40" where it is worse."""
        return fixed(None if difference is None else self.factor * difference, self._decimals(digits))

    def plus_minus(self, interval: Interval, digits: int = 2, gap: str = " ") -> str:
        """Mean ± half the width of the interval."""
        half = self.gain((interval.high - interval.low) / 2, digits)
        return f"{self.value(interval.mean, digits)}{gap}±{gap}{half}"

    def ends(self, interval: Interval) -> tuple[float, float]:
        """The scores at the two ends, the lower value of the measure first."""
        return (interval.high, interval.low) if self.turned else (interval.low, interval.high)

    def bracket(self, interval: Interval | None, digits: int = 2) -> str:
        """The two ends of an interval of differences."""
        if interval is None:
            return DASH
        low, high = (self.signed(end, digits) for end in self.ends(interval))
        return f"[{low}, {high}]"

    def to(self, interval: Interval, digits: int = 1) -> str:
        """The two ends of an interval in words: "0.3 to 1.2"."""
        low, high = (self.value(end, digits) for end in self.ends(interval))
        return f"{low} to {high}"

    def with_interval(self, difference: Interval | None) -> str:
        """A difference and the ends of its interval: "+0.40 [+0.10, +0.70]"."""
        return DASH if difference is None else f"{self.signed(difference.mean)} {self.bracket(difference)}"

    @property
    def points(self) -> str:
        """The unit of differences."""
        return "points" if self.unit == "%" else self.unit

    def in_points(self, number: str) -> str:
        """A number with the unit of differences: "0.40 points"."""
        return self._with(number, self.points)

    def headed(self, *words: str, difference: bool = False) -> str:
        """The unit, or that of differences, before other words of a heading, which stand alone without one."""
        return ", ".join(filter(None, (self.points if difference else self.unit, *words)))

    def axis(self, name: str, difference: bool = False) -> str:
        """The name of an axis with its unit: "test accuracy, %"."""
        return ", ".join(filter(None, (name, self.points if difference else self.unit)))

    def margin_words(self, significant: int = 4) -> str:
        """The margin as a loss: "1 percentage point" or, of values, "5 % of ordinary training’s test error"."""
        if self.relative_margin is not None:
            return f"{100 * self.relative_margin:.{significant}g} % of ordinary training’s test error"
        value = f"{self.factor * self.margin:.{significant}g}"
        if self.unit == "%":
            return f"{value} percentage point{'' if value == '1' else 's'}"
        return self._with(value, self.unit)

    def short(self, difference: float) -> str:
        """A difference on a figure: -0.01 is "−1 point"; where the margin is a part of an error, with two digits."""
        if self.unit != "%":
            return self.in_points(tick(float(f"{self.shown(difference):.4g}")))
        shown = self.shown(difference)
        value = tick(round(shown, 4) if self.relative_margin is None else float(f"{shown:.2g}"))
        return f"{value} point{'' if value.lstrip(MINUS) == '1' else 's'}"

    @property
    def short_margin(self) -> str:
        """The margin on a figure, as a loss without a sign: "1 point"."""
        if self.relative_margin is not None:
            return "the margin"
        return self.short(-self.margin if self.turned else self.margin)

    @property
    def superior(self) -> str:
        """What a better result is."""
        if self.measure == "accuracy":
            return "more accurate"
        return f"{'better' if self.is_own else 'higher'} in {self.measure}"

    @property
    def loss(self) -> str:
        """What a worse value is."""
        return "rise" if self.turned else "loss"

    @property
    def worse(self) -> str:
        """On which side of another value a worse one lies."""
        return "above" if self.turned else "below"

    def counted(self, chance: float) -> str:
        """What a run that did not train counts at."""
        if self.is_own:
            return f"{self.measure} {self.told(chance)}, which stands for a run that did not train"
        if self.measure == R_SQUARED:
            return f"R² = {tick(chance)}, the constant predictor’s"
        return f"chance accuracy ({100 * chance:.3g} %)"

    def _decimals(self, digits: int) -> int:
        if self.unit == "%" or not 0 < self.margin < math.inf:
            return digits
        return max(0, 1 - math.floor(math.log10(self.margin)))

    @staticmethod
    def _with(number: str, unit: str) -> str:
        return " ".join(filter(None, (number, unit)))


PERCENT = Scale()
"""Of accuracies, in studies that know no other measure."""
