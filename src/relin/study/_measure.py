"""What runs are judged by: accuracy, or a measure of the user's own."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

from relin.study._scale import R_SQUARED, Better

ACCURACY = "accuracy"
"""The setting `measure` of accuracy, in whose place R² stands where the targets are values."""
_MOST_CHARACTERS = 40
_MARKUP = set("<>&\"'")


@final
@dataclass(frozen=True)
class Accuracy:
    """The share of examples that are classified correctly; of values to predict, R².

    **Arguments:**

    - `margin`: the largest acceptable loss, in percentage points; that of the study's settings by default. Of values,
      the largest acceptable rise of the test error, in percent of ordinary training's.
    """

    margin: float | None = None


@final
@dataclass(frozen=True)
class Measure:
    """Any number that says how good the outputs on a whole part of the data are, such as F1, AUC or Spearman's ρ.

    **Arguments:**

    - `function`: of outputs and targets of all examples of a part, `(n, …)` each as the network and the data give them,
      outputs in float32 at least; it gives one real number. It need not be a mean over examples. JAX compiles it: it
      is written in jax.numpy, or calls NumPy through `jax.pure_callback`. Only runs made elsewhere do without it.
    - `name`: as tables, figures and verdicts call it.
    - `higher_is_better`: which of two values is the better one.
    - `margin`: the largest acceptable loss, or rise where lower is better, in the unit; with `%` in percentage points.
    - `unit`: such as `s` or `nats`; empty for a number without one; `%` for fractions, which are shown in percent.
    - `untrained`: what a run that did not train counts at; by default the function's value for the best constant
      predictor, which knows the mean of the training targets or the frequencies of the classes, on each part.

    **Raises:** `ValueError` for a name, unit or number that cannot be shown.
    """

    function: Callable[[Any, Any], Any] | None
    name: str
    higher_is_better: bool = True
    _: KW_ONLY
    margin: float
    unit: str = ""
    untrained: float | None = None

    def __post_init__(self):
        if self.function is not None and not callable(self.function):
            raise ValueError(
                f"`function` must be a function of outputs and targets, got {type(self.function).__name__}."
            )
        for what, text in (("name", self.name), ("unit", self.unit)):
            if not isinstance(text, str) or len(text) > _MOST_CHARACTERS or not text.isprintable() or _MARKUP & {*text}:
                raise ValueError(
                    f"`{what}` must be a text of at most {_MOST_CHARACTERS} characters without quotes, <, > and &, got "
                    f"{text!r}."
                )
        if not self.name.strip() or self.name.lower() == ACCURACY or self.name == R_SQUARED:
            raise ValueError(
                f"`name` must tell the measure from accuracy and R², got {self.name!r}; choose another one."
            )
        if not isinstance(self.higher_is_better, bool):
            raise ValueError(f"`higher_is_better` must be True or False, got {self.higher_is_better!r}.")
        if not _is_number(self.margin) or self.margin <= 0:
            raise ValueError(f"`margin` must be a finite number above 0 in the measure's unit, got {self.margin!r}.")
        if self.unit == "%" and self.margin >= 100:
            raise ValueError(f"`margin` must be less than 100 percentage points of a fraction, got {self.margin!r}.")
        if self.untrained is not None and not _is_number(self.untrained):
            raise ValueError(f"`untrained` must be a finite number, got {self.untrained!r}.")

    @property
    def better(self) -> Better:
        """Which values are better: `"higher"` or `"lower"`."""
        return "higher" if self.higher_is_better else "lower"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
