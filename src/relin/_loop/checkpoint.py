"""A run's state on disk, from which training goes on as if nothing had happened."""

import contextlib
import json
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from relin._common.files import as_json, from_json, read_file, remove_parts, write_atomically
from relin._common.lease import LeaseLostError, SoleWriter
from relin._common.words import listed
from relin._core import check as _check
from relin._core.fingerprint import environment
from relin._core.storage import MismatchError, from_safetensors, is_storable, tensors_of, to_safetensors, tree_of
from relin._core.tree import numbers
from relin._core.types import State
from relin._loop.program import RunState
from relin._loop.reached import Earlier, Reached, Rows

_FORMAT = 1
_SECONDS = 60.0
"""Between two checkpoints where the number of steps is not said."""
_SHARE = 0.01
"""Of the time that passes, the most that writing checkpoints takes there."""
_NAME = re.compile(r"step-(\d+)\.(json|safetensors)")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state, so that the same call goes on where it was stopped.

    A run that goes on ends with the same bits as one that was never stopped, on the same device and versions. It is
    stopped in good order by Ctrl-C and, in the main thread, by SIGTERM, which SLURM sends before the time is up: the
    state is written first. Of a run that was killed the state last written is read. What goes on must be the same run:
    problem, solver, schedule, data, key and all else that decides it are compared. The number of steps may be larger.

    **Arguments:**

    - `folder`: of this run alone; it is made. `train_lanes` makes one for each lane in it where its lanes run one after
      another.
    - `every`: steps from one checkpoint to the next; by default about a minute, or more where writing takes long, so
      that it takes at most a hundredth of the time. A solver that takes many steps at once is kept at its records.
    - `keep`: how many of the newest checkpoints stay.
    - `at_end`: whether the end is kept too: the same call then trains nothing, and one with more steps goes on from it.
    - `identity`: what says which run it is, numbers and texts by name, compared in the place of the run's parts.
      Without it digests of the parts are made, those of the data from every number.

    **Raises:** `ValueError` for numbers below 1.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 2
    at_end: bool = True
    identity: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.every is not None:
            _check.count(self.every, "every", "1000 steps, for example, or None for about a minute")
        _check.count(self.keep, "keep", "2 are usual")
        if self.identity is not None:
            object.__setattr__(self, "identity", _as_in_a_file(self.identity))

    def of_lane(self, index: int) -> "Checkpoint":
        """The checkpoint of one lane, in a folder of its own."""
        return replace(self, folder=Path(self.folder) / f"lane-{index}")


