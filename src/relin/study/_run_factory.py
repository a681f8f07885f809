"""Makes the run of a lane from its condition and its numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import relin as il
from relin import models
from relin.adapters import from_equinox
from relin.study._grid import RunSpec
from relin.study._optimisers import Optimiser
from relin.study._settings import LARGEST

LOSSES = {"cross-entropy": il.CrossEntropy, "squared-error": il.SquaredError}
_NEVER = LARGEST
"""A period that no run reaches: of the steps of a run it is the most."""

Lane = dict[str, jax.Array]


@dataclass(frozen=True)
class RunFactory:
    """Makes the run of a lane, from all that its program depends on.

    Equal ones are interchangeable, so that a compiled program is found again: by another job, thread or study.
    """

    program: str
    """Of the runs' conditions: the kinds of schedule and parts."""
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
        solver, schedule, safeguard = self._condition(lane)
        problem = il.Problem(apply, LOSSES[self.loss]())
        return il.Run(problem, solver, schedule, params, jax.random.fold_in(key, 1), safeguard)

    def initial(self, seed: int | jax.Array) -> Any:
        """The parameters with which the run of a seed begins."""
        return self.build(_key_of_network(jax.random.key(seed)))[1]

    def build(self, key: jax.Array) -> Any:
        """The network as a function, and its initial parameters."""
        options = json.loads(self.model_options)
        module = models.build(self.model, self.input_shape, self.num_classes, key=key, **options)
        return from_equinox(module, **mode_of(self.model, options, key))

    def _condition(self, lane: Lane) -> tuple[il.AbstractSolver, il.AbstractSchedule, il.AbstractSafeguard | None]:
        kind, *parts = self.program.split("+")
        schedule = self._schedule(kind, lane)
        optimiser = self.optimiser.make(lane["learning_rate"], self.num_steps)
        if parts == ["sparse"]:
            preset = il.preset.sparse(optimiser, schedule)
            return preset.solver, preset.schedule, preset.safeguard
        options, safeguard = dict[str, Any](), None
        for part in parts:
            match part.split("-"):
                case ["clip"]:
                    optimiser = optax.chain(optax.clip_by_global_norm(lane["clip"]), optimiser)  # pyright: ignore
                case ["line"]:
                    safeguard = il.LineSearch(lane["line"])
                case ["trust"]:
                    safeguard = il.TrustRegion(lane["trust"])
                case ["proximal"]:
                    options["proximal"] = lane["proximal"]
                case ["shrink", factor]:
                    options["on_relinearise"] = float(factor)
                case _:
                    options["on_relinearise"] = "reset"
        return il.WeightSpace(optimiser, **options), schedule, safeguard

    def _schedule(self, kind: str, lane: Lane) -> il.AbstractSchedule:
        match kind:
            case "every":
                return il.Every(lane["count"])
            case "when-error":
                return il.WhenError(lane["tolerance"], self.check_every)
            case "when-loss-gap":
                return il.WhenLossGap(lane["tolerance"], self.check_every)
            case "when-moves":
                return il.WhenFunctionMoves(lane["tolerance"], self.check_every)
            case "until":  # n updates are before steps 1 to n
                return il.Until(il.Every(1), lane["count"] + 1)
            case "after":
                return il.After(il.Every(1), lane["count"])
            case _ if kind.startswith(("rich-", "lazy-")):
                return self._by_layer(*kind.split("-"))
            case _:
                return il.AtSteps(lane["steps"])

    def _by_layer(self, how: str, number: str) -> il.AbstractSchedule:
        """One layer re-linearised at every step and the others never, or the other way round."""
        if int(number) >= len(self.layers):
            raise ValueError(
                f"{how}-{number}: the settings name {len(self.layers)} layers, counted from 0; add it to `layers`."
            )
        layer, *others = (il.Every(1), il.Never()) if how == "rich" else (il.Never(), il.Every(1))
        return il.PerParameter({f"{self.layers[int(number)]}*": layer, "*": others[0]})


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
    """The numbers of the runs of one program as arrays, one entry a run; each program reads those that it needs."""
    conditions = [run.condition for run in runs]
    values = np.array([condition.value for condition in conditions])
    columns = {
        "seed": np.array([run.seed for run in runs], np.int32),
        "learning_rate": np.array([run.learning_rate for run in runs], np.float32),
        "count": np.minimum(values, _NEVER).astype(np.int32),
        "tolerance": values.astype(np.float32),
    }
    for place, part in enumerate(conditions[0].parts):
        columns[part.kind] = np.array([condition.parts[place].value for condition in conditions], np.float32)
    if conditions[0].is_placed:
        columns["steps"] = np.array([run.condition.updates_at(run.num_steps) for run in runs], np.int32)
    return columns
