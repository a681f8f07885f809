"""Who computes the jobs of a study."""

import abc
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import final

from relin.study._abstract import Train
from relin.study._job import AbstractJob
from relin.study._settings import StudySpec


def cores() -> int:
    """How many cores this process may use: of a machine that is shared, as by SLURM, not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class AbstractExecutor(abc.ABC):
    """Computes jobs, in any order.

    `compute` claims a job in the study's folder, has it trained, and writes its records: always in this process. Where
    the training itself happens is said by `training`.
    """

    @abc.abstractmethod
    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        """Calls `compute` for each job, and yields the jobs as they finish. An error in one is raised here.

        Whoever leaves early, by an error or an interrupt, does not wait for the jobs in flight.
        """

    @contextlib.contextmanager
    def training(
        self, spec: StudySpec, data_dir: str | None, here: Callable[[], Train]
    ) -> Iterator[Callable[[], Train]]:
        """What gives the function that trains jobs, as long as the study runs; by default `here`, in this process.

        **Arguments:**

        - `spec`, `data_dir`: of the study.
        - `here`: what gives the function for this process. Raises `ValueError` for what cannot run.
        """
        del spec, data_dir
        yield here


@final
class ThreadExecutor(AbstractExecutor):
    """Jobs in threads of this process: compiled programs of small networks keep one core busy each."""

    def __init__(self, workers: int | None = None):
        """`workers`: jobs at a time; by default one for each core that this process may use."""
        self.workers = checked_workers(workers)

    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        return in_threads(self.workers, compute, jobs)


def checked_workers(workers: int | None) -> int:
    """The number, or one a core. Raises `ValueError` for less than one."""
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}; leave it out for one a core.")
    return workers or cores()


def in_threads(
    workers: int, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]
) -> Iterator[AbstractJob]:
    """As `AbstractExecutor.run`, so many jobs at a time, each in a thread of this process."""
    waiting = iter(jobs)
    pool = ThreadPoolExecutor(workers)
    running: dict[Future[None], AbstractJob] = {}
    try:
        while True:
            while len(running) < workers and (job := next(waiting, None)) is not None:
                running[pool.submit(compute, job)] = job
            if not running:
                return
            # Not for ever: polars restarts an unlimited wait after Ctrl-C, which then does not interrupt.
            for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                future.result()
                yield job
    finally:
        # Without waiting, unlike a `with` block: an interrupt must not sit out the jobs in flight.
        pool.shutdown(wait=False, cancel_futures=True)


def executor_of(text: str) -> AbstractExecutor:
    """That of a text, as the command line has it: `threads[:N]`, `processes[:N]` or `ray[:ADDRESS]`.

    **Raises:** `ValueError` for any other text.
    """
    kind, colon, rest = text.partition(":")
    number = int(rest) if rest.isdecimal() and 1 <= int(rest) <= 10_000 else None
    if colon and number is None and (kind != "ray" or not rest):
        kind = ""
    match kind:
        case "threads":
            return ThreadExecutor(number)
        case "processes":
            from relin.study._processes import ProcessExecutor

            return ProcessExecutor(number)
        case "ray":
            from relin.study._ray import RayExecutor

            return RayExecutor(rest or None)
    raise ValueError(
        f"An executor is threads, threads:N, processes, processes:N, ray or ray:ADDRESS with N from 1 to 10000, got "
        f"{text!r}; for example processes:2."
    )
