"""The settings of the damping study."""

import itertools
import math
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from relin.study._descent_specs import DescentSpec
from relin.study._settings import Period, Positive, Several, whole_periods


class DampingSpec(DescentSpec, frozen=True):
    """Is iterative linearisation damped Gauss–Newton, with the damping λ = 1/(ηK)?"""

    beyond_outcomes: ClassVar = "the outputs of full-batch runs on the validation data, the column outputs"

    study: Literal["damping"] = Field("damping", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [4.0**power for power in range(11)], description="Periods K of gradient descent, at least three and finite."
    )
    dampings_per_period: Positive = Field(
        2,
        le=100,
        description="Dampings λ = 1/(ηκ) from one period to the next; κ is from K/4 of the first to 4K of the last.",
    )
    outer_steps: Positive = Field(20, le=100_000, description="Re-linearisations of each run, or Gauss–Newton steps.")
    compared_after: Several[Positive] = Field(
        [1, 5], description="Numbers of outer steps after which the iterates of the two methods are compared."
    )
    kernel_probe: Positive = Field(64, description="Validation examples on which the kernel is computed.")

    @field_validator("periods")
    @classmethod
    def _finite(cls, periods: list[float]) -> list[float]:
        if any(math.isinf(k) for k in periods) or len(set(periods)) < 3:
            raise ValueError("at least three finite periods are needed")
        return [k for k in whole_periods([1, *periods]) if k in periods]

    @field_validator("compared_after")
    @classmethod
    def _sorted(cls, steps: list[int]) -> list[int]:
        if not steps:
            raise ValueError("at least one number of outer steps is needed")
        return sorted(set(steps))

    @model_validator(mode="after")
    def _reached(self) -> "DampingSpec":
        if self.compared_after[-1] > self.outer_steps:
            raise ValueError(f"compared_after must be at most outer_steps, {self.outer_steps}")
        return self

    @property
    def kappas(self) -> list[float]:
        """κ of the dampings λ = 1/(ηκ): the periods, as many between any two, and beyond both ends."""
        ends = [self.periods[0] / 4, *self.periods, 4 * self.periods[-1]]
        parts = self.dampings_per_period
        between = [
            low * (high / low) ** (part / parts) if part else low
            for low, high in itertools.pairwise(ends)
            for part in range(parts)
        ]
        return [*between, ends[-1]]
