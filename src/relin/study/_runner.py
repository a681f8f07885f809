"""Trains one job of runs, and gives their records."""

import math
import platform
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import relin as il
from relin._common.lease import InUseError, LeaseLostError
from relin._loop.checkpoint import OtherRunError, UnreadableError
from relin._solver import check_optimiser
from relin.study import _measuring as measuring
from relin.study._code import load_measure
from relin.study._condition import Condition
from relin.study._grid import Job, RunSpec
from relin.study._grid_study import AbstractGridStudy
from relin.study._measure import ACCURACY, Measure
from relin.study._measuring import Measuring, outputs_of
from relin.study._network import AbstractNetworks
from relin.study._own_network import OwnNetworks
from relin.study._run_factory import LOSSES, RunFactory, lanes
from relin.study._settings import GridSpec, Place
from relin.study._specimen import check_size, data_digest, data_of, networks_of
from relin.study._store import describe
from relin.study._trainable import check_network, check_observers, check_schedules, is_coupled

Data = tuple[Any, jax.Array]
_CHUNK = 1000
"""Examples that go through a network at once."""
_PACKAGES = ("relin", "jax", "jaxlib", "equinox", "optax", "numpy", "polars")


class Runner:
    """A study's data and networks: trains its jobs."""

    def __init__(self, spec: GridSpec, data_dir: str | None = None, study: AbstractGridStudy | None = None):
        """`study` has observers of its own. Raises `ValueError` for data or a network that does not exist or fit."""
        self.spec, self.cells = spec, {cell.place: cell for cell in spec.cells()}
        self.study = study
        self.dataset = data_of(spec, data_dir)
        _check_batch_size(spec, self.dataset.train.num_examples)
        _check_precision(self.dataset)
        if self.dataset.is_regression and spec.loss != "squared-error":
            raise ValueError(
                f"loss: the targets of {spec.data} are floats, and so values to predict, got {spec.loss}; set "
                '"squared-error", or give classes as integers or text.'
            )
        self._networks = {place: networks_of(cell, self.dataset, spec.batch_size) for place, cell in self.cells.items()}
        self._first = next(iter(self._networks.values()))
        check_size(self._first.shapes())
        _check_optimiser(spec, self._first.shapes())
        self.data, validation, test = (
            jax.tree.map(jnp.asarray, tuple(part))
            for part in (self.dataset.train, self.dataset.validation, self.dataset.test)
        )
        self.validation, self.test = validation, test
        self._observers = cache(self._all_observers)  # an optimiser in one equals no other, and is compiled anew
        self.data_digest = data_digest(spec, self.dataset)
        self._coupled = False
        measure = _own_measure(spec, study)
        self._function = None if measure is None else measure.function
        if isinstance(self._first, OwnNetworks) and study is not None:
            self._check_own()
        self._measuring = self._measuring_of(measure)

    def train(
        self,
        job: Job,
        progress: Callable[[int, int], None] | None = None,
        keep: Callable[[il.Solution], None] = lambda solution: None,
        loggers: Sequence[il.AbstractLogger] = (),
        checkpoint: il.Checkpoint | None = None,
    ) -> pl.DataFrame:
        """The records of a job's runs, one row a record; `keep` is shown where each run ended."""
        solutions = il.train_lanes(
            self.make(job.condition, self.cells[job.place], job.num_steps),
            lanes(job.runs, self._networks[job.place]),
            self.data,
            num_steps=job.num_steps,
            batch_size=None if self._takes_all else self.spec.batch_size,
            observers=self._observers(job.extra_rate),
            record_every=math.ceil(job.num_steps / self.spec.num_records),
            progress=progress or False,
            loggers=loggers,
            checkpoint=checkpoint,
        )
        for solution in solutions:
            keep(solution)
        rows = [self._records(job, run, solution) for run, solution in zip(job.runs, solutions, strict=True)]
        return pl.concat(rows)

    def train_kept(self, job: Job, progress: Callable[[int, int], None], folder: Path) -> pl.DataFrame:
        """The records of a job whose state is kept in a folder about once a minute, and found there.

        **Raises:** `LeaseLostError` where another process has taken the job over on the way.
        """
        runs = [list(run.identity) for run in job.runs]  # of a job whose other runs are taken, only some
        checkpoint = il.Checkpoint(folder, at_end=False, identity={**self.provenance, "runs": runs})
        try:
            return self.train(job, progress, checkpoint=checkpoint)
        except LeaseLostError as error:  # without the solution so far, which no pipe takes
            raise LeaseLostError(str(error)) from None
        except InUseError:  # at the start: by a process that lost the job to this one, and is not dead yet
            return self.train(job, progress)
        except (OtherRunError, UnreadableError):  # of other versions, or damaged
            shutil.rmtree(folder, ignore_errors=True)
            return self.train(job, progress, checkpoint=checkpoint)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the bits of a run depend on beside its settings."""
        return {"versions": versions(), "device": device(), **self.data_digest}

    def shapes(self) -> Any:
        """Shapes and types of the parameters."""
        return self._first.shapes()

    @property
    def _takes_all(self) -> bool:
        """Whether a batch is all examples; these are then seen in their order, which the nodes of a graph need."""
        return self.spec.batch_size == self.dataset.train.num_examples

    def _check_own(self) -> None:
        """Raises `ValueError` for networks of the user's own that cannot be trained or measured, before any run is."""
        batch = first(self.data, self.spec.batch_size)
        for place, cell in self.cells.items():
            apply, params = self._networks[place].of_seed(0)
            problem = il.Problem(apply, LOSSES[cell.loss]())
            check_network(cell, problem, params, batch)
            check_schedules(cell, problem, params, batch)
            self._coupled = self._coupled or is_coupled(problem, params, batch[0])
            check_observers(cell, problem, params, self._observers(None), self._coupled)

    def probe(self, size: int) -> Data:
        """The first validation examples; all of them where they go through the network together."""
        return self.validation if self._coupled else first(self.validation, size)

    def _all_observers(self, extra_rate: float | None) -> tuple[il.AbstractObserver, ...]:
        """Those of all studies, and those of this one."""
        sizes = [len(part[1]) if self._coupled else None for part in (self.validation, self.test)]
        return (
            il.Performance(self.validation, "validation", sizes[0], self._function),
            il.Performance(self.test, "test", sizes[1], self._function),
            il.LinearisationError(self.probe(self.spec.probe_size)[0], sizes[0]),
            il.Movement(),
            *(self.study.observers(extra_rate, self) if self.study else ()),
        )

    def _measuring_of(self, measure: Measure | None) -> Measuring:
        """What runs are judged by; single runs, apart from a study, by accuracy where there are classes."""
        loss, y = LOSSES[self.spec.loss](), self.data[1]
        parts = {"validation": self.validation, "test": self.test}
        if measure is not None:
            outputs = {name: (self._untrained_outputs(self._first, 0, part), part[1]) for name, part in parts.items()}
            return measuring.own(measure, loss, y, outputs)
        if not self.dataset.is_regression:
            return measuring.accuracy(y)
        return measuring.VALUES if self.study is None else measuring.r_squared(self.dataset, parts)

    @property
    def network(self) -> Any:
        """The network of the runs, `apply(params, x)` of parameters and a batch."""
        return self._first.of_seed(0)[0]

    def initial(self, seed: int | jax.Array) -> Any:
        """The parameters with which the run of a seed begins."""
        return self._first.of_seed(seed)[1]

    def untrained_loss(self, seed: int, place: Place | None) -> float:
        """The mean test loss with which the runs of a seed begin, in the cell at a place."""
        outputs = self._untrained_outputs(self._networks[place], seed, self.test)
        return float(LOSSES[self.spec.loss]().mean(outputs, self.test[1]))

    def _untrained_outputs(self, networks: AbstractNetworks, seed: int, part: Data) -> jax.Array:
        apply, params = networks.of_seed(seed)
        problem = il.Problem(apply, LOSSES[self.spec.loss]())
        size = len(part[1]) if self._coupled else _CHUNK
        return outputs_of(problem.evaluated(problem.variables).apply, params, part[0], size)

    def make(self, condition: Condition, cell: GridSpec, num_steps: int | None = None) -> RunFactory:
        """Makes the runs of a condition with the settings of a cell, of T steps where the number is not said."""
        return RunFactory(
            condition=condition.shared,
            num_steps=num_steps or cell.steps,
            network=self._networks[cell.place],
            loss=cell.loss,
            optimiser=cell.trained_by,
            check_every=cell.check_every,
            layers=tuple(cell.layers),
        )

    def _records(self, job: Job, run: RunSpec, solution: il.Solution) -> pl.DataFrame:
        spec = self.spec
        measured = pl.DataFrame(solution.records).with_columns(pl.col(pl.Float32).cast(pl.Float64))
        measured = self._measuring.of(measured)
        place = {} if run.place is None else {run.place.axis: pl.lit(run.place.value, pl.Int64)}
        told = measured.with_columns(
            pl.col("step", "feature_updates").cast(pl.Int64),
            study=pl.lit(spec.study),
            data=pl.lit(spec.data_name),
            model=pl.lit(spec.model_name),
            stage=pl.lit(job.stage),
            schedule=pl.lit(run.condition.name),
            period=pl.lit(run.condition.period, pl.Float64),
            learning_rate=pl.lit(run.learning_rate),
            seed=pl.lit(run.seed, pl.Int64),
            num_steps=pl.lit(self.cells[run.place].steps, pl.Int64),
            run_steps=pl.lit(run.num_steps, pl.Int64),
            batch_size=pl.lit(spec.batch_size, pl.Int64),
            mode=pl.lit(solution.mode),
            num_classes=pl.lit(self.dataset.num_classes, pl.Int64),
            result=pl.lit(solution.result.value),
            final_loss=pl.lit(solution.final_loss, pl.Float64),
            constant_loss=pl.lit(solution.constant_loss, pl.Float64),
            **self._measuring.at_untrained,
            diverged_at=pl.lit(solution.diverged_at, pl.Int64),
            spec=pl.lit(describe(spec.model_dump(mode="json"))),
            versions=pl.lit(describe(versions())),
            **{name: pl.lit(digest) for name, digest in self.data_digest.items()},
            device=pl.lit(device()),
        )
        return told.with_columns(**place).rename({"training_loss": "train_loss"})


