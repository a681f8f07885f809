"""A single run kept on disk with its parameters, and found there again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import relin as il
from relin._common.files import as_json, from_json, read_file, remove_parts, write_atomically
from relin._core.storage import TENSORS, MismatchError, from_safetensors, tensors_of, to_safetensors, tree_of
from relin.study._errors import SpecError
from relin.study._grid import single_run
from relin.study._records import faults, from_parquet, identities
from relin.study._registry import find
from relin.study._runner import Runner, device, versions
from relin.study._settings import STORED, GridSpec
from relin.study._store import StoreError

Params = Any
_SETTINGS, _PARAMETERS = "run.json", "parameters.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class SavedRun:
    """A run with θ at step 0, at its last anchor and at its end, as PyTrees of one structure."""

    spec: GridSpec
    schedule: str
    learning_rate: float
    seed: int
    initial: Params
    anchor: Params
    params: Params
    variables: Any
    """Of the network at its end, such as running statistics; none for most."""
    records: pl.DataFrame
    solution: il.Solution | None = None
    """How the run ended, of one that was just trained."""


def train_run(
    spec: GridSpec,
    schedule: str,
    rate: float,
    seed: int,
    *,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    loggers: Sequence[il.AbstractLogger] = (),
    checkpoints: Path | None = None,
) -> SavedRun:
    """Trains one run with a study's data, network and optimiser.

    **Arguments:**

    - `checkpoints`: a folder that keeps its state, and from which the same run goes on.

    **Raises:** `ValueError` for settings that cannot be run, and for a folder that keeps another run.
    """
    job = single_run(spec, schedule, rate, seed)
    runner, ends = Runner(spec, data_dir), list[il.Solution]()
    settings = spec.model_dump(mode="json")
    identity = {**settings, **runner.data_digest, "schedule": schedule, "rate": rate, "seed": seed}
    checkpoint = checkpoints and il.Checkpoint(checkpoints, identity=identity)
    records = runner.train(job, progress, ends.append, [_Alone(logger) for logger in loggers], checkpoint)
    parameters = (runner.initial(seed), ends[0].anchor, ends[0].params, ends[0].variables)
    return SavedRun(spec, job.runs[0].condition.name, rate, seed, *parameters, records, ends[0])


class _Alone(il.AbstractLogger):
    """Takes the records of the only lane as those of a run."""

    def __init__(self, logger: il.AbstractLogger):
        self._logger = logger

    @property
    def kind(self) -> str:
        return self._logger.kind

    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        self._logger.log(step, values)

    def handle(self, lane: int | None = None) -> str | None:
        return self._logger.handle()

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        return self._logger.reopen(handle)


def save_run(run: SavedRun, folder: Path) -> None:
    """Writes `run.json`, the settings, `parameters.safetensors`, the initial parameters by their path in the network,
    and the solution, which `relin.load` reads, with those at the anchor and at the end.

    **Raises:** `OSError` where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    last = run.records.row(-1, named=True)
    settings = {
        "format": _FORMAT,
        "schedule": run.schedule,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "result": last["result"],
        "diverged_at": last["diverged_at"],
        "step": last["step"],
        "feature_updates": last["feature_updates"],
        "spec": run.spec.model_dump(mode="json"),
        "versions": versions(),
        "device": device(),
    }
    assert run.solution is not None, "a run that was just trained"
    run.solution.save(folder)
    write_atomically(folder / _PARAMETERS, to_safetensors(tensors_of(run.initial, "initial"), "relin run"))
    write_atomically(folder / _SETTINGS, as_json(settings))  # last: where it is, everything is


def load_run(folder: Path, runner: Callable[[GridSpec], Runner]) -> tuple[SavedRun, Runner]:
    """A run from its folder, and the data and network that it was trained with.

    **Arguments:**

    - `folder`: the one that was given to `save_run`.
    - `runner`: makes data and network from the settings.

    **Raises:** `SpecError` if the folder holds no run, `StoreError` if a file is damaged or does not fit the network.
    """
    settings = _settings(folder)
    spec = settings["spec"]
    own = runner(spec)
    trees = _parameters(folder, own.shapes(), own.network.variables)
    records = _records(folder)
    run = SavedRun(spec, settings["schedule"], settings["learning_rate"], settings["seed"], *trees, records)
    return run, own


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / _SETTINGS
    if not path.is_file():
        raise SpecError(
            f"{folder} holds no saved run (no {_SETTINGS}); name the folder given to `relin train --out`, of this "
            "version or a later one."
        )
    try:
        settings = from_json(read_file(path))
        if settings["format"] != _FORMAT:
            raise StoreError(
                f"{path} has the format {settings['format']!r}, and this version of relin reads {_FORMAT}; train the "
                "run again, or use the version that wrote it."
            )
        spec = find(settings["spec"]["study"]).settings.model_validate(settings["spec"], context=STORED)
        kinds = (("schedule", str), ("learning_rate", int | float), ("seed", int), ("step", int))
        if not all(isinstance(settings[name], kind) for name, kind in kinds):
            raise TypeError
        return {**settings, "spec": spec}
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path} is not a run's settings; restore it, or train the run again.") from None


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return from_safetensors(path)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; restore it, or train the run again.") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); restore it, or train the run again.") from None


def _parameters(folder: Path, shapes: Params, variables: Any) -> tuple[Params, Params, Params, Any]:
    """θ at step 0, at the anchor and at the end, each in the network's structure, and its variables."""
    path = folder / _PARAMETERS
    tensors = _tensors(path)
    if not any(name.startswith("params") for name in tensors):  # earlier versions kept all of them here too
        path = folder / TENSORS
        tensors |= _tensors(path)
    try:
        initial, anchor, params = (tree_of(tensors, name, shapes) for name in ("initial", "anchor", "params"))
        kept = None if variables is None else tree_of(tensors, "variables", variables)
    except MismatchError as error:
        raise StoreError(
            f"{path} does not fit the network of run.json: {error}; restore it, or train the run again."
        ) from None
    return initial, anchor, params, kept


def _records(folder: Path) -> pl.DataFrame:
    path = folder / "records.parquet"
    try:
        records = from_parquet(read_file(path))
        if fault := faults([records], [identities(records)]).get(0):
            raise ValueError(fault)
        return records
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; restore it, or train the run again.") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); restore it, or train the run again.") from None
