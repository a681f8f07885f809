"""Computes the jobs of a study that are not stored, and says how far it is."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import final

from relin._common.lease import LeaseLostError
from relin.study._abstract import Train
from relin.study._errors import OthersComputeError
from relin.study._executor import AbstractExecutor
from relin.study._job import AbstractJob
from relin.study._shard import Shard
from relin.study._store import Store


@dataclass(frozen=True)
class Progress:
    """How far a study is, in training steps of all its runs.

    **Attributes:**

    - `done`, `total`: steps taken, and of all runs as far as they are known.
    - `stage`: which part of the study is computed, in words.
    """

    done: int
    total: int
    stage: str


Report = Callable[[Progress], None]


@final
class Tracker:
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


@final
@dataclass(frozen=True)
class Computation:
    store: Store
    trainer: Callable[[], Train]
    executor: AbstractExecutor
    tracker: Tracker
    tell: Callable[[str], None]
    shard: Shard | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self, jobs: Sequence[AbstractJob], later: int, stage: str, is_last: bool) -> None:
        """Computes the jobs of a stage that are not stored; those another process works on are waited for at the end.

        One of several shards does not wait for those of the last stage: whoever writes the last of them finds all
        others written. A process that is no shard, or the only one, waits, and computes what a dead one has left.

        **Raises:** `OthersComputeError` for these.
        """
        damaged = self.store.damaged(jobs)
        for job, fault in damaged.items():
            self.tell(f"{self.store.path(job)} is damaged ({fault}); its runs are computed again.")
        finished = [job for job in jobs if self.store.path(job).exists() and job not in damaged]
        self.tracker.begin(stage, jobs, finished, later)
        done = set(finished)
        ordered = jobs if self.shard is None else self.shard.in_order(jobs)
        todo = [job for job in ordered if job not in done]
        if todo:
            self.trainer()  # here, so that what cannot run is told once
        try:
            busy = self._pass(todo)
            if is_last and self.shard is not None and self.shard.count > 1:
                self._leave(busy)
            else:
                for job in self.executor.run(self._finish, busy):
                    self.tracker.finish(job)
        except BaseException:
            self.stop.set()
            raise

    def _pass(self, jobs: Sequence[AbstractJob]) -> list[AbstractJob]:
        """Computes the jobs that nobody works on, and returns the others."""
        busy = set[AbstractJob]()
        for job in self.executor.run(partial(self._try, busy), jobs):
            if job not in busy:
                self.tracker.finish(job)
        return [job for job in jobs if job in busy]

    def _leave(self, busy: Sequence[AbstractJob]) -> None:
        """Looks again as long as that brings anything, and so once more after the last job that it computed."""
        while busy:
            left = self._pass(busy)
            if len(left) == len(busy):
                raise OthersComputeError(self.store.folder, len(left))
            busy = left

    def _try(self, busy: set[AbstractJob], job: AbstractJob) -> None:
        if not self._compute(job):
            busy.add(job)

    def _finish(self, job: AbstractJob) -> None:
        while not self._compute(job):
            if self.stop.wait(0.2):
                raise _StoppedError

    def _compute(self, job: AbstractJob) -> bool:
        """Whether the job is stored now, and not busy in another process, which may have taken it over on the way."""
        with self.store.claim(job) as claim:
            if claim == "ours":
                try:
                    records = self.trainer()(job, partial(self._advance, job), self.store.unfinished(job))
                except LeaseLostError:
                    return False
                self.store.write(job, records)
            return claim != "busy"

    def _advance(self, job: AbstractJob, done: int, total: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.tracker.advance(job, done / total)
