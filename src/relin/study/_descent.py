"""Studies of full-batch gradient descent on squared error: one stage, every run a job, known from the settings."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from relin.study._abstract import AbstractStudy, Read
from relin.study._descent_jobs import DescentJob
from relin.study._descent_specs import DescentSpec
from relin.study._job import AbstractJob

if TYPE_CHECKING:  # settings are checked before these are imported
    import polars as pl

    from relin.study._result import StudyResult

Spec = TypeVar("Spec", bound=DescentSpec)


class AbstractDescentStudy(AbstractStudy[Spec]):
    """A study whose runs follow from its settings alone."""

    stages: ClassVar = {"run": "training"}

    @property
    def loss(self) -> Literal["squared-error"]:
        return "squared-error"

    @abstractmethod
    def runs(self) -> list[DescentJob]:
        """All runs, those of a seed together."""

    def jobs(self, stage: str, before: Sequence[AbstractJob], read: Read, lanes: int) -> Sequence[AbstractJob]:
        del stage, before, read, lanes
        return self.runs()

    def later_cost(self, stage: str) -> int:
        del stage
        return 0

    def conclude(self, records: "pl.DataFrame") -> "StudyResult":
        """That of the function `conclude` of `conclude.py` beside it."""
        from relin.study._verdict import in_measure

        result = self.beside("conclude").conclude(self.spec, records)
        return result.model_copy(update={"verdict": in_measure(result.verdict, result.measure)})

    @classmethod
    def modules_needed(cls) -> list[str]:
        own = ["conclude"] if cls.conclude is AbstractDescentStudy.conclude else []
        return [*super().modules_needed(), *own]
