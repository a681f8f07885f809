"""A study from its settings to its answer."""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, overload

import polars as pl

from relin.study._abstract import AbstractStudy, Read
from relin.study._answer import Answer
from relin.study._computation import Computation, Progress as Progress, Report, Tracker
from relin.study._errors import UnfinishedError
from relin.study._executor import AbstractExecutor, ThreadExecutor, executor_of
from relin.study._grid import single_run
from relin.study._job import AbstractJob
from relin.study._judged import judged
from relin.study._registry import find
from relin.study._result import StudyResult
from relin.study._settings import GridSpec, StudySpec
from relin.study._shard import Shard
from relin.study._store import Store
from relin.study._taken import Taken


def run_study(
    spec: StudySpec,
    folder: Path,
    *,
    data_dir: str | None = None,
    executor: AbstractExecutor | str | None = None,
    shard: Shard | None = None,
    runs_from: Path | str | None = None,
    report: Report = lambda progress: None,
    tell: Callable[[str], None] = warnings.warn,
) -> tuple[StudyResult, pl.DataFrame]:
    """Trains what is not in the folder yet, and answers the study's question from what is stored there.

    Every finished job of runs is on disk; killed at any moment, the same call resumes and ends with the same records.

    **Arguments:**

    - `spec`: the settings.
    - `folder`: where records are stored; made if it does not exist.
    - `data_dir`: where the data set's files are looked for first.
    - `executor`: who computes, or its name as the command line has it, such as `processes:2`; by default threads of
      this process, one a core.
    - `shard`: which jobs this process takes first, where it is one of several that share the folder.
    - `runs_from`: the folder of an earlier study, finished or not, of which the same runs are taken and not trained
      again; it may differ from this one in the settings named in `choosing` of its settings, such as
      `learning_rates`, `seeds` and `methods`.
    - `report`: called with the progress.
    - `tell`: called with a sentence for each damaged job of runs, before it is computed again.

    **Returns:** the answer, and the records it rests on, with how each run ended as the study judged it.

    **Raises:** `ValueError` for settings that cannot be run, a folder that holds another study, and one to take runs
    from that has none of these runs; `StoreError` for a damaged file of settings in it, records of another study, runs
    to be taken that began otherwise than here, or a folder that is removed meanwhile; `OSError` where
    the folder cannot be written; `WorkerError` where other processes do not compute; `OthersComputeError` for a shard
    that ends while others compute: the last one answers.
    """
    store, study = Store(folder), study_of(spec)
    if not store.is_new and (records := store.finished_whole(spec)) is not None:
        records = judged(records, study.loss)
        return study.conclude(records), records
    taken = None if runs_from is None else Taken(study, Path(runs_from), data_dir, tell)
    here = cache(partial(study.trainer, data_dir))  # a finished study needs neither its data nor JAX
    executor = executor_of(executor) if isinstance(executor, str) else executor or ThreadExecutor()
    with executor.training(spec, data_dir, here) as trainer:
        if store.is_new:
            here()  # what cannot run is refused before the folder is made
            trainer()
            if taken is not None:
                taken.check()
        lanes = store.open(spec, _lanes_per_job() if store.is_new else 1)
        read = _reader(store, study)
        train = trainer if taken is None else (lambda: taken.train(trainer()))
        compute = Computation(store, train, executor, Tracker(report), tell, shard)
        jobs: list[AbstractJob] = []
        rounds = study.rounds()
        for stage, name in rounds.items():
            added = study.jobs(stage, jobs, read, lanes)
            if taken is not None:
                taken.write(added, store)
            compute(added, study.later_cost(stage), name, is_last=stage == list(rounds)[-1])
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

    **Arguments:**

    - `folder`: where the study was run.
    """
    store = Store(folder)
    spec, records = store.spec(), store.read_whole()
    study = study_of(spec)
    if records is not None:
        records = judged(records, study.loss)
        return spec, study.conclude(records), records
    lanes, read = store.lanes(), _reader(store, study)
    jobs: list[AbstractJob] = []
    for stage in study.rounds():
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
        raise UnfinishedError(store.folder, missing, len(jobs))


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

    **Arguments:**

    - `spec`: the settings.
    - `schedule`: the name of a condition, such as `every-64+clip-1`.
    - `rate`: the learning rate.
    - `seed`: of the initial network and the batches.
    - `data_dir`: where the data set's files are looked for first.
    - `progress`: called with (steps done, steps).

    **Returns:** one row for each recorded step, in the columns of a study's records.
    """
    from relin.study._runner import Runner

    job = single_run(spec, schedule, rate, seed)
    return Runner(spec, data_dir).train(job, progress)


def _lanes_per_job() -> int:
    """How many runs a job holds: on CPU few, so that little is lost to a kill; enough to fill an accelerator."""
    import jax

    return 1 if jax.default_backend() == "cpu" else 128 * jax.device_count()
