"""A study from its settings to its answer."""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, overload

import polars as pl

from relin.study._abstract import AbstractStudy, Read, Train
from relin.study._answer import Answer
from relin.study._executor import AbstractExecutor, ThreadExecutor
from relin.study._grid import single_run
from relin.study._job import AbstractJob
from relin.study._judged import judged
from relin.study._registry import find
from relin.study._result import StudyResult
from relin.study._settings import GridSpec, StudySpec
from relin.study._store import Store, StoreError


@dataclass(frozen=True)
class Progress:
    """How far a study is, in training steps of all its runs."""

    done: int
    total: int
    stage: str


Report = Callable[[Progress], None]


def run_study(
    spec: StudySpec,
    folder: Path,
    *,
    data_dir: str | None = None,
    executor: AbstractExecutor | None = None,
    report: Report = lambda progress: None,
    tell: Callable[[str], None] = warnings.warn,
) -> tuple[StudyResult, pl.DataFrame]:
    """Trains what is not in the folder yet, and answers the study's question from what is stored there.

    Every finished job of runs is on disk; killed at any moment, the same call resumes and ends with the same records.

    **Arguments:**

    - `spec`: the settings.
    - `folder`: where records are stored; made if it does not exist.
    - `data_dir`: where the data set's files are looked for first.
    - `executor`: who computes; threads of this process by default.
    - `report`: called with the progress.
    - `tell`: called with a sentence for each damaged job of runs, before it is computed again.

    **Returns:** the answer, and the records it rests on, with how each run ended as the study judged it.

    **Raises:** `ValueError` for settings that cannot be run or a folder that holds another study; `StoreError` for a
    damaged file of settings in it, records of another study, or a folder that is removed meanwhile; `OSError` where
    the folder cannot be written.
    """
    store, study = Store(folder), study_of(spec)
    trainer = cache(partial(study.trainer, data_dir))  # a finished study needs neither its data nor JAX
    if store.is_new:
        trainer()  # what cannot run is refused before the folder is made
    lanes = store.open(spec, _lanes_per_job() if store.is_new else 1)
    read = _reader(store, study)
    compute = _Computation(store, trainer, executor or ThreadExecutor(), _Tracker(report), tell)
    jobs: list[AbstractJob] = []
    for stage, name in study.stages.items():
        added = study.jobs(stage, jobs, read, lanes)
        compute(added, study.later_cost(stage), name)
        jobs += added
    store.write_whole(store.read(jobs))
    records = read(jobs)
    return study.conclude(records), records


def study_of(spec: StudySpec) -> AbstractStudy:
    """The study of these settings."""
    return find(spec.study)(spec)


def stored_study(folder: Path) -> tuple[StudySpec, StudyResult, pl.DataFrame]:
    """The settings, the answer and the records of a finished study, from its folder only.

    The jobs decide; where there are none, `spec.json` and `records.parquet` are enough.

    **Raises:** `SpecError` if the folder holds no study; `StoreError` if the study is not finished or a file damaged.
    """
    store = Store(folder)
    spec, records = store.spec(), store.read_whole()
    study = study_of(spec)
    if records is not None:
        records = judged(records, study.loss)
        return spec, study.conclude(records), records
    lanes, read = store.lanes(), _reader(store, study)
    jobs: list[AbstractJob] = []
    for stage in study.stages:
        jobs += study.jobs(stage, jobs, read, lanes)
        _require(store, jobs)
    records = read(jobs)
    return spec, study.conclude(records), records


def _reader(store: Store, study: AbstractStudy) -> Read:
    """Reads jobs, and judges how their runs ended."""
    return lambda jobs: judged(store.read(jobs), study.loss)


def _require(store: Store, jobs: Sequence[AbstractJob]) -> None:
    missing = sum(not store.path(job).exists() for job in jobs)
    if missing:
        raise StoreError(
            f"{store.folder} does not hold a whole study yet ({missing} of {len(jobs)} jobs of runs are missing so "
            "far); run the same study command again to finish it."
        )


@overload
def conclude(question: StudySpec, records: pl.DataFrame) -> StudyResult: ...


@overload
def conclude(question: str, records: Any, **settings: Any) -> Answer: ...


