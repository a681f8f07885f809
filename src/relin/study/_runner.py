"""Trains one pack of runs, and gives their records."""

import math
import platform
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl

import relin as il
from relin import datasets, models
from relin.adapters import from_equinox
from relin.study._grid import Pack, RunSpec
from relin.study._spec import FrequencySpec
from relin.study._store import describe

LOSSES = {"cross-entropy": il.CrossEntropy, "squared-error": il.SquaredError}
_PACKAGES = ("relin", "jax", "jaxlib", "equinox", "optax", "numpy", "polars")


class Runner:
    """A study's data and networks, and the functions that make its runs.

    One object serves all packs of a study, so that each kind of program is compiled once.
    """

    def __init__(self, spec: FrequencySpec, data_dir: str | None = None):
        """**Raises:** `ValueError` for data or a network that does not exist or does not fit."""
        self.spec = spec
        self.dataset = datasets.load(spec.data, data_dir=data_dir, limit=spec.train_limit)
        smallest = self.dataset.train.x.shape[0]
        il.Shuffled(spec.batch_size).check(smallest)
        self._build(jax.random.key(0))
        self._makers: dict[tuple[str, int], Callable[[Any], il.Run]] = {}

    @cached_property
    def data(self) -> tuple[jax.Array, jax.Array]:
        x, y = self.dataset.train
        return jnp.asarray(x), jnp.asarray(y)

    @cached_property
    def observers(self) -> tuple[il.AbstractObserver, ...]:
        validation, test = self.dataset.validation, self.dataset.test
        return (
            il.Performance((jnp.asarray(validation.x), jnp.asarray(validation.y)), "validation"),
            il.Performance((jnp.asarray(test.x), jnp.asarray(test.y)), "test"),
            il.LinearisationError(jnp.asarray(validation.x[: self.spec.probe_size])),
            il.Movement(),
        )

    def train(self, pack: Pack, progress: Callable[[int, int], None] | None = None) -> pl.DataFrame:
        """The records of a pack's runs, one row a record."""
        solutions = il.train_lanes(
            self._maker(pack.kind, pack.num_steps),
            self._lanes(pack),
            self.data,
            num_steps=pack.num_steps,
            batch_size=self.spec.batch_size,
            observers=self.observers,
            record_every=math.ceil(pack.num_steps / self.spec.num_records),
            progress=progress,
        )
        rows = [self._records(pack, run, solution) for run, solution in zip(pack.runs, solutions, strict=True)]
        return pl.concat(rows)

    def _build(self, key: jax.Array) -> Any:
        spec = self.spec
        module = models.build(
            spec.model, self.dataset.input_shape, self.dataset.num_classes, key=key, **spec.model_options
        )
        return from_equinox(module)

    def _maker(self, kind: str, num_steps: int) -> Callable[[Any], il.Run]:
        """The same function for the same kind of program, so that its compiled form is found again."""
        if (kind, num_steps) not in self._makers:
            self._makers[kind, num_steps] = self._make_maker(kind, num_steps)
        return self._makers[kind, num_steps]

    def _make_maker(self, kind: str, num_steps: int) -> Callable[[Any], il.Run]:
        spec = self.spec

        def make(lane: dict[str, jax.Array]) -> il.Run:
            key = jax.random.key(lane["seed"])
            apply, params = self._build(jax.random.fold_in(key, 0))
            if kind == "every":
                schedule = il.Every(lane["period"])
            else:
                schedule = il.WhenError(lane["tolerance"], spec.check_every)
            solver = il.WeightSpace(optimiser(spec, lane["learning_rate"], num_steps))
            problem = il.Problem(apply, LOSSES[spec.loss]())
            return il.Run(problem, solver, schedule, params, jax.random.fold_in(key, 1))

        return make

    def _lanes(self, pack: Pack) -> dict[str, np.ndarray]:
        """The pack's runs as arrays; K = ∞ is a period that no run reaches."""
        never = np.iinfo(np.int32).max
        values = np.array([run.schedule.value for run in pack.runs])
        return {
            "seed": np.array([run.seed for run in pack.runs], np.int32),
            "learning_rate": np.array([run.learning_rate for run in pack.runs], np.float32),
            "period": np.where(np.isfinite(values) & (values >= 1), values, never).astype(np.int32),
            "tolerance": values.astype(np.float32),
        }

    def _records(self, pack: Pack, run: RunSpec, solution: il.Solution) -> pl.DataFrame:
        spec = self.spec
        measured = pl.DataFrame(solution.records).with_columns(pl.col(pl.Float32).cast(pl.Float64))
        return measured.with_columns(
            pl.col("step", "feature_updates").cast(pl.Int64),
            study=pl.lit(spec.study),
            data=pl.lit(spec.data),
            model=pl.lit(spec.model),
            stage=pl.lit(pack.stage),
            schedule=pl.lit(run.schedule.name),
            period=pl.lit(run.schedule.period, pl.Float64),
            learning_rate=pl.lit(run.learning_rate),
            seed=pl.lit(run.seed, pl.Int64),
            num_steps=pl.lit(spec.steps, pl.Int64),
            batch_size=pl.lit(spec.batch_size, pl.Int64),
            num_classes=pl.lit(self.dataset.num_classes, pl.Int64),
            result=pl.lit(solution.result.value),
            diverged_at=pl.lit(solution.diverged_at, pl.Int64),
            spec=pl.lit(describe(spec.model_dump(mode="json"))),
            versions=pl.lit(describe(versions())),
            device=pl.lit(device()),
        ).rename({"training_loss": "train_loss"})


def optimiser(spec: FrequencySpec, rate: Any, num_steps: int) -> optax.GradientTransformation:
    """SGD with momentum, its rate falling to 0 as the spec says."""
    if spec.decay == "linear":
        rate = optax.linear_schedule(rate, 0.0, num_steps)
    elif spec.decay == "cosine":
        rate = optax.cosine_decay_schedule(rate, num_steps)
    return optax.sgd(rate, momentum=spec.momentum or None)


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def device() -> str:
    """The device kind and how many there are, for example `cpu (x86_64, 2 cores)`."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"cpu ({platform.machine()}, {jax.device_count()} device)"
    return f"{jax.device_count()} × {first.device_kind}"
