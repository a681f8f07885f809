"""Where a study's records are kept: one file a job, whole or absent."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from relin._common.files import as_json, from_json, read_file, remove_parts, write_atomically
from relin._common.lease import Leases
from relin._common.words import listed, shortened
from relin.study import _records
from relin.study._errors import SpecError, StoreError as StoreError
from relin.study._job import AbstractJob, Identity
from relin.study._registry import find, names
from relin.study._settings import STORED, StudySpec

Claim = Literal["ours", "finished", "busy"]
_MOST_LANES = 1_000_000


class Store:
    """A study's folder.

    `spec.json` holds the settings; `packing.json` how many runs a job holds, so that a study begun on one device can
    be finished on another; `packs/NAME.parquet` the records of a finished job, renamed into place when it is whole;
    `unfinished/NAME` the state of a job that takes minutes;
    `locks/NAME.lease` is held by the process that computes a job, and free for others once that process is dead;
    `records.parquet` all records of a finished study in one file, which with `spec.json` is enough to report on it.

    Each file holds its own digest, so that it and its content are there together or not at all. What a relin before
    there were digests wrote has none, and is read.

    **Arguments:**

    - `folder`: its path; it need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.jobs, self.locks = folder / "packs", folder / "locks"
        self._leases = Leases(self.locks)
        self._parsed: dict[Path, tuple[bytes, pl.DataFrame]] = {}

    @property
    def is_new(self) -> bool:
        """Whether there is no study in the folder yet."""
        return not (self.folder / "spec.json").exists()

    def open(self, spec: StudySpec, lanes: int) -> int:
        """Makes the folder for a study, or finds it there, and returns the number of runs a job is to hold.

        **Arguments:**

        - `spec`: the settings.
        - `lanes`: the runs a job holds if the study is new.

        **Raises:** `SpecError` if the folder holds another study; `OSError` if it cannot be written.
        """
        for path in (self.jobs, self.locks):
            path.mkdir(parents=True, exist_ok=True)
        with self._leases.held("study"):
            for path in (self.folder, self.jobs, self.folder / "figures"):
                remove_parts(path)
            if self.is_new:
                write_atomically(self.folder / "packing.json", as_json({"lanes": lanes}))
                write_atomically(self.folder / "spec.json", as_json(spec.model_dump(mode="json")))
            else:
                self._check_same(spec)
        return self.lanes()

    def _check_same(self, spec: StudySpec) -> None:
        stored, asked = (s.model_dump(mode="json") for s in (self.spec(), spec))
        different = sorted(name for name in asked if name not in stored or stored[name] != asked[name])
        if different == ["digests"]:
            which = listed(
                [asked[name] for name, digest in asked["digests"].items() if stored["digests"].get(name) != digest]
            )
            raise SpecError(
                f"{self.folder} holds a study of {which} as it was before: its code or data have changed, and runs of "
                "both do not compare; restore it, or choose another folder with --out."
            )
        if different:
            raise SpecError(
                f"{self.folder} holds a study with other settings ({listed(different)}); "
                "choose another folder with --out, or remove that one."
            )

    def spec(self) -> StudySpec:
        """The settings of the study in this folder. Raises `SpecError` if there is none, `StoreError` if damaged."""
        path = self.folder / "spec.json"
        if not path.is_file():
            raise SpecError(f"{self.folder} holds no study (no spec.json); name the folder given to --out.")
        try:
            settings = from_json(read_file(path))
            study = settings["study"]
            if isinstance(study, str) and study not in names():
                raise SpecError(
                    f"{path} is that of a study that is not installed, {shortened(study)}; name its Python file with "
                    "--study, or install the package it comes with."
                )
            return find(study).settings.model_validate(settings, context=STORED)
        except SpecError:
            raise
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{path} is not a study's settings; restore it, or run the study in a new folder."
            ) from None

    def lanes(self) -> int:
        """The number of runs a job of this study is to hold."""
        path = self.folder / "packing.json"
        try:
            lanes = from_json(read_file(path))["lanes"]
            if type(lanes) is int and 1 <= lanes <= _MOST_LANES:
                return lanes
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            pass
        raise StoreError(
            f'{path} is missing or damaged; write {{"lanes": 1}} into it if the study was begun on a CPU, '
            "or run the study in a new folder."
        )

    def path(self, job: AbstractJob) -> Path:
        """The file of a finished job."""
        return self.jobs / f"{job.name}.parquet"

    def finished(self, job: AbstractJob) -> bool:
        """Whether a job's records are there and whole. Raises `StoreError` for those of another study."""
        return self.path(job).exists() and not self.damaged([job])

    @contextlib.contextmanager
    def claim(self, job: AbstractJob) -> Iterator[Claim]:
        """Holds a job's lease: ours to compute, finished meanwhile, or busy in another process."""
        with self._still_there():
            ours = self._leases.acquire(job.name)
        if not ours:
            yield "finished" if self.finished(job) else "busy"  # whoever wrote it may hold the lease still
            return
        try:
            yield "finished" if self.finished(job) else "ours"
        finally:
            self._leases.release(job.name)

    def unfinished(self, job: AbstractJob) -> Path:
        """Where the state of a long job is, until its records are stored."""
        return self.folder / "unfinished" / job.name

    def write(self, job: AbstractJob, records: pl.DataFrame) -> None:
        """Stores a finished job's records, atomically, and removes its state, unless another process has claimed it.

        **Raises:** `OSError` if the disk refuses; `StoreError` if the folder was removed.
        """
        self._write(self.path(job), _records.to_parquet(records))
        if not self._leases.holds(job.name):
            return
        shutil.rmtree(self.unfinished(job), ignore_errors=True)
        with contextlib.suppress(OSError):  # of other jobs
            self.unfinished(job).parent.rmdir()

    def write_whole(self, records: pl.DataFrame) -> None:
        """Stores all records of a finished study in one file, for people and for archives, if they are not there yet.

        **Raises:** as `write`.
        """
        path = self.folder / "records.parquet"
        with contextlib.suppress(OSError, ValueError):
            if self._frame(path).equals(records):
                return
        self._write(path, _records.to_parquet(records, compression_level=19))

    def _write(self, path: Path, content: bytes) -> None:
        with self._still_there():
            if self.is_new:
                raise FileNotFoundError  # what is left of a removed folder must not become half of one
            write_atomically(path, content)

    @contextlib.contextmanager
    def _still_there(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if not self.is_new:
                raise
            raise StoreError(
                f"{self.folder} was removed while the study ran; run the same command again to begin anew."
            ) from None

    def read_whole(self) -> pl.DataFrame | None:
        """All records of a study of which no jobs are kept; none where there are jobs, or no such file.

        **Raises:** `StoreError` if the file is damaged.
        """
        path = self.folder / "records.parquet"
        if self.jobs.exists() or not path.exists():
            return None
        spec = self.spec()
        try:
            return self._checked(path, spec)
        except _records.OtherSettingsError as error:
            raise self._other(path, error) from None
        except ValueError as error:
            raise StoreError(
                f"{path} is damaged ({error}); restore it, or run the study again in a new folder."
            ) from None

    def _checked(self, path: Path, spec: StudySpec) -> pl.DataFrame:
        """The records of whichever runs a file holds. Raises `OSError`, and `ValueError` for what is wrong with it."""
        records = self._frame(path)
        runs = _records.identities(records, spec.axis)
        if fault := _records.faults([records], [runs], spec.axis).get(0) or _records.check_settings(records, spec):
            raise ValueError(fault)
        return records

    def finished_whole(self, spec: StudySpec) -> pl.DataFrame | None:
        """As `read_whole`, of a study that is to have these settings. Raises `SpecError` if it has others too."""
        records = self.read_whole()
        if records is not None:
            self._check_same(spec)
        return records

    def parts(self, tell: Callable[[str], None]) -> list[pl.DataFrame]:
        """The records of each finished job, also of a study that is not finished, or of all of them from one file.

        **Arguments:**

        - `tell`: called with a sentence for each damaged job, which is left out.

        **Raises:** `SpecError` if there is no study; `StoreError` if it has no finished runs, and as `read_whole`.
        """
        if (whole := self.read_whole()) is not None:
            return [whole]
        spec, found = self.spec(), list[pl.DataFrame]()
        for path in sorted(self.jobs.glob("*.parquet")):
            try:
                found.append(self._checked(path, spec))
            except (OSError, ValueError) as error:
                tell(f"{path} is damaged, or of other settings ({error}); none of its runs are taken.")
        if not found:
            raise StoreError(f"{self.folder} holds no finished runs that are whole; let its study train some first.")
        return found

    def read(self, jobs: Sequence[AbstractJob]) -> pl.DataFrame:
        """The records of these jobs, in a fixed order.

        **Raises:** `StoreError` if a file is missing or damaged.
        """
        for job in jobs:
            if not self.path(job).exists():
                raise StoreError(f"{self.path(job)} is missing; run the study again to compute it.")
        for job, fault in self.damaged(jobs).items():
            raise StoreError(f"{self.path(job)} is damaged ({fault}); run the study again, which recomputes it.")
        records = pl.concat([self._frame(self.path(job)) for job in jobs], how="diagonal_relaxed")
        if _records.DATA_DIGEST in records.columns and records[_records.DATA_DIGEST].n_unique() > 1:
            raise StoreError(
                f"{self.folder} holds runs on different data: what {self.spec().data} gives has changed since the "
                "first of them; run the study in a new folder, and take no runs from another one."
            )
        return _records.in_order(records, self.spec().axis)

    def damaged(self, jobs: Sequence[AbstractJob]) -> dict[AbstractJob, _records.Fault]:
        """Those of the jobs in the folder that do not hold the records of their runs, and why.

        **Raises:** `StoreError` for one that holds the records of a study with other settings.
        """
        found, frames = dict[AbstractJob, _records.Fault](), dict[AbstractJob, pl.DataFrame]()
        for job in jobs:
            try:
                frames[job] = self._frame(self.path(job), _most_rows(job.identities))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                found[job] = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if frames:
            own = list(frames)
            places = _records.faults(list(frames.values()), [job.identities for job in own], self.spec().axis)
            found |= {own[place]: fault for place, fault in places.items()} | self._of_other_settings(frames)
        return {job: found[job] for job in jobs if job in found}

    def _of_other_settings(self, frames: dict[AbstractJob, pl.DataFrame]) -> dict[AbstractJob, _records.Fault]:
        spec, found, known = self.spec(), dict[AbstractJob, _records.Fault](), set[tuple[str, str]]()
        for job, records in frames.items():
            texts = set(records.select("spec", "versions").unique().rows())
            if texts <= known:
                continue
            try:
                fault = _records.check_settings(records, spec)
            except _records.OtherSettingsError as error:
                raise self._other(self.path(job), error) from None
            if fault:
                found[job] = fault
            else:
                known |= texts
        return found

    def _other(self, path: Path, error: Exception) -> StoreError:
        return StoreError(
            f"{path} holds records of a study with other settings ({error}); move it out of {self.folder}, whose "
            "spec.json says what belongs there."
        )

    def _frame(self, path: Path, most: int | None = None) -> pl.DataFrame:
        """A file's records, parsed once as long as its bytes stay the same. Raises `OSError` and `ValueError`."""
        content = read_file(path)
        digest = hashlib.sha256(content).digest()
        known = self._parsed.get(path)
        if known is None or known[0] != digest:
            known = self._parsed[path] = digest, _records.from_parquet(content, most)
        return known[1]


def _most_rows(identities: set[Identity]) -> int:
    return sum(steps + 1 for _, steps, *_ in identities)


def describe(value: Any) -> str:
    """A value as compact JSON, the same on every machine."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
