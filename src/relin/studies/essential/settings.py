"""The settings of the essential study."""

import math
from typing import Literal

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._schedules import After, Until
from relin.study._settings import GridSpec, Positive, Several


class EssentialSpec(GridSpec, frozen=True):
    """Is feature learning essential, and when? Without it, until some step only, or from some step on."""

    study: Literal["essential"] = Field("essential", description="Which question the study answers.")
    frozen_after: Several[Positive] = Field(
        [1, 4, 16, 64, 256], description="Features are frozen after so many updates, one at each step from the start."
    )
    learnt_from: Several[Positive] = Field(
        [16, 64, 256, 512], description="Features start to move at these steps; the network is lazy before."
    )

    @field_validator("frozen_after", "learnt_from")
    @classmethod
    def _sorted(cls, values: list[int]) -> list[int]:
        return sorted(set(values))

    def own_conditions(self) -> list[Condition]:
        return [
            every(1),
            *(Condition(Until(number)) for number in self.frozen_after),
            *(Condition(After(step)) for step in self.learnt_from),
            every(math.inf),
        ]
