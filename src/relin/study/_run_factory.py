"""Makes the run of a lane from its condition and its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

import relin as il
from relin.preset import Preset
from relin.study._condition import Condition
from relin.study._grid import RunSpec
from relin.study._named import Lane
from relin.study._network import AbstractNetworks
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
    network: AbstractNetworks
    loss: str
    optimiser: Optimiser
    check_every: int
    layers: tuple[str, ...] = ()

    def __call__(self, lane: Lane) -> il.Run:
        key = jax.random.key(lane["seed"])
        apply, params = self.network.of_lane(lane)
        problem, parts = il.Problem(apply, LOSSES[self.loss]()), self._parts(lane)
        return il.Run(problem, parts.solver, parts.schedule, params, jax.random.fold_in(key, 1), parts.safeguard)

    def _parts(self, lane: Lane) -> Preset:
        """Solver, schedule and safeguard: of the condition's schedule alone, then as its modifiers change them."""
        solver = il.WeightSpace(self.optimiser.make(lane["learning_rate"], self.num_steps))
        parts = Preset(solver, self.condition.schedule.make(lane, self), None)
        for modifier in self.condition.modifiers:
            parts = modifier.modify(parts, lane, self)
        return parts


def lanes(runs: Sequence[RunSpec], network: AbstractNetworks) -> Lane:
    """The numbers of the runs of one program as arrays, one entry a run."""
    traced = [
        {"seed": run.seed, "learning_rate": float(run.learning_rate), **run.condition.traced(run.num_steps)}
        for run in runs
    ]
    columns = {name: [numbers[name] for numbers in traced] for name in traced[0]}
    return network.lanes([run.seed for run in runs]) | {
        name: np.array(values, np.float32 if isinstance(values[0], float) else np.int32)
        for name, values in columns.items()
    }