def _own_measure(spec: GridSpec, study: AbstractGridStudy | None) -> Measure | None:
    """The measure that the settings name; none of accuracy."""
    if spec.measure == ACCURACY:
        return None
    if study is None:
        raise ValueError("measure: a single run is measured by its loss and accuracy; leave it out, or run a study.")
    measure = load_measure(spec.measure, spec.digests["measure"])
    if measure.function is None:
        raise ValueError(
            f"measure: {measure.name} has no function, and only for runs made elsewhere none is needed; give it."
        )
    return measure


def first(part: Data, size: int) -> Data:
    """The first examples of a part."""
    return jax.tree.map(lambda array: array[:size], part)


def _check_precision(dataset: il.datasets.Dataset) -> None:
    double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(tuple(dataset.train)))
    if double and jnp.zeros((), float).dtype != np.float64:
        raise ValueError(
            f"data: {dataset.name} is in float64, and JAX computes in float32; leave dtype out where the data are "
            'made, or call jax.config.update("jax_enable_x64", True) first.'
        )


def _check_optimiser(spec: GridSpec, shapes: Any) -> None:
    try:
        check_optimiser(spec.trained_by.make(spec.learning_rates[0], spec.steps), shapes)
    except (TypeError, ValueError) as error:
        said = str(error)
        raise ValueError(said if said.startswith("optimiser: ") else f"optimiser: {said}") from error


def _check_batch_size(spec: GridSpec, num_examples: int) -> None:
    if spec.batch_size > num_examples:
        limited = "" if spec.train_limit is None else " that train_limit leaves"
        raise ValueError(
            f"batch_size: there are {num_examples} training examples{limited} in {spec.data}, got {spec.batch_size}; "
            "choose a smaller batch."
        )


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def device() -> str:
    """The device kind and how many there are, for example `cpu (x86_64, 1 device)`."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        count = jax.device_count()
        return f"cpu ({platform.machine()}, {count} device{'' if count == 1 else 's'})"
    return f"{jax.device_count()} × {first.device_kind}"
