"""What the runs of the studies of full-batch gradient descent have in common: network, data, rate, records."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float

import relin as il
from relin import datasets
from relin.study._code import name_of
from relin.study._descent_jobs import DescentJob
from relin.study._descent_specs import DescentSpec
from relin.study._network import NamedNetworks
from relin.study._own_network import OwnNetworks
from relin.study._runner import device, versions
from relin.study._scale import R_SQUARED
from relin.study._specimen import check_size, constant_error, data_digest, data_of, networks_of
from relin.study._store import describe
from relin.study._trainable import check_network, is_coupled

Advance = Callable[[int, int], None]
Row = dict[str, Any]
Spec = TypeVar("Spec", bound=DescentSpec)
_TYPES = {
    "number": pl.Float64,
    "diverged_at": pl.Int64,
    "train_loss": pl.Float64,
    "network_test_accuracy": pl.Float64,
    "outputs": pl.List(pl.Float64),
    "network_outputs": pl.List(pl.Float64),
}


@dataclass(frozen=True)
class Start:
    """The network of a seed before training."""

    problem: il.Problem
    params: Any
    rate: float
    """η."""


class DescentRunner(abc.ABC, Generic[Spec]):
    """Trains jobs of one run each, in the precision of the settings."""

    def __init__(self, spec: Spec, data_dir: str | None = None):
        """**Raises:** `ValueError` for data or a network that does not exist or does not fit."""
        self.spec = spec
        self.dataset = data_of(spec, data_dir)
        self._data_digest = data_digest(spec, self.dataset)
        self._of_values, self._constants = dict[str, Any](), dict[str, float]()
        if self.dataset.is_regression:
            parts = {"validation": self.dataset.validation, "test": self.dataset.test}
            own = {name: constant_error(self.dataset, self._measured(part).y, name) for name, part in parts.items()}
            self._constants = own
            constant = constant_error(self.dataset, self.dataset.train.y, "training")
            self._of_values = {"measure": R_SQUARED, "constant_loss": constant, "constant_accuracy": 0.0}
        self._networks = networks_of(spec, self.dataset, self.dataset.train.num_examples)
        check_size(self._networks.shapes())
        self.apply = self._networks.of_seed(0)[0]
        if il.Problem(self.apply, il.SquaredError()).variables is not None:
            raise ValueError(
                f"model: study {spec.study} takes many steps at once, and its network must be the same at every step; "
                'set norm to "group" or "none" and dropout to 0, or freeze batch statistics.'
            )
        if isinstance(self._networks, OwnNetworks):
            self._check_own()

    def _check_own(self) -> None:
        """Raises `ValueError` for a network of the user's own that cannot be trained or measured."""
        x, y = self.training
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, self._dtype), self._networks.of_seed(0)[1])
        problem = il.Problem(self.apply, il.SquaredError())
        check_network(self.spec, problem, params, (x, y))
        if is_coupled(problem, params, x):
            raise ValueError(
                f"network: the outputs of {name_of(self.spec.model)} for an example depend on the others of its batch, "
                f"and study {self.spec.study} measures kernels example by example; normalise within each example, or "
                "choose another study."
            )

    def train(
        self, job: DescentJob, progress: Advance = lambda done, total: None, folder: Path | None = None
    ) -> pl.DataFrame:
        """The records of a run, one row an outer step that is kept."""
        del folder  # it takes seconds
        with jax.enable_x64(self.spec.precision == "float64"):
            start = self._start(job.seed)
            rows = self.run(job, start, progress)
        spec = self.spec
        shared = {
            "study": spec.study,
            "data": spec.data_name,
            "model": spec.model_name,
            "schedule": job.schedule,
            "way": job.way,
            "number": job.number,
            "learning_rate": job.rate,
            "rate": start.rate,
            "seed": job.seed,
            "run_steps": job.steps,
            "num_classes": self.dataset.num_classes,
            "num_examples": len(self.dataset.train.y),
            "spec": describe(spec.model_dump(mode="json")),
            "versions": describe(versions()),
            **self._of_values,
            **self._data_digest,
            "device": device(),
        }
        types = {name: kind for name, kind in _TYPES.items() if name in {**shared, **rows[0]}}
        return pl.DataFrame([{**shared, **row} for row in rows], schema_overrides=types)

    @abc.abstractmethod
    def run(self, job: DescentJob, start: Start, progress: Advance) -> list[Row]:
        """One row a record, with `step` and what was measured."""

    def _start(self, seed: int) -> Start:
        with jax.enable_x64(False):  # the same initial network in either precision
            params = jax.tree.map(np.asarray, self._initial(seed))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, self._dtype), params)
        problem = il.Problem(self.apply, il.SquaredError())
        key, still = jax.random.key(0), il.SpectralDescent(1e-12)
        looked = il.train(problem, still, il.Never(), params, self.training, num_steps=1, key=key, progress=False)
        return Start(problem, params, self.spec.rate * float(looked.records["largest_rate"][-1]))

    def _initial(self, seed: int) -> Any:
        if isinstance(self._networks, NamedNetworks):
            return self._networks.build(jax.random.key(seed))[1]  # from this key since the first version
        return self._networks.of_seed(seed)[1]

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.spec.precision)

    @property
    def training(self) -> tuple[Float[Array, "N ..."], Float[Array, "N C"]]:
        """The training set, classes as one-hot targets."""
        x, y = self.dataset.train
        if self.dataset.is_regression:
            return self._cast(x), self._cast(y)
        return self._cast(x), jax.nn.one_hot(y, self.dataset.num_classes, dtype=self._dtype)

    @property
    def validation(self) -> Float[Array, "M ..."]:
        return self._cast(self._measured(self.dataset.validation).x)

    @property
    def test(self) -> Float[Array, "M ..."]:
        return self._cast(self._measured(self.dataset.test).x)

    def _measured(self, part: datasets.Examples) -> datasets.Examples:
        return datasets.Examples(*jax.tree.map(lambda values: values[: self.spec.test_limit], tuple(part)))

    def _cast(self, x: Any) -> Any:
        """Floats in the precision of the settings; integers and booleans stay."""
        return jax.tree.map(lambda a: jnp.asarray(a, self._dtype if a.dtype.kind == "f" else None), x)

    def accuracy(self, outputs: Any, part: Literal["validation", "test"]) -> float:
        """Of outputs on what is measured of a part; R² of values."""
        targets = getattr(self.dataset, part).y[: len(outputs)]
        if part in self._constants:
            return 1 - float(il.SquaredError().mean(outputs, self._cast(targets))) / self._constants[part]
        return float(np.mean(np.argmax(np.asarray(outputs), axis=1) == targets))

    def on_probe(self, outputs: Any) -> list[float]:
        """Outputs on the test set: those of the probe, flat."""
        return np.asarray(outputs[: self.spec.probe_size], np.float64).reshape(-1).tolist()
