"""Makes the run of a lane from its condition and its numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import relin as il
from relin import models
from relin.adapters import from_equinox
from relin.preset import Preset
from relin.study._condition import Condition
from relin.study._grid import RunSpec
from relin.study._named import Lane
from relin.study._optimisers import Optimiser

LOSSES = {"cross-entropy": il.CrossEntropy, "squared-error": il.SquaredError}


@dataclass(frozen=True)
class RunFactory:
    """Makes the run of a lane, from all that its program depends on.

    Equal ones are interchangeable, so that a compiled program is found again: by another job, thread or study.
    """

    condition: Condition
    """That of the runs, without the numbers that are traced."""
    num_steps: int
    model: str
    model_options: str
    input_shape: tuple[int, ...]
    num_classes: int
    loss: str
    optimiser: Optimiser
    check_every: int
    layers: tuple[str, ...] = ()

    def __call__(self, lane: Lane) -> il.Run:
        key = jax.random.key(lane["seed"])
        apply, params = self.build(_key_of_network(key))
        problem, parts = il.Problem(apply, LOSSES[self.loss]()), self._parts(lane)
        return il.Run(problem, parts.solver, parts.schedule, params, jax.random.fold_in(key, 1), parts.safeguard)

    def initial(self, seed: int | jax.Array) -> Any:
        """The parameters with which the run of a seed begins."""
        return self.build(_key_of_network(jax.random.key(seed)))[1]

    def build(self, key: jax.Array) -> Any:
        """The network as a function, and its initial parameters."""
        options = json.loads(self.model_options)
        module = models.build(self.model, self.input_shape, self.num_classes, key=key, **options)
        return from_equinox(module, **mode_of(self.model, options, key))

    def _parts(self, lane: Lane) -> Preset:
        """Solver, schedule and safeguard: of the condition's schedule alone, then as its modifiers change them."""
        solver = il.WeightSpace(self.optimiser.make(lane["learning_rate"], self.num_steps))
        parts = Preset(solver, self.condition.schedule.make(lane, self), None)
        for modifier in self.condition.modifiers:
            parts = modifier.modify(parts, lane)
        return parts


def mode_of(model: str, options: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """How a network with these options is trained, as `from_equinox` is told: batch statistics and dropout are on."""
    options = models.options(model) | options
    mode: dict[str, Any] = {}
    if options.get("norm") == "batch":
        mode["statistics"] = "batch"
    if options.get("dropout", 0) > 0:
        mode |= {"dropout": True, "key": jax.random.fold_in(key, 2)}
    return mode


def _key_of_network(key: jax.Array) -> jax.Array:
    return jax.random.fold_in(key, 0)


def lanes(runs: Sequence[RunSpec]) -> dict[str, np.ndarray]:
    """The numbers of the runs of one program as arrays, one entry a run."""
    traced = [
        {"seed": run.seed, "learning_rate": float(run.learning_rate), **run.condition.traced(run.num_steps)}
        for run in runs
    ]
    columns = {name: [numbers[name] for numbers in traced] for name in traced[0]}
    return {
        name: np.array(values, np.float32 if isinstance(values[0], float) else np.int32)
        for name, values in columns.items()
    }
