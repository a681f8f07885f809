"""Runs that a study takes from another one's folder, where both would train the same."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

import polars as pl

from relin._common.words import listed
from relin.study._abstract import AbstractStudy, Train
from relin.study._errors import SpecError, StoreError
from relin.study._grid import Job, selection_jobs
from relin.study._grid_study import AbstractGridStudy
from relin.study._job import AbstractJob, Identity
from relin.study._records import DATA_DIGEST, RUN
from relin.study._settings import Place
from relin.study._store import Store, describe

if TYPE_CHECKING:
    from relin.study._runner import Runner

_ALIKE = 2e-3
"""Up to which part losses of the same networks on the same data differ between devices: TF32 and bfloat16 round."""
_MEASURING = ("observers", "extra_steps", "jobs", "runner", "trainer")
"""What a study may do in its own way, by any of its settings: it must say itself which ones leave runs as they are."""


@final
class Taken:
    """The stored runs of an earlier study, for one that differs from it in which runs there are, not in what a run is.

    A run is known by its schedule, its number of steps, its learning rate, its seed and its place on the study's axis;
    the settings named in `StudySpec.choosing` say which of them there are, and all others must be equal. Jobs that
    measure more than their runs, as in `kernel`, are trained again.

    **Arguments:**

    - `study`: the one that takes them. If it measures runs in its own way, its settings must define `choosing`
      themselves, else all settings must be equal.
    - `folder`: of the earlier one, finished or not; `spec.json` with `records.parquet` is enough of a finished one.
    - `data_dir`: where the data set's files are looked for first.
    - `tell`: called with a sentence for each damaged job of the earlier one.

    **Raises:** `SpecError` for a study that trains no grid of runs, a folder without a study, and one with other
    settings or other runs only; `StoreError` where it is damaged.
    """

    def __init__(self, study: AbstractStudy, folder: Path, data_dir: str | None, tell: Callable[[str], None]):
        spec, store = study.spec, Store(folder)
        if not isinstance(study, AbstractGridStudy):
            raise SpecError(f"The study {spec.study} takes no runs of another one; leave the folder {folder} out.")
        stored, asked = (s.model_dump(mode="json") for s in (store.spec(), spec))
        free = _free(study)
        different = sorted(name for name in stored | asked if stored.get(name) != asked.get(name))
        if other := [name for name in different if name not in free]:
            allowed = "differ only in which runs there are, such as learning_rates, seeds and methods"
            raise SpecError(
                f"{folder} holds runs with other settings ({listed(other)}), and none of them can be taken; its study "
                f"may {allowed if free else 'differ in no setting'}."
            )
        self.folder, self._axis, self._is_checked = folder, spec.axis, False
        self._runner = partial(study.runner, data_dir)
        names = RUN if spec.axis is None or spec.axis in RUN else (*RUN, spec.axis)
        self._runs = dict[Identity, pl.DataFrame]()
        for part in store.parts(tell):
            for run in part.with_columns(spec=pl.lit(describe(asked))).partition_by(names, maintain_order=True):
                self._runs.setdefault(self._identity(run), run)  # a study begun on two devices may hold one twice
        if not any(job.identities & self._runs.keys() for cell in spec.cells() for job in selection_jobs(cell, 1)):
            raise SpecError(
                f"{folder} has none of the runs of this study, neither learning rates nor schedules of which are among "
                "its own; leave it out."
            )

    def check(self) -> None:
        """Whether the networks and data here are those of the runs, by what they measured before the first step.

        **Raises:** `StoreError` where they are not, as with other versions, another precision or changed files.
        """
        if self._is_checked:
            return
        own = self._runner()
        for place, runs in self._by_place().items():
            cell = None if place is None else Place(cast(str, self._axis), place)
            for run in {min(runs): runs[min(runs)], max(runs): runs[max(runs)]}.values():
                self._check_begin(own, run, cell)
        self._is_checked = True

    def write(self, jobs: Sequence[AbstractJob], store: Store) -> None:
        """Stores those of the jobs all of whose runs are here, and that nobody has stored or claimed.

        **Raises:** as `check`.
        """
        for job in jobs:
            if job.identities == self._known(job) and not store.path(job).exists():
                self.check()
                with store.claim(job) as claim:
                    if claim == "ours":
                        store.write(job, self._records(cast(Job, job), job.identities))

    def train(self, train: Train) -> Train:
        """What trains only those runs of a job that are not here.

        **Raises:** as `check`.
        """

        def rest(job: AbstractJob, *arguments) -> pl.DataFrame:
            job, known = cast(Job, job), self._known(job)
            if not known:
                return train(job, *arguments)
            self.check()
            others = tuple(run for run in job.runs if run.identity not in known)
            trained = [train(replace(job, runs=others), *arguments)] if others else []
            return pl.concat([self._records(job, known), *trained], how="diagonal_relaxed")

        return rest

    def _known(self, job: AbstractJob) -> set[Identity]:
        return set() if cast(Job, job).extra_rate is not None else job.identities & self._runs.keys()

    def _records(self, job: Job, runs: set[Identity]) -> pl.DataFrame:
        own = [self._runs[run.identity] for run in job.runs if run.identity in runs]
        return pl.concat(own, how="diagonal_relaxed").with_columns(stage=pl.lit(job.stage))

    def _identity(self, run: pl.DataFrame) -> Identity:
        first = run.row(0, named=True)
        place = None if self._axis is None else first[self._axis]
        return first["schedule"], first["run_steps"], first["learning_rate"], first["seed"], place

    def _by_place(self) -> "Mapping[int | None, dict[int, pl.DataFrame]]":
        """A run of each seed, at each place on the axis."""
        found = dict[int | None, dict[int, pl.DataFrame]]()
        for (*_, seed, place), run in self._runs.items():
            found.setdefault(place, {}).setdefault(seed, run)
        return found

    def _check_begin(self, runner: "Runner", run: pl.DataFrame, place: Place | None) -> None:
        seed, taken = run.item(0, "seed"), run.item(0, "test_loss")
        changed = DATA_DIGEST in run.columns and run.item(0, DATA_DIGEST) != runner.data_digest.get(DATA_DIGEST)
        own = runner.untrained_loss(seed, place)
        if changed or (math.isfinite(taken + own) and not math.isclose(taken, own, rel_tol=_ALIKE)):
            losses = f"before the first step the test loss of seed {seed} is {taken:.4g} there and {own:.4g} here"
            raise StoreError(
                f"{self.folder} holds runs of other networks or on other data, though its settings are the same: "
                f"{'the data differ' if changed else losses}. Versions, precision or files have changed; take no runs "
                "from it."
            )


def _free(study: AbstractGridStudy) -> frozenset[str]:
    """The settings in which the other study may differ."""
    own_way = any(getattr(type(study), name) is not getattr(AbstractGridStudy, name) for name in _MEASURING)
    says_itself = "choosing" in vars(type(study.spec))
    return frozenset() if own_way and not says_itself else study.spec.choosing
