"""Jobs in the workers of a Ray cluster."""

import contextlib
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, final

from relin._common.extra import needs_extra
from relin.study._abstract import Train
from relin.study._errors import WorkerError
from relin.study._executor import AbstractExecutor, in_threads
from relin.study._job import AbstractJob
from relin.study._records import from_parquet
from relin.study._settings import StudySpec
from relin.study._work import compute, work_of

ATTEMPTS = 3
_PAUSE = 0.2


@final
class RayExecutor(AbstractExecutor):
    """Jobs in the workers of a Ray cluster, each on one of its cores.

    Workers need relin, in the same versions, and the study's data, but no folder in common: records come back through
    Ray. Code of the user's own is sent as the text of its file.
    """

    def __init__(self, address: str | None = None):
        """`address`: of the cluster; by default the one of `RAY_ADDRESS` or of this machine, or else one is begun."""
        self.address = address
        self._workers = 1

    def run(self, compute: Callable[[AbstractJob], None], jobs: Iterable[AbstractJob]) -> Iterator[AbstractJob]:
        return in_threads(self._workers, compute, jobs)

    @contextlib.contextmanager
    def training(
        self, spec: StudySpec, data_dir: str | None, here: Callable[[], Train]
    ) -> Iterator[Callable[[], Train]]:
        begun = []

        @cache
        def train() -> Train:
            work = work_of(spec, data_dir, elsewhere=True)
            with needs_extra("study with executor ray", "ray"):
                ray = import_module("ray")
            if not ray.is_initialized():
                _begin(ray, self.address)
                begun.append(ray)
            self._workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
            return _Training(ray, ray.put(work)).train

        del here
        try:
            yield train
        finally:
            for ray in begun:
                ray.shutdown()


def _begin(ray: Any, address: str | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # a fork that runs another program at once
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise WorkerError(
            f"There is no Ray cluster at {address or 'the address that RAY_ADDRESS names'} ({said}); begin one with "
            "`ray start --head`, and name its address, ray:HOST:6379."
        ) from None


@final
class _Training:
    def __init__(self, ray: Any, work: Any):
        self.ray, self.work = ray, work
        self.remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(compute)

    def train(self, job: AbstractJob, advance: Callable[[int, int], None], folder: Path) -> Any:
        del folder  # of this machine
        errors, asked = self.ray.exceptions, self.remote.remote(self.work, pickle.dumps(job), None)
        while True:
            try:
                return from_parquet(self.ray.get(asked, timeout=_PAUSE))
            except errors.GetTimeoutError:
                try:
                    advance(0, 1)
                except BaseException:
                    self.ray.cancel(asked, force=True)
                    raise
            except errors.RayTaskError as error:
                raise error.cause from None
            except errors.RayError as error:
                said = " ".join(str(error).split())[:200]
                raise WorkerError(
                    f"The job {job.name} ended its worker of Ray {ATTEMPTS} times ({said}), for want of memory maybe; "
                    "give workers more, or compute elsewhere."
                ) from None
