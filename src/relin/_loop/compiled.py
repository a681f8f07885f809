"""The programs of `_program`, compiled once for each kind of run and for all its lanes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from jaxtyping import PyTree

from relin._core.randomness import RandomnessError, not_drawn
from relin._core.types import Inputs, Params, Scalar, State, Step, Targets
from relin._loop import program as _program
from relin._loop.program import Batch, Data, Run, RunState, Sampling
from relin._loop.same import identity
from relin._observer import AbstractObserver

Lane = PyTree
Shared = PyTree


class Recombine:
    """A PyTree's static part: called with the arrays it was separated from, it gives the PyTree back.

    Equal static parts are equal, so that a second run of the same kind finds the compiled program; Optax's functions
    are compared by what they close over, see `_same`.
    """

    def __init__(self, static: PyTree):
        self.static = static
        leaves, structure = jax.tree.flatten(static)
        self.identity = (tuple(map(identity, leaves)), structure)

    def __call__(self, arrays: PyTree) -> Any:
        return eqx.combine(arrays, self.static)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recombine) and self.identity == other.identity

    def __hash__(self) -> int:
        try:
            return hash(self.identity)
        except TypeError:  # a static leaf without a hash: equal parts still compare equal
            return hash(self.identity[1])


def separate(tree: PyTree) -> tuple[PyTree, Recombine]:
    """The arrays of a PyTree, and the function that puts them back."""
    arrays, static = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return arrays, Recombine(static)


@partial(jax.jit, static_argnums=0)
def derivative(make: Recombine, problem: PyTree, params: Params, x: Inputs, y: Targets) -> tuple[Scalar, Params]:
    """A linearised step's loss and gradient: a program to look at, traced once for all runs on the same problem."""
    return make(problem).linearised_value_and_grad(params, params, x, y)


@partial(jax.jit, static_argnums=0)
def watched_outputs(make: Recombine, problem: PyTree, params: Params, x: Inputs) -> Any:
    """The network's outputs: a program whose shapes are looked at, traced once for all runs on the same problem. Raises
    `RandomnessError`, at every attempt, where random numbers are drawn."""
    apply = make(problem).apply
    with not_drawn(apply, _raise):
        return apply(params, x)


def _raise(generator: str) -> None:
    raise RandomnessError(generator)


class Kind(eqx.Module):
    """What is common to all lanes of a program, hashable: how a lane becomes a run, how to take the shared apart."""

    make: Callable[[Lane], Run]
    shared: Recombine

    def __call__(self, lane: Lane, shared: Shared) -> tuple[Run, Sampling, tuple[AbstractObserver, ...]]:
        sampling, observers = self.shared(shared)
        return self.make(lane), sampling, observers


How = Literal["single", "map", "vmap"]


def init(kind: Kind, how: How, lanes: Lane, shared: Shared, data: Data) -> tuple[RunState, State]:
    """The state before step 0 and the observers'."""

    def one(shared: Shared, data: Data, lane: Lane) -> tuple[RunState, State]:
        run, sampling, observers = kind(lane, shared)
        return started(run, observers, _program.batch_reader(run, sampling, data, 0, 1)(0))

    return over_lanes(how, one)(shared, data, lanes)


def started(run: Run, observers: tuple[AbstractObserver, ...], batch: Batch) -> tuple[RunState, State]:
    state = _program.init(run, batch)
    context = _program.context(run, state)
    return state, tuple(observer.init(context) for observer in observers)


def segment(
    kind: Kind, how: How, lanes: Lane, shared: Shared, data: Data, state: RunState, stop: Step, count: int
) -> RunState:
    """The state at step `stop`, at most `count` steps on."""

    def one(shared: tuple[Shared, Step], data: Data, lane: tuple[Lane, RunState]) -> RunState:
        run, sampling, _ = kind(lane[0], shared[0])
        return _program.segment(run, sampling, data, lane[1], shared[1], count, nested=how != "vmap")

    return over_lanes(how, one)((shared, stop), data, (lanes, state))


def observe(
    kind: Kind, how: How, lanes: Lane, shared: Shared, state: RunState, observed: State
) -> tuple[dict[str, Any], RunState, State]:
    """A record, the state with its running loss begun anew, and the observers' new states."""

    def one(
        shared: Shared, no_data: None, lane: tuple[Lane, RunState, State]
    ) -> tuple[dict[str, Any], RunState, State]:
        run, _, observers = kind(lane[0], shared)
        return observed_by(run, observers, *lane[1:], traced=True)

    return over_lanes(how, one)(shared, None, (lanes, state, observed))


def observed_by(
    run: Run, observers: tuple[AbstractObserver, ...], state: RunState, observed: State, traced: bool
) -> tuple[dict[str, Any], RunState, State]:
    context = _program.context(run, state, traced=traced)
    record: dict[str, Any] = {"feature_updates": state.feature_updates}
    record["training_loss"] = state.loss_sum / state.loss_count
    if run.safeguard is not None:
        record |= {"safeguard_scale": state.scale, "safeguard_evaluations": state.evaluations}
    record |= run.solver.measures(state.solver)
    record |= run.schedule.measures(state.schedule, state.feature_updates)
    states = []
    for observer, observer_state in zip(observers, observed, strict=True):
        values, observer_state = _two(observer, observer.compute(context, observer_state))
        if twice := sorted(record.keys() & values.keys()):
            raise ValueError(f"Two observers record {twice[0]!r}, so one would be lost; give one of them another name.")
        record.update(values)
        states.append(observer_state)
    return record, _program.forget_losses(state), tuple(states)


def _two(observer: AbstractObserver, result: Any) -> tuple[dict[str, Any], State]:
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], dict):
        for name, value in result[0].items():
            _check_number(observer, name, value)
        return result
    kind = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
    raise TypeError(
        f"`compute` of an observer must return a dictionary of what it records and its state, got {kind} from "
        f"{type(observer).__name__}; end it with `return record, state`."
    )


def _check_number(observer: AbstractObserver, name: Any, value: Any) -> None:
    number = isinstance(value, bool | int | float | np.generic | np.ndarray | jax.Array)
    if isinstance(name, str) and number and np.shape(value) == ():
        return
    kind = f"shape {np.shape(value)}" if number else type(value).__name__
    found = f"{kind} under {name!r}" if isinstance(name, str) else f"the name {name!r}"
    raise TypeError(
        f"An observer must record one number for each name, a text, got {found} from {type(observer).__name__}; give a "
        "mean, or each number its own name."
    )


def over_lanes(how: How, one: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """`one(shared, data, lane)` for every lane, spread over the devices there are."""
    if how == "single":
        return one

    def all_here(shared: Any, data: Any, lanes: Any) -> Any:
        if how == "vmap":
            return jax.vmap(one, in_axes=(None, None, 0))(shared, data, lanes)
        return jax.lax.map(partial(one, shared, data), lanes)

    if jax.device_count() == 1:
        return all_here
    mesh = Mesh(np.array(jax.devices()), ("lanes",))
    return jax.shard_map(all_here, mesh=mesh, in_specs=(P(), P(), P("lanes")), out_specs=P("lanes"), check_vma=False)


jitted_init = jax.jit(init, static_argnums=(0, 1))
jitted_segment = jax.jit(segment, static_argnums=(0, 1, 7))
jitted_observe = jax.jit(observe, static_argnums=(0, 1))
