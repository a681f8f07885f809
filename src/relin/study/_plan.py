"""What a study computes, in stages, and what it concludes from the records."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import polars as pl

from relin.study._pack import AbstractPack
from relin.study._result import StudyResult

Train = Callable[[AbstractPack, Callable[[int, int], None]], pl.DataFrame]
"""The records of a pack; the second argument is called with the steps done and in all."""
Read = Callable[[Sequence[AbstractPack]], pl.DataFrame]


class AbstractPlan(abc.ABC):
    """A study's packs, how they are trained, and its answer."""

    stages: Mapping[str, str]
    """By name in their order, as the progress bar calls them."""

    @property
    @abc.abstractmethod
    def loss(self) -> Literal["cross-entropy", "squared-error"]:
        """What the runs minimise."""

    @abc.abstractmethod
    def packs(self, stage: str, before: Sequence[AbstractPack], read: Read, lanes: int) -> Sequence[AbstractPack]:
        """Those of a stage, which may follow from the judged records of the packs of the stages before it."""

    @abc.abstractmethod
    def later_cost(self, stage: str) -> int:
        """Cost of all stages after this one, at most, before they are known."""

    @abc.abstractmethod
    def trainer(self, data_dir: str | None) -> Train:
        """Who trains packs. Raises `ValueError` for data or a network that does not exist or does not fit."""

    @abc.abstractmethod
    def conclude(self, records: pl.DataFrame) -> StudyResult:
        """The answer, from stored records only, as `judged` has them."""
