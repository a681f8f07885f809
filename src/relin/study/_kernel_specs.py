"""The settings of the studies of the neural tangent kernel."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from relin._words import listed
from relin.study._method import Method, every, parse_method
from relin.study._settings import GridSpec, Period, Positive, Rate, Several, whole_periods


class KernelSettings(GridSpec, frozen=True):
    """What both studies of the kernel are told."""

    kernel_probe: Positive = Field(128, description="Validation examples on which the kernel is computed.")
    kernel_outputs: Literal["mean", "diagonal", "full"] = Field(
        "mean",
        description="Which kernel of the C outputs: its mean over outputs, every output's own, or between outputs too.",
    )


class KernelSpec(KernelSettings, frozen=True):
    """Does the NTK stay constant?"""

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
    def _frozen_understood(cls, methods: list[str]) -> list[str]:
        return [parse_method(name).name for name in methods]

    @model_validator(mode="after")
    def _frozen_compared(self) -> "KernelSpec":
        names = [method.name for method in self.all_methods()]
        unknown = [name for name in self.frozen_methods if name not in names]
        if unknown:
            raise ValueError(
                f"frozen_methods must be among the schedules of the study, {listed(names)}, got {listed(unknown)}"
            )
        return self

    def frozen_training(self, method: Method) -> int:
        if method.name not in self.frozen_methods:
            return 0
        return (self.num_records // self.frozen_every + 1) * (self.frozen_steps or self.steps)

    def own_methods(self) -> list[Method]:
        return [every(k) for k in self.periods]


class WidthSpec(KernelSettings, frozen=True):
    """Does the NTK move less in wider networks, and does feature learning then matter less?"""

    study: Literal["width"] = Field("width", description="Which question the study answers.")
    widths: Several[Annotated[Positive, Field(le=100_000)]] = Field(
        [16, 32, 64, 128, 256, 512], description="Widths of the network, in NTK parametrisation."
    )
    model_options: dict[str, Any] = Field(
        {"parametrisation": "ntk"}, description="Options of the network but its width, which the study sets."
    )
    learning_rates: Several[Rate] = Field(
        [10.0, 3.0, 1.0, 0.3],
        description="Learning rates offered at every width; in NTK parametrisation they are large.",
    )

    @field_validator("widths")
    @classmethod
    def _sorted(cls, widths: list[int]) -> list[int]:
        if len(set(widths)) < 2:
            raise ValueError("at least two widths are needed")
        return sorted(set(widths))

    @field_validator("model_options")
    @classmethod
    def _in_ntk_parametrisation(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "width" in options:
            raise ValueError("the width is set by widths; leave it out")
        if options.setdefault("parametrisation", "ntk") != "ntk":
            raise ValueError('the parametrisation must be "ntk", in which wide networks are compared')
        return options

    @property
    def widths_compared(self) -> tuple[int | None, ...]:
        return tuple(self.widths)

    def own_methods(self) -> list[Method]:
        return [every(1), every(math.inf)]
