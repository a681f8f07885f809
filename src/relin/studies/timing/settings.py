"""The settings of the timing study."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._schedules import MOST_PLACED, AbstractNamedSchedule, AbstractPlaced, WhenError
from relin.study._settings import GridSpec, Positive, Rate, Several


class TimingSpec(GridSpec, frozen=True):
    """When are feature updates best spent? The same number early, late, evenly, geometrically or adaptively."""

    beyond_outcomes: ClassVar = None
    takes_measure: ClassVar = True
    choosing: ClassVar = GridSpec.choosing | {"feature_updates", "placements", "tolerances"}

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

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        placed = [c for c in conditions if isinstance(c.schedule, AbstractPlaced) and not c.modifiers]
        if not placed:
            raise ValueError("runs of the schedules early-N, even-N, geometric-N or late-N")
        return {
            "feature_updates": [int(c.value) for c in placed],
            "placements": list(dict.fromkeys(c.kind for c in placed)),
            "tolerances": WhenError.numbers_of(conditions),
        }

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
