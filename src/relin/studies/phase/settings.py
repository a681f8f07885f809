"""The settings of the phase study."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from relin._common.words import listed
from relin.study._condition import Condition, every, parse_condition
from relin.study._settings import LARGEST, GridSpec, Positive, Several


class PhaseSpec(GridSpec, frozen=True):
    """How many feature updates suffice, as training grows longer?"""

    beyond_outcomes: ClassVar = None
    takes_measure: ClassVar = True
    choosing: ClassVar = GridSpec.choosing | {"steps", "totals", "updates"}

    study: Literal["phase"] = Field("phase", description="Which question the study answers.")
    steps: Positive = Field(1000, description="The largest of totals, which set it.")
    totals: Several[Annotated[int, Field(ge=2, le=LARGEST)]] = Field(
        [30, 100, 300, 1000], description="Numbers of training steps T to compare."
    )
    updates: Several[Annotated[int, Field(ge=0, le=LARGEST)]] = Field(
        [0, 1, 3, 7, 15, 31, 63, 127, 255],
        description="Numbers of feature updates n in a run, 0 for lazy training: re-linearised every K = ⌈T/(n + 1)⌉ "
        "steps. Ordinary training, n = T − 1, is always there.",
    )

    @field_validator("totals", "updates")
    @classmethod
    def _sorted(cls, values: list[int]) -> list[int]:
        if not values:
            raise ValueError("at least one is needed")
        return sorted(set(values))

    @field_validator("methods")
    @classmethod
    def _beside_the_map(cls, methods: list[str]) -> list[str]:
        if periods := [name for name in methods if parse_condition(name).period is not None]:
            raise ValueError(f"periods follow from updates, got {listed(periods)}; set updates instead")
        return methods

    @model_validator(mode="before")
    @classmethod
    def _set_by_totals(cls, fields: Any) -> Any:
        totals = fields.get("totals") if isinstance(fields, dict) else None
        if isinstance(totals, list) and totals and all(type(total) is int for total in totals):
            return {"steps": max(totals), **fields}
        return fields

    @model_validator(mode="after")
    def _longest(self) -> Self:
        if self.steps != max(self.totals):
            raise ValueError(f"steps are set by totals, to the largest, {max(self.totals)}; leave them out")
        return self

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        updates = {c.schedule.updates_by(t, t) for c in conditions if c.period not in (None, 1) for t in totals}
        return {"totals": list(totals), "updates": sorted(n for n in updates if n is not None)}

    @property
    def axis(self) -> str:
        return "run_steps"

    def cells(self) -> list[Self]:
        return [self.at(total, steps=total) for total in self.totals]

    def own_conditions(self) -> list[Condition]:
        """Those of T = `steps`: numbers of updates that lead to the same K are one."""
        periods = {1.0} | {period_of(updates, self.steps) for updates in self.updates if updates < self.steps}
        return [every(period) for period in sorted(periods)]


def period_of(updates: int, total: int) -> float:
    """K of about n feature updates in T steps: ⌈T/(n + 1)⌉, and infinity for none."""
    return math.inf if updates == 0 else float(-(-total // (updates + 1)))
