"""The programs of `_program`, one compiled step at a time, for the loop of `_drive.HostDriver`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from relin._core.linearise import LinearisedOutputs
from relin._core.types import Flag, State, Step
from relin._loop import program as _program
from relin._loop.compiled import Kind, Lane, Shared, started
from relin._loop.program import Batch, Data, RunState, WrongTarget
from relin._safeguard import Verdict


@partial(jax.jit, static_argnums=(0, 4))
def due(kind: Kind, lane: Lane, shared: Shared, start: Step, count: int) -> Bool[Array, " count"]:
    """Which of the steps `start`, …, `start + count − 1` are due."""
    run, _, _ = kind(lane, shared)
    return jax.vmap(lambda step: jnp.asarray(_program.is_due(run, step)))(start + jnp.arange(count))


@partial(jax.jit, static_argnums=(0, 5))
def plan(kind: Kind, lane: Lane, shared: Shared, data: Data, start: Step, count: int) -> State:
    run, sampling, _ = kind(lane, shared)
    return _program.plan(run, sampling, data, start, count)


@partial(jax.jit, static_argnums=0)
def read(kind: Kind, lane: Lane, shared: Shared, data: Data, planned: State, step: Step) -> Batch:
    run, sampling, _ = kind(lane, shared)
    return _program.reader_of_plan(run, sampling, data, planned)(step)


@partial(jax.jit, static_argnums=(0, 5))
def indices(
    kind: Kind, lane: Lane, shared: Shared, planned: State, start: Step, count: int
) -> Int[Array, "count batch"] | None:
    """The examples of the steps `start`, …, `start + count − 1`."""
    _, sampling, _ = kind(lane, shared)
    return jax.vmap(lambda step: sampling.batches.indices(planned, step))(start + jnp.arange(count))


@partial(jax.jit, static_argnums=0)
def prepared(
    kind: Kind,
    lane: Lane,
    shared: Shared,
    batch: Batch,
    step: Step,
    wrong: WrongTarget | None,
    unfinite: Int[Array, "3"] | None,
) -> tuple[Batch, WrongTarget | None, Int[Array, "3"]]:
    """A batch that comes from Python, augmented, what is wrong with the targets so far, and what is not finite."""
    run, sampling, _ = kind(lane, shared)
    batch = _program.augmented(run, sampling, batch, step)
    return batch, _program.watched(run, batch, step, wrong), _program.not_finite(batch, step, unfinite)


@partial(jax.jit, static_argnums=0)
def init(kind: Kind, lane: Lane, shared: Shared, batch: Batch) -> tuple[RunState, State]:
    run, _, observers = kind(lane, shared)
    return started(run, observers, batch)


@partial(jax.jit, static_argnums=0)
def begin(kind: Kind, lane: Lane, shared: Shared, state: RunState, batch: Batch) -> RunState:
    return _program.begin(kind(lane, shared)[0], state, batch)


@partial(jax.jit, static_argnums=0)
def ask(kind: Kind, lane: Lane, shared: Shared, state: RunState, batch: Batch) -> tuple[Flag, RunState]:
    return _program.ask(kind(lane, shared)[0], state, batch)


@partial(jax.jit, static_argnums=0)
def moved(kind: Kind, lane: Lane, shared: Shared, state: RunState, judged: tuple[Verdict, State]) -> RunState:
    return _program.moved(kind(lane, shared)[0], state, judged)


@partial(jax.jit, static_argnums=0)
def advance(kind: Kind, lane: Lane, shared: Shared, state: RunState, batch: Batch) -> RunState:
    return _program.advance(kind(lane, shared)[0], state, batch)


@partial(jax.jit, static_argnums=0)
def linearised(kind: Kind, lane: Lane, shared: Shared, state: RunState, batch: Batch) -> LinearisedOutputs:
    return _program.linearised(kind(lane, shared)[0], state, batch)


@partial(jax.jit, static_argnums=0)
def advance_on(
    kind: Kind, lane: Lane, shared: Shared, state: RunState, at_anchor: LinearisedOutputs, batch: Batch
) -> RunState:
    return _program.advance_on(kind(lane, shared)[0], state, at_anchor, batch)


@partial(jax.jit, static_argnums=0)
def ordinary_advance(kind: Kind, lane: Lane, shared: Shared, light: Any, batch: Batch) -> Any:
    return _program.ordinary_advance(kind(lane, shared)[0], light, batch)


@partial(jax.jit, static_argnums=0)
def ordinary_finish(kind: Kind, lane: Lane, shared: Shared, light: Any, batch: Batch) -> RunState:
    return _program.ordinary_finish(kind(lane, shared)[0], light, batch)
