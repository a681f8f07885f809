"""The settings of the layers study."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from relin.study._condition import Condition, every
from relin.study._schedules import Lazy, Rich
from relin.study._settings import GridSpec, Several


class LayersSpec(GridSpec, frozen=True):
    """Which layers need feature updates? Each alone re-linearised while all others are lazy, and the reverse."""

    beyond_outcomes: ClassVar = None
    takes_measure: ClassVar = True

    study: Literal["layers"] = Field("layers", description="Which question the study answers.")
    layers: Several[str] = Field(
        ["layers.0", "layers.1", "layers.2"],
        min_length=2,
        description="Beginnings of the parameters' names, one for each layer or group of layers.",
    )

    @classmethod
    def asked_by(cls, conditions: Sequence[Condition], totals: Sequence[int]) -> dict[str, Any]:
        numbers = {*Rich.numbers_of(conditions), *Lazy.numbers_of(conditions)}
        if len(numbers) < 2:
            raise ValueError("runs of the schedules rich-I and lazy-I, of at least two layers I")
        return {"layers": [f"layer {number}" for number in range(int(max(numbers)) + 1)]}

    def own_conditions(self) -> list[Condition]:
        numbers = range(len(self.layers))
        return [
            every(1),
            *(Condition(Rich(number)) for number in numbers),
            *(Condition(Lazy(number)) for number in numbers),
            every(math.inf),
        ]
