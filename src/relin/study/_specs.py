"""The settings of each study: a typed, validated file."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from relin.study._descent_specs import DampingSpec as DampingSpec, InterpolationSpec as InterpolationSpec
from relin.study._kernel_specs import KernelSpec as KernelSpec, WidthSpec as WidthSpec
from relin.study._method import MOST_PLACED, Method, every
from relin.study._settings import Comparison, GridSpec, Period, Positive, Rate, Several, StudySpec, whole_periods


class FrequencySpec(GridSpec, frozen=True):
    """How rarely can features be updated without loss?"""

    study: Literal["frequency"] = Field("frequency", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [1, 4, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    sparse_periods: Several[Period] = Field([], description="Periods of the preset `sparse` to show beside them.")
    tolerances: Several[Rate] = Field(
        [], description="Tolerances of the adaptive schedule WhenError to show beside them."
    )
    comparison: Literal["equal-steps", "equal-distance", "both"] = Field(
        "equal-steps",
        description="Whether every rate takes T steps, or smaller rates more, T · reference_rate / rate; or both.",
    )
    reference_rate: Rate | None = Field(
        None,
        description="With equal-distance: the rate that takes T steps; smaller ones take more, up to max_steps.",
    )
    max_steps: Positive = Field(10_000, description="With equal-distance: the most steps a run may take.")

    _whole = field_validator("periods")(whole_periods)

    @field_validator("sparse_periods")
    @classmethod
    def _whole_sparse(cls, periods: list[float]) -> list[float]:
        return [k for k in whole_periods([1, *periods]) if k in periods]

    @field_validator("tolerances")
    @classmethod
    def _sorted(cls, values: list[float]) -> list[float]:
        return sorted(set(values), reverse=True)

    @model_validator(mode="after")
    def _long_enough(self) -> "FrequencySpec":
        if self.comparison != "equal-steps" and self.max_steps < self.steps:
            raise ValueError(f"max_steps must be at least steps, {self.steps}, got {self.max_steps}")
        return self

    def own_methods(self) -> list[Method]:
        return [
            *map(every, self.periods),
            *(every(k, "sparse") for k in self.sparse_periods),
            *(Method("when-error", tolerance) for tolerance in self.tolerances),
        ]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return ("equal-steps", "equal-distance") if self.comparison == "both" else (self.comparison,)

    def steps_at(self, rate: float, comparison: Comparison | None = None) -> int:
        if (comparison or self.comparisons[0]) == "equal-steps":
            return self.steps
        reference = self.reference_rate or max(self.learning_rates)
        return max(1, min(self.max_steps, round(self.steps * max(1.0, reference / rate))))


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

    def own_methods(self) -> list[Method]:
        return [
            every(1),
            *(Method("until", number) for number in self.frozen_after),
            *(Method("after", step) for step in self.learnt_from),
            every(math.inf),
        ]


class LayersSpec(GridSpec, frozen=True):
    """Which layers need feature updates? Each alone re-linearised while all others are lazy, and the reverse."""

    study: Literal["layers"] = Field("layers", description="Which question the study answers.")
    layers: Several[str] = Field(
        ["layers.0", "layers.1", "layers.2"],
        min_length=2,
        description="Beginnings of the parameters' names, one for each layer or group of layers.",
    )

    @property
    def layers_compared(self) -> tuple[str, ...]:
        return tuple(self.layers)

    def own_methods(self) -> list[Method]:
        numbers = range(len(self.layers))
        return [
            every(1),
            *(Method("rich", number) for number in numbers),
            *(Method("lazy", number) for number in numbers),
            every(math.inf),
        ]


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

    def own_methods(self) -> list[Method]:
        placed = [Method(placement, number) for number in self.feature_updates for placement in self.placements]
        return [every(1), *placed, *(Method("when-error", tolerance) for tolerance in self.tolerances), every(math.inf)]


class StabilitySpec(GridSpec, frozen=True):
    """Up to which learning rate does sparse feature learning train, and what do stabilising parts cost and bring?"""

    study: Literal["stability"] = Field("stability", description="Which question the study answers.")
    periods: Several[Period] = Field(
        [1, 4, 16, 64, 256, math.inf], description='Periods K to compare; 1 is ordinary training, "inf" lazy training.'
    )
    parts: Several[str] = Field(
        ["clip-1", "line-1", "trust-1", "proximal-0.1", "reset", "sparse"],
        description="Parts each of which is added to every period between 1 and infinity.",
    )
    tolerances: Several[Rate] = Field([0.1, 0.3], description="Tolerances of the adaptive schedule WhenError.")

    _whole = field_validator("periods")(whole_periods)

    @field_validator("parts")
    @classmethod
    def _parts_understood(cls, parts: list[str]) -> list[str]:
        return [every(1, part).parts[0].name for part in parts]

    @property
    def measures_sharpness(self) -> bool:
        return True

    def own_methods(self) -> list[Method]:
        between = [k for k in self.periods if 1 < k < math.inf]
        return [
            *map(every, self.periods),
            *(every(k, part) for part in self.parts for k in between),
            *(Method("when-error", tolerance) for tolerance in self.tolerances),
        ]


SPECS: dict[str, type[StudySpec]] = {
    "frequency": FrequencySpec,
    "essential": EssentialSpec,
    "layers": LayersSpec,
    "timing": TimingSpec,
    "stability": StabilitySpec,
    "kernel": KernelSpec,
    "width": WidthSpec,
    "damping": DampingSpec,
    "interpolation": InterpolationSpec,
}
"""Every question by the name that settings give it."""
