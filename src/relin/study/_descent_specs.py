"""The settings of the studies of full-batch gradient descent on squared error."""

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from relin.study._settings import Period, Positive, Rate, Seeds, Several, StudySpec, whole_periods

if TYPE_CHECKING:
    import polars as pl


class DescentSpec(StudySpec, frozen=True):
    """What both studies are told. The loss is the squared error to one-hot targets, momentum is 0."""

    seeds: Seeds = Field(5, description="Paired seeds: the same seed is the same initial network for every run.")
    train_limit: Positive | None = Field(100, description="The training set: the first so many training examples.")
    rate: Rate = Field(
        0.5, description="Learning rate η, as a part of the largest stable one at the initial network, 2/λ_max."
    )
    probe_size: Positive = Field(100, description="Test examples on which the predictors of runs are compared.")
    test_limit: Positive = Field(1000, description="Validation and test examples on which accuracy is measured.")
    precision: Literal["float64", "float32"] = Field(
        "float64", description="Of all computations; only in float64 do runs of a million steps coincide."
    )

    def num_examples(self, records: "pl.DataFrame") -> int:
        """N, of the training set; studies of earlier versions do not say where it was not limited."""
        return records.item(0, "num_examples") if "num_examples" in records.columns else self.train_limit or 0


class DampingSpec(DescentSpec, frozen=True):
    """Is iterative linearisation damped Gauss–Newton, with the damping λ = 1/(ηK)?"""

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


class InterpolationSpec(DescentSpec, frozen=True):
    """Does K lead from ordinary training to NTK regression?"""

    study: Literal["interpolation"] = Field("interpolation", description="Which question the study answers.")
    seeds: Seeds = Field(3, description="Paired seeds: the same seed is the same initial network for every run.")
    steps: Positive = Field(2**20, description="Gradient steps T of a run.")
    periods: Several[Period] = Field(
        [*(2.0**power for power in range(21)), math.inf],
        description='Periods K; 1 is ordinary training, "inf" (or T and more) lazy training.',
    )
    stepped_up_to: Positive = Field(
        1024, description="Periods up to this are taken step by step, larger ones all steps of an anchor at once."
    )

    @field_validator("periods")
    @classmethod
    def _ends(cls, periods: list[float]) -> list[float]:
        return whole_periods([*periods, math.inf])
