"""Jobs in processes of this machine."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

from relin.study._abstract import Train
from relin.study._errors import WorkerError
from relin.study._executor import AbstractExecutor, checked_workers, in_threads
from relin.study._job import AbstractJob
from relin.study._records import from_parquet
from relin.study._settings import StudySpec
from relin.study._work import compute, work_of

ATTEMPTS = 3
"""How often a job may end its worker."""
_PAUSE = 0.2


@final
class ProcessExecutor(AbstractExecutor):
    """Jobs in processes of this machine, each with a Python and a JAX of its own.

    A worker that is killed is replaced, and its job computed again. A process for each worker, over pipes, not
    `concurrent.futures`: its pool gives up all jobs where one worker dies, and does not tell whose fault it was.
    """

    def __init__(self, workers: int | None = None):
        """`workers`: processes; by default one for each core that this process may use."""
        self.workers = checked_workers(workers)

    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        return in_threads(self.workers, compute, jobs)

    @contextlib.contextmanager
    def training(
        self, spec: StudySpec, data_dir: str | None, here: Callable[[], Train]
    ) -> Iterator[Callable[[], Train]]:
        pool = _Pool(self.workers)

        @cache
        def train() -> Train:
            work = work_of(spec, data_dir, elsewhere=False)
            return lambda job, advance, folder: from_parquet(pool.compute(work, job, advance, folder))

        del here
        try:
            yield train
        finally:
            pool.end()


@final
class _Pool:
    def __init__(self, workers: int):
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._started: set[_Worker] = set()
        self._ended = threading.Event()
        for _ in range(workers):
            self._free.put(None)

    def compute(self, work: bytes, job: AbstractJob, advance: Callable[[int, int], None], folder: Path) -> bytes:
        """The records of a job, from whichever worker is free. Raises `WorkerError` where it ends several."""
        code = None
        for _ in range(ATTEMPTS):
            worker = self._free.get()
            try:
                if self._ended.is_set():
                    raise WorkerError("The study has ended.")
                worker = worker or self._start(work)
                answer = worker.ask(job, folder, lambda: advance(0, 1))
            except BaseException as error:
                if worker is not None:
                    code = worker.end()
                    self._started.discard(worker)
                worker = None
                if not isinstance(error, _DiedError):
                    raise
            else:
                if isinstance(answer, BaseException):
                    raise answer
                return answer
            finally:
                self._free.put(worker)
        raise WorkerError(
            f"The job {job.name} ended its process {ATTEMPTS} times (exit code {code}), for want of memory maybe; use "
            "fewer processes, or threads. A program that asks for processes must do so below "
            'if __name__ == "__main__".'
        )

    def _start(self, work: bytes) -> "_Worker":
        worker = _Worker(work)
        self._started.add(worker)
        if self._ended.is_set():
            worker.end()
        return worker

    def end(self) -> None:
        self._ended.set()
        for worker in list(self._started):
            worker.end()


class _DiedError(Exception):
    """A worker's process is gone."""


@final
class _Worker:
    def __init__(self, work: bytes):
        context = multiprocessing.get_context("spawn")  # JAX has threads, which a fork would not have
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), name="relin worker")
        self._process.start()
        theirs.close()  # so that this end tells when the other is gone

    def ask(self, job: AbstractJob, folder: Path, waiting: Callable[[], None]) -> Any:
        """The records of a job, or the error that it ended with. Raises `_DiedError` if the process died."""
        asked = pickle.dumps(job), str(folder.absolute())
        with _known_by_its_pipe():
            self._connection.send(asked)
        while not self._has_answered():
            waiting()
        with _known_by_its_pipe():
            return self._connection.recv()

    def _has_answered(self) -> bool:
        with _known_by_its_pipe():
            return self._connection.poll(_PAUSE)

    def end(self) -> int | None:
        """Ends the process, and gives its exit code."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        return self._process.exitcode


@contextlib.contextmanager
def _known_by_its_pipe() -> Iterator[None]:
    """Only here: an `OSError` of the user's own code, or of what shows progress, is no worker's death."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise _DiedError from error


def _serve(connection: Connection, work: bytes) -> None:
    """What a worker does, as long as its parent lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent's decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job, folder = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: bytes | Exception = compute(work, job, folder)
        except Exception as error:
            answer = _that_can_be_sent(error)
        connection.send(answer)


def _that_can_be_sent(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
