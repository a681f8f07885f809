"""Runs that a study takes from another one's folder, where both would train the same."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, final

import polars as pl

from relin._common.words import listed
from relin.study._abstract import AbstractStudy, Train
from relin.study._errors import SpecError
from relin.study._grid import Job, selection_jobs
from relin.study._grid_study import AbstractGridStudy
from relin.study._job import AbstractJob, Identity
from relin.study._records import RUN
from relin.study._store import Store, describe

_ALIKE = 2e-3
"""Up to which part losses of the same networks on the same data differ between devices: TF32 and bfloat16 round."""


@final
class Taken:
    """The stored runs of an earlier study, for one that differs from it in which runs there are, not in what a run is.

    A run is known by its schedule, its number of steps, its learning rate, its seed and its place on the study's axis;
    the settings named in `StudySpec.choosing` say which of them there are, and all others must be equal.

    **Arguments:**

    - `study`: the one that takes them. Where measuring a run rests on the others, as in `kernel`, all settings must be
      equal.
    - `folder`: of the earlier one, finished or not; `spec.json` with `records.parquet` is enough of a finished one.

    **Raises:** `SpecError` for a study that trains no grid of runs, a folder without a study, and one with other
    settings or other runs only; `StoreError` where it is damaged.
    """

    def __init__(self, study: AbstractStudy, folder: Path):
        spec, store = study.spec, Store(folder)
        if not isinstance(study, AbstractGridStudy):
            raise SpecError(f"The study {spec.study} takes no runs of another one; leave the folder {folder} out.")
        stored, asked = (s.model_dump(mode="json") for s in (store.spec(), spec))
        measures_more = type(study).extra_steps is not AbstractGridStudy.extra_steps  # by what the others showed
        free = frozenset[str]() if measures_more else spec.choosing
        different = sorted(name for name in stored | asked if stored.get(name) != asked.get(name))
        if other := [name for name in different if name not in free]:
            allowed = "differ only in which runs there are, such as learning_rates, seeds and methods"
            raise SpecError(
                f"{folder} holds runs with other settings ({listed(other)}), and none of them can be taken; its study "
                f"may {allowed if free else 'differ in no setting'}."
            )
        self.folder, self._axis = folder, spec.axis
        records = store.stored_runs().with_columns(spec=pl.lit(describe(asked)))
        names = RUN if spec.axis is None or spec.axis in RUN else (*RUN, spec.axis)
        runs = records.partition_by(names, maintain_order=True)
        self._runs = {identity: run for run in runs for identity, _ in self._begin(run)}
        self._losses = {identity[3:]: loss for run in runs for identity, loss in self._begin(run)}
        if not any(job.identities & self._runs.keys() for cell in spec.cells() for job in selection_jobs(cell, 1)):
            raise SpecError(
                f"{folder} has none of the runs of this study, neither learning rates nor schedules of which are among "
                "its own; leave it out."
            )

    def write(self, jobs: Sequence[AbstractJob], store: Store) -> None:
        """Stores those of the jobs all of whose runs are here, and that nobody has stored or claimed."""
        for job in jobs:
            if job.identities <= self._runs.keys() and not store.path(job).exists():
                with store.claim(job) as claim:
                    if claim == "ours":
                        store.write(job, self._records(cast(Job, job), job.identities))

    def train(self, train: Train) -> Train:
        """What trains only those runs of a job that are not here; a job that measures more than its runs as a whole.

        Raises `SpecError` where runs of a seed do not begin as those here.
        """

        def rest(job: AbstractJob, *arguments) -> pl.DataFrame:
            job = cast(Job, job)
            known = set[Identity]() if job.extra_rate is not None else job.identities & self._runs.keys()
            others = tuple(run for run in job.runs if run.identity not in known)
            if not others:
                return self._records(job, known)
            trained = train(replace(job, runs=others) if known else job, *arguments)
            self._check_begin(trained)
            return pl.concat([self._records(job, known), trained], how="diagonal_relaxed") if known else trained

        return rest

    def _records(self, job: Job, runs: set[Identity]) -> pl.DataFrame:
        own = [self._runs[run.identity] for run in job.runs if run.identity in runs]
        return pl.concat(own, how="diagonal_relaxed").with_columns(stage=pl.lit(job.stage))

    def _begin(self, records: pl.DataFrame) -> list[tuple[Identity, float]]:
        """Each run, and its test loss before the first step: that of its seed's network, whatever trains it."""
        place = pl.lit(None, pl.Int64) if self._axis is None else pl.col(self._axis)
        first = records.filter(step=0).select(*RUN, place.alias("place"), "test_loss")
        return [(cast(Identity, row[:-1]), row[-1]) for row in first.iter_rows()]

    def _check_begin(self, trained: pl.DataFrame) -> None:
        for (*_, seed, place), loss in self._begin(trained):
            taken = self._losses.get((seed, place), math.nan)
            if math.isfinite(taken + loss) and not math.isclose(taken, loss, rel_tol=_ALIKE):
                raise SpecError(
                    f"{self.folder} holds runs of other networks or on other data, though its settings are the same: "
                    f"before the first step the test loss of seed {seed} is {taken:.4g} there and {loss:.4g} here. "
                    "Versions, precision or the data's files have changed; run the study in a new folder, and take no "
                    "runs from that one."
                )
