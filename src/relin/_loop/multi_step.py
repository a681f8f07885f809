"""The driver of solvers that take all steps between two re-linearisations at once."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import jax.numpy as jnp
import numpy as np

from relin._core.batches import FullBatch
from relin._core.types import State
from relin._loop import recorded as _recorded
from relin._loop.compiled import Programs
from relin._loop.drivers import AbstractHostDriver
from relin._loop.program import Batch, GivenBatch, RunState
from relin._loop.sources import ArraySource
from relin._solver import AbstractMultiStepSolver

_STEPS_AT_ONCE = 2**12
"""Of a call of `due`."""


class MultiStepDriver(AbstractHostDriver):
    """From one due step, or record, to the next in one call of the solver."""

    by_steps = False

    def __init__(self, programs: Programs, data: Batch, num_steps: int, on_step: Callable[[int], None]):
        super().__init__(programs, on_step)
        self.data = data
        full = isinstance(programs.sampling.batches, FullBatch)
        self.source = None if full else ArraySource(programs, data, num_steps)

    def start(self) -> tuple[RunState, State]:
        return self.call(_recorded.start_on, (), self.data)

    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        return () if self.source is None else self.source.later(step, count)

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        for first, last in itertools.pairwise(self._borders(start, stop)):
            if int(state.diverged_at) >= 0:
                break
            due = self.due(range(first, first + 1))[0]
            if due or (first == 0 and state.solver.window is not None):
                batch_at = GivenBatch(self.data if self.source is None else self.source(first))
                state = self.relinearised(first, state, batch_at) if due else state
                state = self.begun(state, batch_at)
            state = self.reached = self._advanced(state, first, last)
            self.on_step(last)
        return state

    def _borders(self, start: int, stop: int) -> Iterator[int]:
        """`start`, the due steps between them, and `stop`."""
        yield start
        if not math.isinf(stop):
            for first in range(start + 1, stop, _STEPS_AT_ONCE):
                due = self.due(range(first, first + _STEPS_AT_ONCE))
                yield from (first + int(i) for i in np.flatnonzero(due) if first + i < stop)
        yield stop

    def _advanced(self, state: RunState, start: int, stop: int) -> RunState:
        solver, problem = cast(AbstractMultiStepSolver, self.setup.run.solver), self.setup.run.problem
        indices = None if self.source is None else self.source.indices(start, stop)
        done = solver.multi_step(problem, state.solver, self.data, indices, start, stop - start)
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
