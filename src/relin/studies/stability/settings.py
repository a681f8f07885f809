"""The settings of the stability study."""

import math
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._schedules import WhenError
from relin.study._settings import GridSpec, Period, Rate, Several, whole_periods


class StabilitySpec(GridSpec, frozen=True):
    """Up to which learning rate does sparse feature learning train, and what do stabilising parts cost and bring?"""

    beyond_outcomes: ClassVar = "λ_max of the linearised problem along each run, the column sharpness"
    takes_measure: ClassVar = True
    choosing: ClassVar = GridSpec.choosing | {"periods", "parts", "tolerances"}

    study: Literal["stability"] = Field("stability", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [1, 4, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    parts: Several[str] = Field(
        ["clip-1", "line-1", "trust-1", "proximal-0.1", "reset", "sparse"],
        description="Parts each of which is added to every period between 1 and infinity.",
    )
    tolerances: Several[Rate] = Field([0.1, 0.3], description="Tolerances of the adaptive schedule WhenError.")

    _whole = field_validator("periods")(whole_periods)

    @field_validator("follow_edges")
    @classmethod
    def _equal_rates(cls, number: int) -> int:
        if number:
            raise ValueError("this study compares schedules at the same rates; offer more in learning_rates")
        return number

    @field_validator("parts")
    @classmethod
    def _parts_understood(cls, parts: list[str]) -> list[str]:
        return [every(1, part).modifiers[0].name for part in parts]

    def own_conditions(self) -> list[Condition]:
        between = [k for k in self.periods if 1 < k < math.inf]
        return [
            *map(every, self.periods),
            *(every(k, part) for part in self.parts for k in between),
            *(Condition(WhenError(tolerance)) for tolerance in self.tolerances),
        ]
