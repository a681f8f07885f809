"""What a study is: a question, its settings, its runs, its answer, and how the answer is shown."""

import abc
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, cast, get_args

from relin.study._job import AbstractJob
from relin.study._settings import StudySpec

if TYPE_CHECKING:  # settings are checked before these are imported
    from pathlib import Path

    import polars as pl

    from relin.study._answer import Answer
    from relin.study._result import StudyResult

Train = Callable[[AbstractJob, Callable[[int, int], None], "Path"], "pl.DataFrame"]
"""The records of a job; the second argument is called with the steps done and in all, the third is a folder where a
long job may keep its state, so that it goes on where it was killed."""
Read = Callable[[Sequence[AbstractJob]], "pl.DataFrame"]
Spec = TypeVar("Spec", bound=StudySpec)
Against = Literal["n", "K", "T/K"]
"""What figures of feature updates have on their axis: the n updates of a run of T steps, the K = T/(n + 1) steps of a
window between two of them, or the T/K = n + 1 windows."""
AGAINST: tuple[Against, ...] = get_args(Against)


class AbstractStudy(abc.ABC, Generic[Spec]):
    """A question asked of a network and its data.

    A subclass says which settings it takes and which runs it needs; the modules beside it what follows from their
    records and how that is shown: `conclude.py`, `page.py` and, if need be, `terminal.py`. The settings that it is
    shipped with are in `settings.toml` beside it, if there is one. Command line, storage, resuming and progress are the
    same for all.
    """

    name: ClassVar[str]
    """As settings and the command line have it."""
    settings: ClassVar[type[StudySpec]]
    shows_schedules: ClassVar[bool] = False
    """Whether a terminal can show the table of every schedule, where there is no `terminal.py`."""
    stages: ClassVar[Mapping[str, str]]
    """By name in their order, as the progress bar calls them."""
    drawn_against: ClassVar[Sequence[str]] = ()
    """What its figures of feature updates can have on their axis, of `AGAINST`; empty where it has no such figure."""

    def __init__(self, spec: Spec | None = None, /, **settings: Any):
        """
        **Arguments:**

        - `spec`: checked settings, all of them; or none, with
        - `settings`: those that are not the shipped ones, by name. Where a setting names code of one's own, it may be
          the object itself: `network=build`, `data=study.Data(…)`, `optimiser=lambda rate: …`.

        **Raises:** `SpecError` for settings that are wrong.
        """
        if spec is None:
            from relin.study._given import spec_of

            spec = cast(Spec, spec_of(type(self), settings))
        self.spec = spec

    def run(self, folder: "str | Path", *, progress: bool = True, **options: Any) -> "Answer":
        """Trains what is not in the folder yet, and answers.

        Every finished job is on disk: killed at any moment, the same call goes on and ends with the same records.

        **Arguments:**

        - `folder`: where records and report are kept; made if it does not exist.
        - `progress`: whether to show a progress bar, on terminals and in notebooks.
        - `options`: of `run_study`, such as `data_dir` and `executor`.

        **Returns:** an `Answer`.

        **Raises:** as `run_study`.
        """
        from relin.study._given import answered

        return answered(self, folder, progress, options)

    def rounds(self) -> Mapping[str, str]:
        """The stages as these settings need them: by name in their order, as the progress bar calls them."""
        return self.stages

    @property
    @abc.abstractmethod
    def loss(self) -> Literal["cross-entropy", "squared-error"]:
        """What the runs minimise."""

    @abc.abstractmethod
    def jobs(self, stage: str, before: Sequence[AbstractJob], read: Read, lanes: int) -> Sequence[AbstractJob]:
        """Those of a stage, which may follow from the judged records of the jobs of the stages before it."""

    @abc.abstractmethod
    def later_cost(self, stage: str) -> int:
        """Cost of all stages after this one, at most, before they are known."""

    @abc.abstractmethod
    def trainer(self, data_dir: str | None) -> Train:
        """What trains jobs. Raises `ValueError` for data or a network that does not exist or does not fit."""

    @abc.abstractmethod
    def conclude(self, records: "pl.DataFrame") -> "StudyResult":
        """The answer, from stored records only, as `judged` has them."""

    @classmethod
    def page(cls, result: Any, records: "pl.DataFrame", spec: Mapping[str, Any], against: str | None = None) -> Any:
        """What the study's page shows, a `relin.report.Report`: that of the function `page` of `page.py` beside it.

        **Arguments:**

        - `result`: what was concluded.
        - `records`: those it was concluded from.
        - `spec`: the settings, nested mappings of plain values.
        - `against`: one of `drawn_against`; by default each figure's own, as everywhere where that is empty.

        **Raises:** `ValueError` if there is nothing to show, or the records are not those of the result.
        """
        choice = () if against is None else (against,)
        return cls.beside("page").page(result, records, spec, *choice)

    @classmethod
    def terminal(cls, result: Any) -> Any:
        """What terminals show, a `relin.report.Terminal`: that of the function `terminal` of `terminal.py` beside it.

        None, which stands for the table of every schedule, where there is no such file.
        """
        return cls.beside("terminal").terminal(result) if cls.has_beside("terminal") else None

    @classmethod
    def modules_needed(cls) -> list[str]:
        """Names of the modules that must be beside the study, since it has no methods of its own in their place."""
        needed = ("page",) if cls.shows_schedules else ("page", "terminal")
        return [name for name in needed if getattr(cls, name).__func__ is vars(AbstractStudy)[name].__func__]

    @classmethod
    def has_beside(cls, module: str) -> bool:
        """Whether there is a module of this name in the study's folder."""
        try:
            return find_spec(f"{cls.__module__}.{module}") is not None
        except ModuleNotFoundError:  # nothing is beside a study that is a program or a module of a package
            return False

    @classmethod
    def beside(cls, module: str) -> Any:
        """A module of the study's folder, imported where it is needed: settings are checked before."""
        return import_module(f"{cls.__module__}.{module}")
