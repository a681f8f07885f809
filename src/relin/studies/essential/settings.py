"""The settings of the essential study."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._schedules import After, Until
from relin.study._settings import GridSpec, Positive, Several


class EssentialSpec(GridSpec, frozen=True):
    """Is feature learning essential, and when? Without it, until some step only, or from some step on."""

    beyond_outcomes: ClassVar = None
    takes_measure: ClassVar = True
    choosing: ClassVar = GridSpec.choosing | {"frozen_after", "learnt_from"}

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

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        own = {"frozen_after": Until.numbers_of(conditions), "learnt_from": After.numbers_of(conditions)}
        if not any(own.values()) and every(math.inf) not in conditions:
            raise ValueError("runs of the schedules until-N, after-S or never")
        return own

    def own_conditions(self) -> list[Condition]:
        return [
            every(1),
            *(Condition(Until(number)) for number in self.frozen_after),
            *(Condition(After(step)) for step in self.learnt_from),
            every(math.inf),
        ]
