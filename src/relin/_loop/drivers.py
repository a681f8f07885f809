"""Drivers: a loop compiled for the device, or the host, which calls one compiled step after another."""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from relin._core.types import State
from relin._loop import program as _program, recorded as _recorded
from relin._loop.compiled import Programs
from relin._loop.program import Batch, BatchAt, GivenBatch, RunState
from relin._loop.sources import AbstractSource, ArraySource, as_array, planned_steps

CHECK_EVERY = 32
"""Steps after which the host checks again whether a run diverged."""
_MOST_STEPS = 2**16
"""Of a call of `due`: a run may have more of them than memory holds."""


class DataExhaustedError(Exception):
    """The iterable of batches ended before the last step; carries the step it ended at and the state there."""

    def __init__(self, step: int, state: RunState):
        super().__init__(step)
        self.step, self.state = step, state


class AbstractDriver(abc.ABC):
    """Calls the programs of a run, or of many lanes."""

    reached: RunState | None = None
    """The state after the last step of a call of `run` that did not come back."""
    by_steps = True
    """Whether two calls of `run` cost, and give, what one over the same steps does."""
    tells = True
    """Whether `run` itself says how far it is."""

    @abc.abstractmethod
    def start(self) -> tuple[RunState, State]:
        """The state before step 0 and the observers'."""

    @abc.abstractmethod
    def run(self, state: RunState, start: int, stop: int) -> RunState:
        """The state at step `stop`."""

    @abc.abstractmethod
    def record(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        """See `_recorded.record`."""

    def position(self, step: int | float) -> Any:
        """See `AbstractSource.position`; none of runs without batches from Python."""
        del step

    def go_to(self, step: int | float, position: Any) -> None:
        """See `AbstractSource.go_to`."""
        del step, position


class DeviceDriver(AbstractDriver):
    """Everything between two records is one program on the device, for one run or for many lanes."""

    tells = False

    def __init__(self, programs: Programs, data: Batch, longest: int):
        self.call, self.data = programs.call, data
        self.count = planned_steps(programs.sampling, data, longest)

    def start(self) -> tuple[RunState, State]:
        return self.call(_recorded.start_on, (), self.data)

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        for first in range(start, stop, self.count):
            end = min(first + self.count, stop)
            state = self.reached = self.call(_program.steps, (state,), self.data, end, count=self.count)
        return state

    def record(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        return self.call(_recorded.record, (state, observed))


class AbstractHostDriver(AbstractDriver):
    """Lets the host decide what is called next, for one run."""

    def __init__(self, programs: Programs, on_step: Callable[[int], None]):
        self.call, self.setup, self.on_step = programs.call, programs.setup, on_step

    def record(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        return _recorded.record(self.setup, state, observed, traced=False)

    def due(self, steps: range) -> np.ndarray:
        """Which of these steps are due."""
        return np.asarray(self.call(_program.due, (), as_array(steps)))

    def relinearised(self, step: int, state: RunState, batch_at: BatchAt) -> RunState:
        """What happens before a due step, see `_program.relinearise`."""
        run = self.setup.run
        if not run.schedule.queried(step, state.schedule):
            return state
        if run.safeguard is None:
            return self.call(_program.relinearise, (state,), batch_at)
        wanted, state = self.call(_program.query, (state,), batch_at)
        if not wanted or state.diverged_at >= 0:  # a compiled run ends there, without its safeguard
            return state
        later = self.later(step, run.safeguard.num_batches - 1)
        decided = _program.step_scale(run, state, batch_at(step), *later, traced=False)
        return self.call(_program.rescaled, (state,), decided)

    @abc.abstractmethod
    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        """See `AbstractSource.later`."""

    def begun(self, state: RunState, batch_at: GivenBatch) -> RunState:
        """The state before a step that may be the first of a window, see `_program.begun`."""
        window = state.solver.window
        if window is None or int(window.step) or int(state.diverged_at) >= 0:
            return state
        length = self.call(_program.window_length, (state,))
        seen = _program.context(self.setup.run, state, batch_at.batch, traced=False)
        return replace(state, solver=self.setup.run.solver.begin(seen, state.solver, length))


class HostDriver(AbstractHostDriver):
    """The host calls one compiled step after another.

    For batches that come from Python, and for convolutions on CPU: XLA runs them many times slower inside a loop.
    """

    def __init__(self, programs: Programs, source: AbstractSource, on_step: Callable[[int], None] = lambda step: None):
        super().__init__(programs, on_step)
        self.source = source
        self.repeats = isinstance(source, ArraySource) and _program.repeats(self.setup)
        self.steps = self._ordinary if self.setup.run.ordinary else self._linearised

    def start(self) -> tuple[RunState, State]:
        return self.call(_recorded.start, (), GivenBatch(self.source(0)))

    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        return self.source.later(step, count)

    def position(self, step: int | float) -> Any:
        return self.source.position(int(step))

    def go_to(self, step: int | float, position: Any) -> None:
        self.source.go_to(int(step), position)

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        try:
            state = self.steps(state, start, stop)
        except DataExhaustedError:
            self.source.check_targets()
            raise
        self.source.check_targets()
        return state

    def _linearised(self, state: RunState, start: int, stop: int) -> RunState:
        at_anchor, known, due = None, range(0), np.zeros(0, bool)
        for step in range(start, stop):
            if self._failed(step, state):
                break
            batch_at = self._batch(step, state)
            if step not in known:
                known = range(step, min(step + _MOST_STEPS, stop))
                due = self.due(known)
            if due[step - known.start]:
                state, at_anchor = self.relinearised(step, state, batch_at), None
            if step == 0 or due[step - known.start]:
                state = self.begun(state, batch_at)
            if self.repeats:
                at_anchor = at_anchor or self.call(_program.linearised, (state,), batch_at)
                state = self.call(_program.advance_on, (state,), at_anchor, batch_at)
            else:
                state = self.call(_program.advance, (state,), batch_at)
            self.reached = state
            self.on_step(step + 1)
        return state

    def _ordinary(self, state: RunState, start: int, stop: int) -> RunState:
        light = _program.lightened(state)
        batch_at = self._batch(start, state)
        for step in range(start, stop - 1):
            if self._failed(step, light):
                break
            try:
                following = self.source(step + 1)  # a batch ahead: the last step is another program, see `_program`
            except StopIteration:
                state = self.reached = self.call(_program.ordinary_finish, (light,), batch_at)
                self.on_step(step + 1)
                raise DataExhaustedError(step + 1, state) from None
            light = self.reached = self.call(_program.ordinary_advance, (light,), batch_at)
            batch_at = GivenBatch(following)
            self.on_step(step + 1)
        state = self.reached = self.call(_program.ordinary_finish, (light,), batch_at)
        self.on_step(stop)
        return state

    def _failed(self, step: int, state: Any) -> bool:
        """Whether the run diverged; read now and then, since reading waits for the device."""
        if step % CHECK_EVERY:
            return False
        self.source.check_targets()
        return int(state.diverged_at) >= 0

    def _batch(self, step: int, state: RunState) -> GivenBatch:
        try:
            return GivenBatch(self.source(step))
        except StopIteration:
            raise DataExhaustedError(step, state) from None
