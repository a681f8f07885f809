"""The plan of the studies of full-batch gradient descent on squared error: one stage, every run a pack."""

from collections.abc import Sequence
from typing import Literal, cast

import polars as pl

from relin.study._damping import conclude_damping
from relin.study._descent_packs import damping_packs, interpolation_packs
from relin.study._descent_specs import DampingSpec, DescentSpec, InterpolationSpec
from relin.study._interpolation import conclude_interpolation
from relin.study._pack import AbstractPack
from relin.study._plan import AbstractPlan, Read, Train
from relin.study._result import StudyResult


class DescentPlan(AbstractPlan):
    """What is trained follows from the settings alone."""

    stages = {"run": "training"}  # noqa: RUF012

    def __init__(self, spec: DescentSpec):
        self.spec = spec

    @property
    def loss(self) -> Literal["squared-error"]:
        return "squared-error"

    def packs(self, stage: str, before: Sequence[AbstractPack], read: Read, lanes: int) -> Sequence[AbstractPack]:
        if isinstance(self.spec, DampingSpec):
            return damping_packs(self.spec)
        return interpolation_packs(cast(InterpolationSpec, self.spec))

    def later_cost(self, stage: str) -> int:
        return 0

    def trainer(self, data_dir: str | None) -> Train:
        from relin.study._damping_runner import DampingRunner
        from relin.study._interpolation_runner import InterpolationRunner

        if isinstance(self.spec, DampingSpec):
            return cast(Train, DampingRunner(self.spec, data_dir).train)
        return cast(Train, InterpolationRunner(cast(InterpolationSpec, self.spec), data_dir).train)

    def conclude(self, records: pl.DataFrame) -> StudyResult:
        if isinstance(self.spec, DampingSpec):
            return conclude_damping(self.spec, records)
        return conclude_interpolation(cast(InterpolationSpec, self.spec), records)