def conclude(question: StudySpec | str, records: Any, **settings: Any) -> StudyResult | Answer:
    """The answer, from records only: those that relin stored, or runs that were made elsewhere.

    **Arguments:**

    - `question`: the settings of the stored study; or the name of a study, such as `frequency`.
    - `records`: what was stored; or a table of runs made elsewhere, in any loop or framework: a frame of Polars or
      pandas, or anything else that `polars.DataFrame` takes, with one row a run or a run and recorded step. Its columns
      are those of the page *Runs made elsewhere* of the documentation.
    - `settings`: of runs made elsewhere: those of the study, such as `margin` in percentage points, and `data`,
      `model`, `steps`, `num_classes`, `chance`.

    **Returns:** the conclusions of the stored study; or an `Answer`, which shows itself and writes its report.

    **Raises:** `ValueError` for records that are none, or cannot be compared.
    """
    if isinstance(question, str):
        from relin.study._foreign import answer_of

        return answer_of(question, records, settings)
    if not isinstance(question, StudySpec):
        raise TypeError(f"question must be the name of a study or its settings, got {type(question).__name__}.")
    if settings:
        raise TypeError(f"settings belong to runs made elsewhere, got {', '.join(settings)}; change the study's own.")
    study = study_of(question)
    return study.conclude(judged(records, study.loss))


def train_one(
    spec: GridSpec,
    schedule: str,
    rate: float,
    seed: int,
    *,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The records of one run with a study's data, network and optimiser.

    **Raises:** `ValueError` for settings that cannot be run.
    """
    from relin.study._runner import Runner

    job = single_run(spec, schedule, rate, seed)
    return Runner(spec, data_dir).train(job, progress)


class _Tracker:
    """Adds up the progress of jobs that are computed at the same time, in any thread; it never goes back."""

    def __init__(self, report: Report):
        self.report, self.total, self.later, self.done, self.shown = report, 0, 0, 0, 0
        self.partial: dict[AbstractJob, float] = {}
        self.stage = ""
        self.lock = threading.Lock()

    def begin(self, stage: str, jobs: Sequence[AbstractJob], finished: list[AbstractJob], later: int) -> None:
        """A stage of these jobs, some of them finished before, with about `later` steps after it."""
        with self.lock:
            self.stage, self.later = stage, later
            self.total += sum(job.cost for job in jobs)
            self.done += sum(job.cost for job in finished)
            self._report()

    def advance(self, job: AbstractJob, fraction: float) -> None:
        with self.lock:
            self.partial[job] = fraction * job.cost
            self._report()

    def finish(self, job: AbstractJob) -> None:
        with self.lock:
            self.partial.pop(job, None)
            self.done += job.cost
            self._report()

    def _report(self) -> None:
        self.shown = max(self.shown, int(self.done + sum(self.partial.values())))
        self.report(Progress(self.shown, self.total + self.later, self.stage))


class _StoppedError(Exception):
    """Ends the jobs in flight after an error elsewhere or an interrupt."""


@dataclass(frozen=True)
class _Computation:
    store: Store
    trainer: Callable[[], Train]
    executor: AbstractExecutor
    tracker: _Tracker
    tell: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self, jobs: Sequence[AbstractJob], later: int, stage: str) -> None:
        """Computes the jobs that are not stored; those another process works on are waited for at the end."""
        damaged = self.store.damaged(jobs)
        for job, fault in damaged.items():
            self.tell(f"{self.store.path(job)} is damaged ({fault}); its runs are computed again.")
        finished = [job for job in jobs if self.store.path(job).exists() and job not in damaged]
        self.tracker.begin(stage, jobs, finished, later)
        done, busy = set(finished), set[AbstractJob]()
        if len(done) < len(jobs):
            self.trainer()  # here, so that what cannot run is told once
        try:
            for job in self.executor.run(partial(self._try, busy), [job for job in jobs if job not in done]):
                if job not in busy:
                    self.tracker.finish(job)
            for job in self.executor.run(self._finish, [job for job in jobs if job in busy]):
                self.tracker.finish(job)
        except BaseException:
            self.stop.set()
            raise

    def _try(self, busy: set[AbstractJob], job: AbstractJob) -> None:
        if not self._compute(job):
            busy.add(job)

    def _finish(self, job: AbstractJob) -> None:
        while not self._compute(job):
            if self.stop.wait(0.2):
                raise _StoppedError

    def _compute(self, job: AbstractJob) -> bool:
        """Whether the job is stored now, and not busy in another process."""
        with self.store.claim(job) as claim:
            if claim == "ours":
                records = self.trainer()(job, partial(self._advance, job), self.store.unfinished(job))
                self.store.write(job, records)
            return claim != "busy"

    def _advance(self, job: AbstractJob, done: int, total: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.tracker.advance(job, done / total)


def _lanes_per_job() -> int:
    """How many runs a job holds: on CPU few, so that little is lost to a kill; enough to fill an accelerator."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 128 * jax.device_count()
