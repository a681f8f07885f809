"""The state before the first step, and what is recorded of a run."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relin._core.types import State
from relin._loop import program as _program
from relin._loop.program import BatchAt, Data, RunState, Setup
from relin._observer import AbstractObserver


def start(setup: Setup, batch_at: BatchAt) -> tuple[RunState, State]:
    """The state before step 0 and the observers'."""
    state = _program.init(setup.run, batch_at(0))
    context = _program.context(setup.run, state)
    return state, tuple(observer.init(context) for observer in setup.observers)


def start_on(setup: Setup, data: Data) -> tuple[RunState, State]:
    """`start` with batches drawn from arrays."""
    return start(setup, _program.planned_batches(setup, data, 0, 1))


def record(
    setup: Setup, state: RunState, observed: State, traced: bool = True
) -> tuple[dict[str, Any], RunState, State]:
    """A record, the state with its running loss started anew, and the observers' new states."""
    run, context = setup.run, _program.context(setup.run, state, traced=traced)
    row: dict[str, Any] = {"feature_updates": state.feature_updates}
    row["training_loss"] = state.loss_sum / state.loss_count
    if run.safeguard is not None:
        row |= {"safeguard_scale": state.scale, "safeguard_evaluations": state.evaluations}
    row |= run.solver.measures(state.solver)
    row |= run.schedule.measures(state.schedule, state.feature_updates)
    states = []
    for observer, observer_state in zip(setup.observers, observed, strict=True):
        values, observer_state = _record_and_state(observer, observer.compute(context, observer_state))
        if twice := sorted(row.keys() & values.keys()):
            raise ValueError(f"Two observers record {twice[0]!r}, so one would be lost; give one of them another name.")
        row.update(values)
        states.append(observer_state)
    loss_sum, loss_count = jnp.zeros_like(state.loss_sum), jnp.zeros_like(state.loss_count)
    return row, replace(state, loss_sum=loss_sum, loss_count=loss_count), tuple(states)


def _record_and_state(observer: AbstractObserver, result: Any) -> tuple[dict[str, Any], State]:
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], dict):
        for name, value in result[0].items():
            _check_number(observer, name, value)
        return result
    found = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
    raise TypeError(
        f"`compute` of an observer must return a dictionary of what it records and its state, got {found} from "
        f"{type(observer).__name__}; end it with `return record, state`."
    )


def _check_number(observer: AbstractObserver, name: Any, value: Any) -> None:
    number = isinstance(value, bool | int | float | np.generic | np.ndarray | jax.Array)
    if isinstance(name, str) and number and np.shape(value) == ():
        return
    value_type = f"shape {np.shape(value)}" if number else type(value).__name__
    found = f"{value_type} under {name!r}" if isinstance(name, str) else f"the name {name!r}"
    raise TypeError(
        f"An observer must record one number for each name, a text, got {found} from {type(observer).__name__}; give a "
        "mean, or each number its own name."
    )