def _as_in_a_file(identity: Any) -> Any:
    try:
        return json.loads(json.dumps(dict(identity), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`identity` must be numbers, texts, and lists and dictionaries of them, by name, got {identity!r} "
            f"({error}); convert the others."
        ) from None


class Keeper:
    """Writes and reads the checkpoints of a run."""

    def __init__(self, checkpoint: Checkpoint, identity: Mapping[str, Any], spread: str = "on one device"):
        """`identity` is what decides the run, by names that people know; its values are JSON's. `spread` says over
        which devices."""
        self.folder, self.checkpoint, self.identity = Path(checkpoint.folder), checkpoint, dict(identity)
        self.environment = f"{environment()}, {spread}"
        self._written, self._took = time.monotonic(), 0.0
        self._at = 0
        """The step of the checkpoint last written or read."""
        self._known, self._left = set[int](), set[int]()
        """Steps of files that were found at the start or written since, and of those that the run found and left, since
        they were damaged or only half there."""
        self._lock, self.sole = threading.Lock(), SoleWriter(self.folder, self.folder, "run")
        self.folder.parent.mkdir(parents=True, exist_ok=True)

    def newest(self, start: RunState, observed: State) -> Reached | None:
        """The state last written; none where there is none. `start` and `observed` say its structure.

        **Raises:** `OtherRunError` where it is another run's or newer than the last step, `UnreadableError` where all
        are damaged.
        """
        names, self._known = self._steps(), self._numbers()
        self._left = set(self._known)
        for step in reversed(names):
            try:
                found = self._read(step, start, observed)
            except (OSError, _DamagedError):
                continue
            self._at, self._left = step, {other for other in self._known if other > step}
            return found
        if names:
            raise UnreadableError(
                f"Every checkpoint in {self.folder} is damaged; restore one, or choose another folder."
            )
        return None

    def check(self, state: Any, position: Any) -> None:
        """Raises, before training, `TypeError` for batches whose position, or a state, that cannot be kept, and
        `NotADirectoryError` for a file in the folder's place."""
        _plain(position, "position", tensors := {})
        leaves = jax.tree.leaves((state, tensors))
        for kind in {np.dtype(numbers(leaf).dtype) for leaf in leaves}:
            if not is_storable(kind):
                raise TypeError(
                    f"The solver, an observer or the batches hold numbers of the type {kind}, which a checkpoint "
                    "cannot keep; take another type, such as bfloat16, or two real numbers for a complex one."
                )
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"A checkpoint's folder must be one, got the file {self.folder}; name another.")

    def is_only_the_end(self, step: int | float) -> bool:
        """Whether a record at this step is one of the run's end alone."""
        every = self.identity["record_every"]
        return step == self.identity["num_steps"] and (every is None or step % every != 0)

    def next_step(self, step: int, took: float | None) -> int:
        """The next step at which a checkpoint is due; `took` are seconds a step, `None` where it is not known yet."""
        if self.checkpoint.every is not None:
            return step - step % self.checkpoint.every + self.checkpoint.every
        if took is None:
            return step + 1
        return step + max(1, int(self._pause() / 2 / max(took, 1e-9)))

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written at this step, which may be later than one at which it was due."""
        if self.checkpoint.every is not None:
            return step // self.checkpoint.every > self._at // self.checkpoint.every
        return time.monotonic() - self._written >= self._pause()

    def _pause(self) -> float:
        return max(_SECONDS, self._took / _SHARE)

    def write(self, reached: Reached) -> None:
        """Raises `OSError` where the folder cannot be written, `LeaseLostError` where another process has it now or has
        had it meanwhile."""
        with self._lock:  # a signal's thread may write too
            step = int(reached.step)
            begun = time.monotonic()
            state, losses = jax.block_until_ready(reached.state), reached.earlier and reached.earlier.losses
            tensors = tensors_of((state, reached.observed, losses, reached.final), "state") | _tensors_of_rows(
                reached.rows
            )
            settings = {"format": _FORMAT, "step": step, "run": self.identity, "environment": self.environment}
            settings |= {"earlier": reached.earlier and reached.earlier.step, "final": reached.final is not None}
            settings["position"] = _plain(reached.position, "position", tensors)
            self.folder.mkdir(exist_ok=True)  # alone: a folder that was removed meanwhile stays away
            if not self.sole.keep() and self._numbers() - self._known:
                self.sole.leave()  # so that nothing is written at the end either
                raise LeaseLostError(
                    f"{self.folder} was taken over by another process while this one was suspended, and holds what "
                    "that one has written; run again to go on from there."
                )
            remove_parts(self.folder)
            self._known.add(step)
            write_atomically(self._path(step, "safetensors"), to_safetensors(tensors, "relin checkpoint"))
            write_atomically(self._path(step, "json"), as_json(settings))  # last: where it is, everything is
            kept = [other for other in self._steps() if other <= step][-self.checkpoint.keep :]
            for path in list(self.folder.iterdir()):  # newer ones only where they were left: others are not this run's
                other = int(found[1]) if (found := _NAME.fullmatch(path.name)) else None
                if other is not None and other not in kept and (other <= step or other in self._left):
                    path.unlink(missing_ok=True)
            self._left.clear()
            self._written, self._at = time.monotonic(), step
            self._took = self._written - begun

    def _path(self, step: int, kind: str) -> Path:
        return self.folder / f"step-{step}.{kind}"

    def _numbers(self) -> set[int]:
        """The steps of all files that are there."""
        if not self.folder.is_dir():
            return set()
        return {int(name[1]) for path in self.folder.iterdir() if (name := _NAME.fullmatch(path.name))}

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in found if name and name[2] == "json")

    def _read(self, step: int, start: RunState, observed: State) -> Reached:
        settings = _settings(self._path(step, "json"))
        if settings["format"] != _FORMAT:
            raise OtherRunError(f"The checkpoint in {self.folder} has another format; use the version that wrote it.")
        others = ""
        if settings["environment"] != self.environment:
            others = f"was written by {settings['environment']}, and the run goes on with {self.environment}"
        self._check_same(settings["run"], others and f" (it {others})")
        if others:
            warnings.warn(
                f"The checkpoint in {self.folder} {others}: it may end with other last digits.",
                stacklevel=2,
            )
        if settings["step"] > self.identity["num_steps"]:
            raise OtherRunError(
                f"The run in {self.folder} is at step {settings['step']}, got num_steps={self.identity['num_steps']}; "
                "pass at least as many, or choose another folder."
            )
        try:
            tensors = from_safetensors(self._path(step, "safetensors"))
            late, final = settings["earlier"], start.loss_sum if settings["final"] else None
            losses = None if late is None else (start.loss_sum, start.loss_count)
            state, observed, losses, final = tree_of(tensors, "state", (start, observed, losses, final))
            earlier = None if late is None or losses is None else Earlier(late, losses)
            rows = _rows_of(tensors)
        except MismatchError as error:
            raise OtherRunError(f"{self.folder} holds another network's run: {error}; choose another folder.") from None
        except (ValueError, KeyError):
            raise _DamagedError from None
        at = np.where(np.asarray(state.diverged_at) >= 0, step, state.step)
        if settings["step"] != step or np.any(at != step):  # files of another step under this one's name
            raise _DamagedError
        steps = settings["run"]["num_steps"]
        return Reached(step, state, observed, rows, steps, earlier, final, _unplain(settings["position"], tensors))

    def _check_same(self, run: Any, others: str) -> None:
        if not isinstance(run, dict):
            raise _DamagedError
        names = sorted(self.identity.keys() | run.keys())
        other = [n for n in names if n != "num_steps" and self.identity.get(n) != run.get(n)]
        if not other:
            return
        raise OtherRunError(
            f"{self.folder} holds a run that differs in {listed(other)}{others}; restore what it was trained with, or "
            "choose another folder."
        )


class OtherRunError(ValueError):
    """The folder holds another run."""


class UnreadableError(ValueError):
    """The folder holds checkpoints, and none that can be read."""


class _DamagedError(Exception):
    pass


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = from_json(read_file(path))
        known = {"format", "step", "run", "environment", "earlier", "final", "position"}
        if isinstance(settings, dict) and known <= settings.keys():
            return settings
    except ValueError:
        pass
    raise _DamagedError


def _tensors_of_rows(rows: Rows) -> dict[str, np.ndarray]:
    """Each column of the records by its name, its place among them first."""
    names = list(rows[0]) if rows else []
    return {f"rows/{n:04}/{name}": np.stack([np.asarray(row[name]) for row in rows]) for n, name in enumerate(names)}


def _rows_of(tensors: Mapping[str, np.ndarray]) -> Rows:
    columns = {key.split("/", 2)[2]: tensors[key] for key in sorted(tensors) if key.startswith("rows/")}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{**row, "step": int(row["step"])} for row in rows]


def _plain(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """A position as JSON has it; arrays go among the tensors."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            value = np.frombuffer(value, np.uint8)
            tensors[f"position/{name}"] = value
            return {"bytes": name}
        case dict() if all(isinstance(key, str) for key in value):
            return {"dict": {key: _plain(one, f"{name}.{key}", tensors) for key, one in value.items()}}
        case dict():
            pairs = [[key, one] for key, one in value.items()]
            return {"pairs": _plain(pairs, name, tensors)}
        case list() | tuple():
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [_plain(one, f"{name}.{n}", tensors) for n, one in enumerate(value)]}
    if hasattr(value, "detach"):  # PyTorch's
        tensors[f"position/{name}"] = value.detach().cpu().numpy()
        return {"torch": name}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        tensors[f"position/{name}"] = np.asarray(value)
        return {"array": name}
    raise TypeError(
        f"The position of the batches, their `state_dict`, holds {type(value).__name__}, which a checkpoint cannot "
        "keep; pass batches whose position is numbers, texts, arrays and lists or dictionaries of them."
    )


