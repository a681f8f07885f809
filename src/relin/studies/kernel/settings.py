"""The settings of the kernel study."""

import math
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from relin._common.words import listed
from relin.study._condition import Condition, every, parse_condition
from relin.study._kernel_settings import KernelSettings
from relin.study._settings import Period, Positive, Rate, Several, whole_periods


class KernelSpec(KernelSettings, frozen=True):
    """Does the NTK stay constant?"""

    beyond_outcomes: ClassVar = "the NTK along each run, the columns kernel_distance and others"
    no_measure: ClassVar = "since of lazy training on a frozen kernel only accuracy, or R² of values, is recorded"
    belong_to: ClassVar = {
        **KernelSettings.belong_to,
        "optimiser": (*KernelSettings.belong_to["optimiser"], "frozen_rate"),
    }

    study: Literal["kernel"] = Field("kernel", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [1, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    frozen_methods: Several[str] = Field(
        ["every-1"],
        description="Schedules of which kernels are taken on the way and trained on lazily; dear, so not all of them.",
    )
    frozen_every: Positive = Field(8, description="A kernel is taken at step 0 and at every so many records.")
    frozen_steps: Positive | None = Field(
        None, description="Steps of the lazy training on a kernel that was taken; by default those of a run."
    )
    frozen_rate: Rate | None = Field(
        None, description="Its learning rate; by default the one chosen for K = ∞, or for K = 1 without it."
    )

    _whole = field_validator("periods")(whole_periods)

    @field_validator("frozen_methods")
    @classmethod
    def _frozen_understood(cls, conditions: list[str]) -> list[str]:
        return [parse_condition(name).name for name in conditions]

    @model_validator(mode="after")
    def _frozen_compared(self) -> "KernelSpec":
        names = [condition.name for condition in self.all_conditions()]
        unknown = [name for name in self.frozen_methods if name not in names]
        if unknown:
            raise ValueError(
                f"frozen_methods must be among the schedules of the study, {listed(names)}, got {listed(unknown)}"
            )
        return self

    def own_conditions(self) -> list[Condition]:
        return [every(k) for k in self.periods]
