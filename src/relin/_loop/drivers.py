"""Who turns the crank: a loop compiled for the device, or the host, one step at a time."""

import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from relin._core import check as _check
from relin._core.loss import TargetCheck
from relin._core.types import State
from relin._loop import compiled as _compiled, program as _program, stepwise as _stepwise, validate as _validate
from relin._loop.compiled import How, Kind, Lane, Shared
from relin._loop.program import Batch, Data, Run, RunState, WrongTarget

PLANNED_STEPS = 2**14
PLANNED_EXAMPLES = 2**23
"""How many steps, and how many examples, are planned at once: a bound on the memory of the plan."""

CHECK_EVERY = 32
_MOST_ASKED = 2**16
"""Steps of which it is asked at once whether they are due: there may be more than memory holds."""
"""Steps between two looks from the host at whether a run diverged."""


def planned_steps(kind: Kind, shared: Shared, data: Data, longest: int) -> int:
    """How many steps' batches to plan at once, at most `longest`."""
    batches = kind.shared(shared)[0].batches
    per_step = batches.planned_per_step(jax.tree.leaves(data)[0].shape[0])
    return min(longest, PLANNED_STEPS, max(1, PLANNED_EXAMPLES // max(1, per_step)))


class DataExhaustedError(Exception):
    """The iterable of batches ended before the last step; carries the step it ended at and the state there."""

    def __init__(self, step: int, state: RunState):
        super().__init__(step)
        self.step, self.state = step, state


class AbstractDriver(abc.ABC):
    """Runs the programs of one kind of run."""

    reached: RunState | None = None
    """The state after the last step of a call of `run` that did not come back."""
    by_steps = True
    """Whether two calls of `run` cost, and give, what one over the same steps does."""

    @abc.abstractmethod
    def init(self) -> tuple[RunState, State]: ...

    @abc.abstractmethod
    def run(self, state: RunState, start: int, stop: int) -> RunState:
        """The state at step `stop`."""

    @abc.abstractmethod
    def observe(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]: ...


class CompiledDriver(AbstractDriver):
    """Everything between two records is one program on the device, for one run or for many lanes."""

    def __init__(self, kind: Kind, how: How, lanes: Lane, shared: Shared, data: Data, longest: int):
        self.arguments = (kind, how, lanes, shared)
        self.data, self.count = data, planned_steps(kind, shared, data, longest)

    def init(self) -> tuple[RunState, State]:
        return _compiled.jitted_init(*self.arguments, self.data)

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        for piece in range(start, stop, self.count):
            end = min(piece + self.count, stop)
            state = self.reached = _compiled.jitted_segment(*self.arguments, self.data, state, end, self.count)
        return state

    def observe(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        return _compiled.jitted_observe(*self.arguments, state, observed)


class AbstractSource(abc.ABC):
    """Where batches come from."""

    @abc.abstractmethod
    def __call__(self, step: int) -> Batch:
        """The batch of a step, asked for in order; the same step may be asked for twice. `StopIteration` at the end."""

    @abc.abstractmethod
    def look(self) -> None:
        """Raises `ValueError` if a batch so far had wrong targets; waits for the device."""


class ArraySource(AbstractSource):
    """Batches drawn on the device from arrays, one step at a time."""

    def __init__(self, arguments: tuple[Kind, Lane, Shared], data: Batch, num_steps: int):
        self.arguments, self.data = arguments, data
        self.count = planned_steps(arguments[0], arguments[2], data, min(num_steps, PLANNED_STEPS // 16))
        self.planned: tuple[range, State] = (range(0), None)

    def __call__(self, step: int) -> Batch:
        steps, planned = self.planned
        if step not in steps:
            steps = range(step, step + self.count)
            planned = _stepwise.plan(*self.arguments, self.data, step, self.count)
            self.planned = steps, planned
        return _stepwise.read(*self.arguments, self.data, planned, step)

    def look(self) -> None:
        pass  # checked before training

    def indices(self, start: int, stop: int) -> np.ndarray:
        """The examples of the steps `start`, …, `stop − 1`, shape `(steps, batch)`."""
        pieces = []
        while start < stop:
            self(start)  # plans as far as needed
            planned = self.planned[0]
            found = _stepwise.indices(*self.arguments, self.planned[1], planned.start, self.count)
            end = min(stop, planned.stop)
            pieces.append(np.asarray(found)[start - planned.start : end - planned.start])
            start = end
        return np.concatenate(pieces)


class IterableSource(AbstractSource):
    """Batches from a Python iterable, begun again when it ends if it can be.

    `check` raises for a batch that cannot be trained on, and says what the loss expects of targets. It is asked of the
    first batch of each form; the targets of the others are looked at on the device, and the host reads what was found
    when it looks at the loss.
    """

    def __init__(
        self,
        arguments: tuple[Kind, Lane, Shared],
        batches: Iterable[Batch],
        check: Callable[[Batch], TargetCheck | None],
    ):
        self.arguments, self.batches, self.check = arguments, batches, check
        self.iterator: Iterator[Batch] = iter(batches)
        self.upcoming: tuple[int, Batch] | None = None
        self.forms: dict[Any, TargetCheck | None] = {}
        self.types: Any = None
        self.wrong: WrongTarget | None = None
        self.unfinite: Any = None
        """See `_program.not_finite`."""

    def __call__(self, step: int) -> Batch:
        if self.upcoming is None or self.upcoming[0] != step:
            batch = self._next()
            with _validate.naming(f"the batch of step {step}"):
                batch = self._checked(batch)
            seen = self.wrong, self.unfinite
            batch, self.wrong, self.unfinite = _stepwise.prepared(*self.arguments, batch, step, *seen)
            self.upcoming = step, batch
        return self.upcoming[1]

    def look(self) -> None:
        if self.wrong is None or (step := int(self.wrong.step)) < 0:
            return
        expected = next(filter(None, self.forms.values()))
        with _validate.naming(f"the batch of step {step}"):
            raise ValueError(_validate.wrong_target(expected, np.asarray(self.wrong.value), int(self.wrong.example)))

    def _checked(self, batch: Batch) -> Batch:
        """The batch as arrays; raises unless it is of the first one's types and can be trained on."""
        batch = jax.tree.map(jax.numpy.asarray, batch, is_leaf=_is_one_array)
        leaves, structure = jax.tree.flatten(batch)
        types = structure, tuple((leaf.dtype, leaf.ndim) for leaf in leaves)
        form = types, tuple(leaf.shape for leaf in leaves)
        if form not in self.forms:
            if self.types not in (None, types):
                first, now = (", ".join(f"{dtype} of {ndim} axes" for dtype, ndim in t[1]) for t in (self.types, types))
                raise TypeError(f"All batches must be of the first one's types, {first}, got {now}; convert them.")
            _validate.arrays(batch)
            self.types, self.forms[form] = types, self.check(batch)
        return batch

    def first(self) -> Batch:
        """The batch of step 0."""
        try:
            return self(0)
        except StopIteration:
            raise ValueError(
                "`data` must give at least one batch (x, y), got an iterable without any; pass a fresh iterable."
            ) from None

    def _next(self) -> Batch:
        try:
            batch = next(self.iterator)
        except StopIteration:
            if self.iterator is self.batches:
                raise
            self.iterator = iter(self.batches)
            batch = next(self.iterator)
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"Each batch of an iterable must be a pair (x, y), got {type(batch).__name__}; "
                "pass a tuple (x, y) of arrays for data held in memory."
            )
        _check.numeric(batch)
        return batch[0], batch[1]


class HostDriver(AbstractDriver):
    """The host calls one compiled step after another.

    For batches that come from Python, and for convolutions on CPU: XLA runs them many times slower inside a loop.
    """

    def __init__(
        self,
        kind: Kind,
        lane: Lane,
        shared: Shared,
        source: AbstractSource,
        on_step: Callable[[int], None] | None = None,
    ):
        self.arguments, self.source = (kind, lane, shared), source
        self.on_step = on_step or (lambda step: None)

    def init(self) -> tuple[RunState, State]:
        return _stepwise.init(*self.arguments, self.source(0))

    def run(self, state: RunState, start: int, stop: int) -> RunState:
        try:
            state = self._run(state, start, stop)
        except DataExhaustedError:
            self.source.look()
            raise
        self.source.look()
        return state

    def _run(self, state: RunState, start: int, stop: int) -> RunState:
        run, sampling, _ = self.arguments[0](*self.arguments[1:])
        if run.ordinary:
            return self._ordinary(state, start, stop)
        repeats = isinstance(self.source, ArraySource) and _program.repeats(run, sampling)
        return self._linearised(run, state, start, stop, repeats)

    def _linearised(self, run: Run, state: RunState, start: int, stop: int, repeats: bool) -> RunState:
        at_anchor, due, asked = None, np.zeros(0, bool), start
        for step in range(start, stop):
            if self._failed(step, state):
                break
            batch = self._batch(step, state)
            if step == asked + len(due):
                asked = step
                due = np.asarray(_stepwise.due(*self.arguments, step, min(_MOST_ASKED, stop - step)))
            if due[step - asked]:
                state, at_anchor = begun_from_host(self.arguments, run, step, state, batch), None
            if repeats:
                at_anchor = at_anchor or _stepwise.linearised(*self.arguments, state, batch)
                state = _stepwise.advance_on(*self.arguments, state, at_anchor, batch)
            else:
                state = _stepwise.advance(*self.arguments, state, batch)
            self.reached = state
            self.on_step(step + 1)
        return state

    def _ordinary(self, state: RunState, start: int, stop: int) -> RunState:
        light = replace(state, solver=(state.solver.exact, state.solver.optimiser))
        batch = self._batch(start, state)
        for step in range(start, stop - 1):
            if self._failed(step, light):
                break
            try:
                following = self.source(step + 1)  # a batch ahead: the last step is another program, see `_program`
            except StopIteration:
                state = self.reached = _stepwise.ordinary_finish(*self.arguments, light, batch)
                self.on_step(step + 1)
                raise DataExhaustedError(step + 1, state) from None
            light = _stepwise.ordinary_advance(*self.arguments, light, batch)
            batch, self.reached = following, light
            self.on_step(step + 1)
        state = self.reached = _stepwise.ordinary_finish(*self.arguments, light, batch)
        self.on_step(stop)
        return state

    def _failed(self, step: int, state: Any) -> bool:
        """Whether the run diverged; looked at now and then, since looking waits for the device."""
        if step % CHECK_EVERY:
            return False
        self.source.look()
        return int(state.diverged_at) >= 0

    def _batch(self, step: int, state: RunState) -> Batch:
        try:
            return self.source(step)
        except StopIteration:
            raise DataExhaustedError(step, state) from None

    def observe(self, state: RunState, observed: State) -> tuple[dict[str, Any], RunState, State]:
        return observed_from_host(self.arguments, state, observed)


def _is_one_array(part: Any) -> bool:
    """Whether a part of a batch is a list of numbers, or of such lists; one of arrays is a PyTree of them."""
    return isinstance(part, list) and not all(getattr(item, "shape", ()) for item in part)


def begun_from_host(
    arguments: tuple[Kind, Lane, Shared], run: Run, step: int, state: RunState, batch: Batch
) -> RunState:
    """What happens before a due step, see `_program.begin`."""
    if not run.schedule.looks(step, state.schedule):
        return state
    if run.safeguard is None:
        return _stepwise.begin(*arguments, state, batch)
    wanted, state = _stepwise.ask(*arguments, state, batch)
    if not wanted or state.diverged_at >= 0:  # what a compiled run, which ends there, would not have judged
        return state
    return _stepwise.moved(*arguments, state, _program.judge(run, state, batch, traced=False))


def observed_from_host(
    arguments: tuple[Kind, Lane, Shared], state: RunState, observed: State
) -> tuple[dict[str, Any], RunState, State]:
    run, _, observers = arguments[0](*arguments[1:])
    return _compiled.observed_by(run, observers, state, observed, traced=False)
