"""The driver of solvers that take all steps between two re-linearisations at once."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from relin._core.batches import FullBatch
from relin._core.types import State
from relin._loop import compiled as _compiled, stepwise as _stepwise
from relin._loop.compiled import Kind, Lane, Shared
from relin._loop.drivers import AbstractDriver, ArraySource, begun_from_host, observed_from_host
from relin._loop.program import Batch, RunState
from relin._solver import AbstractStretchSolver

_STEPS_AT_ONCE = 2**12
"""How many steps the schedule is asked about at once, whether they are due."""


class StretchDriver(AbstractDriver):
    """From one due step, or record, to the next in one call of the solver."""

    by_steps = False

    def __init__(
        self, kind: Kind, lane: Lane, shared: Shared, data: Batch, num_steps: int, on_step: Callable[[int], None]
    ):
        self.arguments, self.data, self.on_step = (kind, lane, shared), data, on_step
        self.run_, sampling, _ = kind(lane, shared)
        self.full = isinstance(sampling.batches, FullBatch)
        self.source = None if self.full else ArraySource(self.arguments, data, num_steps)

    def init(self) -> tuple[RunState, State]:
        return _compiled.jitted_init(self.arguments[0], "single", *self.arguments[1:], self.data)

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        for first, last in itertools.pairwise(self._borders(start, stop)):
            if int(state.diverged_at) >= 0:
                break
            state = self.reached = self._stretch(self._begun(first, state), first, last)
            self.on_step(last)
        return state

    def observe(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        return observed_from_host(self.arguments, state, observed)

    def _borders(self, start: int, stop: int) -> Iterator[int]:
        """`start`, the due steps between them, and `stop`."""
        yield start
        if not math.isinf(stop):
            for first in range(start + 1, stop, _STEPS_AT_ONCE):
                due = np.asarray(_stepwise.due(*self.arguments, first, _STEPS_AT_ONCE))
                yield from (first + int(i) for i in np.flatnonzero(due) if first + i < stop)
        yield stop

    def _begun(self, step: int, state: RunState) -> RunState:
        if not _stepwise.due(*self.arguments, step, 1)[0]:
            return state
        batch = self.data if self.source is None else self.source(step)
        return begun_from_host(self.arguments, self.run_, step, state, batch)

    def _stretch(self, state: RunState, start: int, stop: int) -> RunState:
        solver = cast(AbstractStretchSolver, self.run_.solver)
        indices = None if self.source is None else self.source.indices(start, stop)
        done = solver.stretch(self.run_.problem, state.solver, self.data, indices, start, stop - start)
        losses, steps = np.asarray(done.losses), np.asarray(done.steps)
        failed = np.flatnonzero(~np.isfinite(losses))
        seen = losses[: failed[0]] if failed.size else losses
        return replace(
            state,
            step=state.step if math.isinf(stop) else jnp.asarray(stop, state.step.dtype),
            solver=done.state,
            diverged_at=jnp.asarray(start + steps[failed[0]], jnp.int32) if failed.size else state.diverged_at,
            loss_sum=state.loss_sum + jnp.asarray(seen.sum(), state.loss_sum.dtype),
            loss_count=state.loss_count + len(seen),
        )
