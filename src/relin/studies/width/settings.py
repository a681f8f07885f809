"""The settings of the width study."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from relin.study._condition import Condition, every
from relin.study._kernel_settings import KernelSettings
from relin.study._settings import Positive, Rate, Several


class WidthSpec(KernelSettings, frozen=True):
    """Does the NTK move less in wider networks, and does feature learning then matter less?"""

    beyond_outcomes: ClassVar = "the NTK along each run at every width, the columns width and kernel_change"
    takes_measure: ClassVar = True
    choosing: ClassVar = KernelSettings.choosing | {"widths"}

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
    def axis(self) -> str:
        return "width"

    def cells(self) -> list[Self]:
        return [self.at(width, model_options={**self.model_options, "width": width}) for width in self.widths]

    @property
    def weight(self) -> int:
        return self.place.value if self.place else 1

    def own_conditions(self) -> list[Condition]:
        return [every(1), every(math.inf)]
