"""Where a study's records are kept: one file a pack, whole or absent."""

import contextlib
import fcntl
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from relin._files import write_atomically
from relin.study._pack import AbstractPack
from relin.study._settings import StudySpec
from relin.study._spec import SpecError
from relin.study._specs import SPECS

Claim = Literal["ours", "finished", "busy"]
_RUN = ("schedule", "run_steps", "learning_rate", "seed")
_WIDTH = {"width"}
"""A column only where widths are compared."""


class StoreError(ValueError):
    """What is stored cannot be used; the message names the file and the remedy."""


class Store:
    """A study's folder.

    `spec.json` holds the settings; `packing.json` how many runs a pack holds, so that a study begun on one device can
    be finished on another; `packs/NAME.parquet` the records of a finished pack, renamed into place when it is whole;
    `locks/NAME` is held by the process that computes a pack, and let go by the system if that process dies;
    `records.parquet` all records of a finished study in one file, which with `spec.json` is enough to report on it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.packs, self.locks = folder / "packs", folder / "locks"

    def open(self, spec: StudySpec, lanes: int) -> int:
        """Makes the folder for a study, or finds it there, and returns the number of runs a pack is to hold.

        **Arguments:**

        - `spec`: the settings.
        - `lanes`: the runs a pack holds if the study is new.

        **Raises:** `SpecError` if the folder holds another study; `OSError` if it cannot be written.
        """
        for path in (self.packs, self.locks):
            path.mkdir(parents=True, exist_ok=True)
        with (self.locks / "study").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.folder / "spec.json").exists():
                self._check_same(spec)
            else:
                settings = json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
                write_atomically(self.folder / "packing.json", json.dumps({"lanes": lanes}).encode())
                write_atomically(self.folder / "spec.json", settings.encode())
        return self.lanes()

    def _check_same(self, spec: StudySpec) -> None:
        stored, asked = (s.model_dump(mode="json") for s in (self.spec(), spec))
        different = sorted(name for name in asked if name not in stored or stored[name] != asked[name])
        if different:
            raise SpecError(
                f"{self.folder} holds a study with other settings ({', '.join(different)}); "
                "choose another folder with --out, or remove that one."
            )

    def spec(self) -> StudySpec:
        """The settings of the study in this folder. Raises `SpecError` if there is none, `StoreError` if damaged."""
        path = self.folder / "spec.json"
        if not path.is_file():
            raise SpecError(f"{self.folder} holds no study (no spec.json); name the folder given to --out.")
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            return SPECS[settings["study"]].model_validate(settings)
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path} is not a study's settings; restore it, or run the study in a new folder."
            ) from None

    def lanes(self) -> int:
        """The number of runs a pack of this study is to hold."""
        path = self.folder / "packing.json"
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["lanes"])
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            raise StoreError(
                f'{path} is missing or damaged; write {{"lanes": 1}} into it if the study was begun on a CPU, '
                "or run the study in a new folder."
            ) from None

    def path(self, pack: AbstractPack) -> Path:
        return self.packs / f"{pack.name}.parquet"

    def finished(self, pack: AbstractPack) -> bool:
        return self.path(pack).exists()

    @contextlib.contextmanager
    def claim(self, pack: AbstractPack) -> Iterator[Claim]:
        """Holds a pack's lock: ours to compute, finished meanwhile, or busy in another process."""
        with (self.locks / pack.name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield "busy"
                return
            # Nobody else writes this pack now, so what is half written was left by a process that died.
            for part in self.packs.glob(f".{pack.name}.parquet.*.part"):
                part.unlink(missing_ok=True)
            yield "finished" if self.finished(pack) else "ours"

    def write(self, pack: AbstractPack, records: pl.DataFrame) -> None:
        """Stores a finished pack's records, atomically. Raises `OSError` if the disk refuses."""
        content = io.BytesIO()
        records.write_parquet(content)
        write_atomically(self.path(pack), content.getvalue())

    def write_whole(self, records: pl.DataFrame) -> None:
        """Stores all records of a finished study in one file, for people and for archives."""
        content = io.BytesIO()
        records.write_parquet(content, compression_level=19)
        write_atomically(self.folder / "records.parquet", content.getvalue())

    def read_whole(self) -> pl.DataFrame | None:
        """All records of a study of which no packs are kept; none where there are packs, or no such file.

        **Raises:** `StoreError` if the file is damaged.
        """
        path = self.folder / "records.parquet"
        if self.packs.exists() or not path.exists():
            return None
        try:
            return pl.read_parquet(path.read_bytes())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            raise StoreError(f"{path} is damaged; restore it, or run the study again in a new folder.") from None

    def read(self, packs: Sequence[AbstractPack]) -> pl.DataFrame:
        """The records of these packs, in a fixed order.

        **Raises:** `StoreError` if a file is missing or damaged.
        """
        records = pl.concat([self._read(pack) for pack in packs], how="diagonal_relaxed")
        return records.sort(*_WIDTH.intersection(records.columns), *_RUN, "step")

    def _read(self, pack: AbstractPack) -> pl.DataFrame:
        path = self.path(pack)
        records = pl.DataFrame()
        try:
            records = pl.read_parquet(path.read_bytes())
            width = pl.col("width") if "width" in records.columns else pl.lit(None)
            runs = set(records.select(*_RUN, width.alias("width")).unique().rows())
        except FileNotFoundError:
            raise StoreError(f"{path} is missing; run the study again to compute it.") from None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError):
            runs = None
        if runs != pack.identities:
            raise StoreError(f"{path} is damaged; remove it and run the study again to recompute it.")
        return records


def describe(value: Any) -> str:
    """A value as compact JSON, the same on every machine."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
