"""The settings of the timing study."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._schedules import MOST_PLACED, AbstractNamedSchedule, WhenError
from relin.study._settings import GridSpec, Positive, Rate, Several


class TimingSpec(GridSpec, frozen=True):
    """When are feature updates best spent? The same number early, late, evenly, geometrically or adaptively."""

    study: Literal["timing"] = Field("timing", description="Which question the study answers.")
    feature_updates: Several[Annotated[Positive, Field(le=MOST_PLACED)]] = Field(
        [8, 32], description="The numbers N of feature updates to spend."
    )
    placements: Several[Literal["early", "even", "geometric", "late"]] = Field(
        ["early", "even", "geometric", "late"],
        description="Where the N updates go: one a step from the start, evenly, at evenly spaced powers of the step, "
        "or one a step at the end.",
    )
    tolerances: Several[Rate] = Field(
        [0.2, 0.4, 0.8],
        description="Tolerances of WhenError; the one that spends most updates, but at most N, stands for adaptive.",
    )

    @field_validator("feature_updates", "tolerances")
    @classmethod
    def _sorted(cls, values: list[float]) -> list[float]:
        return sorted(set(values))

    def own_conditions(self) -> list[Condition]:
        placed = [
            Condition(AbstractNamedSchedule.kinds[placement](number))
            for number in self.feature_updates
            for placement in self.placements
        ]
        return [
            every(1),
            *placed,
            *(Condition(WhenError(tolerance)) for tolerance in self.tolerances),
            every(math.inf),
        ]