def _unplain(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    match kind:
        case "bytes":
            return tensors[f"position/{held}"].tobytes()
        case "array":
            return tensors[f"position/{held}"]
        case "torch":
            import torch

            return torch.from_numpy(np.array(tensors[f"position/{held}"]))
        case "dict":
            return {key: _unplain(one, tensors) for key, one in held.items()}
        case "pairs":
            return dict(_unplain(held, tensors))
    found = [_unplain(one, tensors) for one in held]
    return tuple(found) if kind == "tuple" else found


_ON_THE_WAY: dict[Keeper, Callable[[], Reached | None]] = {}


def write_all() -> None:
    """Writes the state of every run on its way, from any thread: for what ends the process."""
    for keeper, newest in list(_ON_THE_WAY.items()):
        if (reached := newest()) is not None:
            keeper.write(reached)


@contextlib.contextmanager
def on_the_way(keeper: Keeper | None, newest: Callable[[], Reached | None]) -> Iterator[None]:
    """Meanwhile `write_all` writes what `newest` gives, and SIGTERM ends the run in good order."""
    if keeper is None:
        yield
        return
    _ON_THE_WAY[keeper] = newest
    try:
        with obeying_sigterm():
            yield
    finally:
        del _ON_THE_WAY[keeper]
        keeper.sole.leave()


class StoppedError(SystemExit):
    """SIGTERM came: the process ends with the code 143 after the state was written."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


def _stop(number: int, frame: Any) -> None:
    raise StoppedError


def obeying_sigterm() -> contextlib.AbstractContextManager[None]:
    """SIGTERM raises `StoppedError` meanwhile, in the main thread, unless the program has a handler of its own."""
    return _answering_sigterm(signal.SIG_DFL, _stop)


def ignoring_sigterm() -> contextlib.AbstractContextManager[None]:
    """A second SIGTERM does nothing meanwhile, where `obeying_sigterm` obeys the first."""
    return _answering_sigterm(_stop, signal.SIG_IGN)


@contextlib.contextmanager
def _answering_sigterm(before: Any, meanwhile: Any) -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    if not (main and signal.getsignal(signal.SIGTERM) is before):
        yield
        return
    signal.signal(signal.SIGTERM, meanwhile)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is meanwhile:
            signal.signal(signal.SIGTERM, before)
