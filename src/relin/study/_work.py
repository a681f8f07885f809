"""What another process is told of a study, so that it can train its jobs: settings in, records out, no shared state."""

import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from relin.datasets._names import is_known
from relin.study import _code
from relin.study._abstract import Train
from relin.study._errors import SpecError
from relin.study._job import AbstractJob
from relin.study._records import to_parquet
from relin.study._registry import find, load_study
from relin.study._settings import STORED, StudySpec

_NUMBERS = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_random_seed_offset",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_disable_most_optimizations",
)
"""What decides the bits of records, of JAX's configuration."""
_MACHINE = (
    "jax_platforms",
    "jax_num_cpu_devices",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
"""What goes with this machine, beside the device that is its default."""
_ELSEWHERE = {"jax_platforms": "cpu"}
"""On other machines: a worker takes a core, also of a machine with accelerators."""


@final
@dataclass(frozen=True)
class Work:
    """Everything but the jobs."""

    settings: dict[str, Any]
    study_file: str | None
    """Of a study of the user's own."""
    data_dir: str | None
    folder: str
    """The current one, to which paths of the settings are relative."""
    configuration: dict[str, Any]
    """Of JAX."""
    device: tuple[str, int] | None
    """The default one of JAX where that is no platform's name, by its platform and its place among this process's."""
    code: tuple[tuple[str, str, bytes], ...]
    """Places, digests and texts of code of the user's own, for machines that may not have its files."""


def _configuration(elsewhere: bool) -> dict[str, Any]:
    import jax

    numbers = {name: jax.config.values[name] for name in _NUMBERS}
    if elsewhere:
        return numbers | _ELSEWHERE
    machine = {name: jax.config.values[name] for name in _MACHINE}
    return numbers | machine | {"jax_default_device": None if _device() else jax.config.values["jax_default_device"]}


def _device() -> tuple[str, int] | None:
    """The default device, which cannot be pickled, where it is one."""
    import jax

    device = jax.config.values["jax_default_device"]
    if not isinstance(device, jax.Device):
        return None
    return device.platform, jax.local_devices(backend=device.platform).index(device)


def work_of(spec: StudySpec, data_dir: str | None, *, elsewhere: bool) -> bytes:
    """What another process is told of a study, pickled; one of another machine where `elsewhere`.

    **Raises:** `SpecError` for code that cannot be handed over.
    """
    own = {name: getattr(spec, name) for name in spec.own_code if name in spec.digests}
    if is_known(spec.data):  # files of data, of which each machine has its own
        own.pop("data", None)
    for name, place in own.items():
        if not _code.is_place(place):
            raise SpecError(
                f"{name}: {_code.name_of(place)} is an object of this process, which others cannot get; define it in a "
                "file and name that, FILE.py:NAME, or compute in threads."
            )
    study_file = _file_of_study(spec)
    if elsewhere and study_file is not None:
        raise SpecError(
            f"The study {spec.study} is that of a file, which workers of Ray do not have; install the package it comes "
            "with, or compute in processes."
        )
    texts = [
        (place, spec.digests[name], _code.text_of(place))
        for name, place in own.items()
        if elsewhere and _code.is_file(place)
    ]
    return pickle.dumps(
        Work(
            settings=spec.model_dump(mode="json"),
            study_file=study_file,
            data_dir=data_dir and os.path.abspath(data_dir),
            folder=os.getcwd(),
            configuration=_configuration(elsewhere),
            device=None if elsewhere else _device(),
            code=tuple(texts),
        )
    )


def _file_of_study(spec: StudySpec) -> str | None:
    """The file that `load_study` was given, if it was."""
    module = sys.modules[find(spec.study).__module__.partition(".")[0]]
    return module.__file__ if module.__name__.startswith("_relin_study_") else None


def compute(work: bytes, job: bytes, folder: str | None) -> bytes:
    """In the other process: the records of a pickled job, as a Parquet file.

    **Arguments:**

    - `work`: of `work_of`.
    - `job`: pickled, an `AbstractJob`.
    - `folder`: where a long job keeps its state, if there is such a folder on this machine.

    **Raises:** `ValueError` for what cannot be trained here.
    """
    train = _trainer(work)
    unpickled: AbstractJob = pickle.loads(job)  # its class may be that of a study which is known only now
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(temporary, "unfinished") if folder is None else Path(folder)
        return to_parquet(train(unpickled, lambda done, total: None, kept))


@lru_cache(maxsize=1)
def _trainer(work: bytes) -> Train:
    told: Work = pickle.loads(work)
    if os.path.isdir(told.folder):
        os.chdir(told.folder)
    _configure(told)
    if told.study_file is not None:
        load_study(Path(told.study_file))
    for place, digest, text in told.code:
        _code.receive(place, digest, text)
    study = find(told.settings["study"])
    return study(study.settings.model_validate(told.settings, context=STORED)).trainer(told.data_dir)


def _configure(told: Work) -> None:
    """Sets JAX as it was set where the work was made."""
    import jax

    for name, value in told.configuration.items():
        if jax.config.values[name] != value:
            jax.config.update(name, value)
    if told.device is not None:
        platform, place = told.device
        jax.config.update("jax_default_device", jax.local_devices(backend=platform)[place])
