"""Who computes the packs of a study."""

import abc
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from relin.study._grid import Pack


class AbstractExecutor(abc.ABC):
    """Computes packs, in any order. A cluster's executor has the same interface."""

    @abc.abstractmethod
    def run(self, compute: Callable[[Pack], None], packs: Iterable[Pack]) -> Iterator[Pack]:
        """Calls `compute` for each pack, and yields the packs as they finish. An error in one is raised here."""


class ThreadExecutor(AbstractExecutor):
    """Packs in threads of this process: compiled programs of small networks keep one core busy each."""

    def __init__(self, workers: int | None = None):
        self.workers = workers or os.cpu_count() or 1

    def run(self, compute: Callable[[Pack], None], packs: Iterable[Pack]) -> Iterator[Pack]:
        waiting = iter(packs)
        with ThreadPoolExecutor(self.workers) as pool:
            running: dict[Future[None], Pack] = {}
            try:
                while True:
                    while len(running) < self.workers and (pack := next(waiting, None)) is not None:
                        running[pool.submit(compute, pack)] = pack
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        pack = running.pop(future)
                        future.result()
                        yield pack
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
