"""Where a study's records are kept: one file a pack, whole or absent."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl

from relin.study._grid import Pack
from relin.study._spec import FrequencySpec, SpecError

Claim = Literal["ours", "finished", "busy"]


class Store:
    """A study's folder.

    `spec.json` holds the settings; `packs/NAME.parquet` the records of a finished pack, renamed into place when it is
    whole; `locks/NAME` is held by the process that computes a pack, and let go by the system if that process dies.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.packs, self.locks = folder / "packs", folder / "locks"

    def open(self, spec: FrequencySpec) -> None:
        """Makes the folder for a study, or finds it there.

        **Raises:** `SpecError` if the folder holds another study; `OSError` if it cannot be written.
        """
        for path in (self.packs, self.locks):
            path.mkdir(parents=True, exist_ok=True)
        there = self.folder / "spec.json"
        settings = spec.model_dump(mode="json")
        if there.exists():
            stored = json.loads(there.read_text())
            different = sorted(name for name in settings if stored.get(name) != settings[name])
            if different:
                raise SpecError(
                    f"{self.folder} holds a study with other settings ({', '.join(different)}); "
                    "choose another folder with --out, or remove that one."
                )
        else:
            write_atomically(there, json.dumps(settings, indent=2, ensure_ascii=False).encode())

    def spec(self) -> FrequencySpec:
        """The settings of the study in this folder. Raises `SpecError` if there is none."""
        path = self.folder / "spec.json"
        if not path.exists():
            raise SpecError(f"{self.folder} holds no study (no spec.json); name the folder given to --out.")
        try:
            return FrequencySpec.model_validate_json(path.read_text())
        except ValueError:
            raise SpecError(
                f"{path} is not a study's settings; restore it, or run the study in a new folder."
            ) from None

    def path(self, pack: Pack) -> Path:
        return self.packs / f"{pack.name}.parquet"

    def finished(self, pack: Pack) -> bool:
        return self.path(pack).exists()

    @contextlib.contextmanager
    def claim(self, pack: Pack, wait: bool) -> Iterator[Claim]:
        """Holds a pack's lock: ours to compute, finished meanwhile, or busy in another process."""
        with (self.locks / pack.name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield "busy"
                return
            yield "finished" if self.finished(pack) else "ours"

    def write(self, pack: Pack, records: pl.DataFrame) -> None:
        """Stores a finished pack's records, atomically. Raises `OSError` if the disk refuses."""
        with temporary(self.path(pack)) as part:
            records.write_parquet(part)

    def read(self, packs: list[Pack] | None = None) -> pl.DataFrame:
        """The records of these packs, or of all finished ones, in a fixed order.

        **Raises:** `SpecError` if there are none, or a file is damaged.
        """
        paths = sorted(self.packs.glob("*.parquet")) if packs is None else [self.path(pack) for pack in packs]
        if not paths:
            raise SpecError(f"{self.folder} holds no finished runs yet; run the study first.")
        frames = []
        for path in paths:
            try:
                frames.append(pl.read_parquet(path, glob=False))
            except (pl.exceptions.PolarsError, OSError):
                raise SpecError(f"{path} is damaged; remove it and run the study again to recompute it.") from None
        order = ["schedule", "num_steps", "learning_rate", "seed", "step"]
        return pl.concat(frames, how="diagonal_relaxed").sort(order)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place once written to the end."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    with temporary(path) as part:
        part.write_bytes(content)


def describe(value: Any) -> str:
    """A value as compact JSON, the same on every machine."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
