"""The settings of the frequency study."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from relin.study._condition import Condition, every
from relin.study._modifiers import Sparse
from relin.study._schedules import WhenError
from relin.study._settings import Comparison, GridSpec, Period, Positive, Rate, Several, whole_periods


class FrequencySpec(GridSpec, frozen=True):
    """How rarely can features be updated without loss?"""

    beyond_outcomes: ClassVar = None
    takes_measure: ClassVar = True
    choosing: ClassVar = GridSpec.choosing | {
        "periods",
        "sparse_periods",
        "tolerances",
        "comparison",
        "reference_rate",
        "max_steps",
    }
    belong_to: ClassVar = {**GridSpec.belong_to, "optimiser": (*GridSpec.belong_to["optimiser"], "reference_rate")}

    study: Literal["frequency"] = Field("frequency", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [1, 4, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    sparse_periods: Several[Period] = Field([], description="Periods of the preset `sparse` to show beside them.")
    tolerances: Several[Rate] = Field(
        [], description="Tolerances of the adaptive schedule WhenError to show beside them."
    )
    comparison: Literal["equal-steps", "equal-distance", "both"] = Field(
        "equal-steps",
        description="Whether every rate takes T steps, or smaller rates more, T · reference_rate / rate; or both.",
    )
    reference_rate: Rate | None = Field(
        None,
        description="With equal-distance: the rate that takes T steps; smaller ones take more, up to max_steps.",
    )
    max_steps: Positive = Field(10_000, description="With equal-distance: the most steps a run may take.")

    _whole = field_validator("periods")(whole_periods)

    @field_validator("sparse_periods")
    @classmethod
    def _whole_sparse(cls, periods: list[float]) -> list[float]:
        return [k for k in whole_periods([1, *periods]) if k in periods]

    @field_validator("tolerances")
    @classmethod
    def _sorted(cls, values: list[float]) -> list[float]:
        return sorted(set(values), reverse=True)

    @model_validator(mode="after")
    def _long_enough(self) -> "FrequencySpec":
        if self.comparison != "equal-steps" and self.max_steps < self.steps:
            raise ValueError(f"max_steps must be at least steps, {self.steps}, got {self.max_steps}")
        return self

    def own_conditions(self) -> list[Condition]:
        return [
            *map(every, self.periods),
            *(every(k, "sparse") for k in self.sparse_periods),
            *(Condition(WhenError(tolerance)) for tolerance in self.tolerances),
        ]

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        return {
            "periods": [c.value for c in conditions if c.period is not None],
            "sparse_periods": [
                c.value for c in conditions if c.modifiers == (Sparse(),) and c.schedule.period is not None
            ],
            "tolerances": WhenError.numbers_of(conditions),
        }

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return ("equal-steps", "equal-distance") if self.comparison == "both" else (self.comparison,)

    def steps_at(self, rate: float, comparison: Comparison | None = None) -> int:
        if (comparison or self.comparisons[0]) == "equal-steps":
            return self.steps
        reference = self.reference_rate or max(self.learning_rates)
        return max(1, min(self.max_steps, round(self.steps * max(1.0, reference / rate))))
