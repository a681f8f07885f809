"""The settings of the interpolation study."""

import math
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from relin.study._descent_specs import DescentSpec
from relin.study._settings import Period, Positive, Seeds, Several, whole_periods


class InterpolationSpec(DescentSpec, frozen=True):
    """Does K lead from ordinary training to NTK regression?"""

    beyond_outcomes: ClassVar = "the outputs of full-batch runs, the columns outputs and network_outputs"

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
