"""Who computes the jobs of a study."""

import abc
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from relin.study._job import AbstractJob


def cores() -> int:
    """How many cores this process may use: of a machine that is shared, as by SLURM, not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class AbstractExecutor(abc.ABC):
    """Computes jobs, in any order. A cluster's executor has the same interface."""

    @abc.abstractmethod
    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        """Calls `compute` for each job, and yields the jobs as they finish. An error in one is raised here.

        Whoever leaves early, by an error or an interrupt, does not wait for the jobs in flight.
        """


class ThreadExecutor(AbstractExecutor):
    """Jobs in threads of this process: compiled programs of small networks keep one core busy each."""

    def __init__(self, workers: int | None = None):
        """`workers`: jobs at a time; by default one for each core that this process may use."""
        if workers is not None and workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {workers}; leave it out for one a core.")
        self.workers = workers or cores()

    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        waiting = iter(jobs)
        pool = ThreadPoolExecutor(self.workers)
        running: dict[Future[None], AbstractJob] = {}
        try:
            while True:
                while len(running) < self.workers and (job := next(waiting, None)) is not None:
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
