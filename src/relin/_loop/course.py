"""A run followed from its first step, or from where it was stopped, to its end."""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from relin._core.errors import Result
from relin._core.types import State
from relin._logger import Log
from relin._loop.checkpoint import Keeper, on_the_way
from relin._loop.drivers import AbstractDriver, DataExhaustedError
from relin._loop.ending import mean_loss_between
from relin._loop.preparation import Plan
from relin._loop.program import RunState, whole
from relin._loop.reached import Losses, Reached, Rows

Stop = Callable[[Mapping[str, Any]], bool]
_End = TypeVar("_End")


class Course(Generic[_End]):
    """Of one run, or of many lanes that run together.

    `conclude` makes the end of where it is, the result and the final loss; where an error ends the run, that is the
    error's `solution`, and `before` if it never began.
    """

    def __init__(
        self,
        driver: AbstractDriver,
        plan: Plan,
        report: Callable[[int], None],
        log: Log,
        conclude: Callable[..., _End],
        before: _End | None = None,
        keeper: Keeper | None = None,
        resume: Reached | None = None,
        stop: Stop | None = None,
    ):
        self.driver, self.plan, self.report, self.log = driver, plan, report, log
        self.conclude, self.before, self.keeper, self.resume, self.stop = conclude, before, keeper, resume, stop
        self.step: int | float = 0
        self.state: RunState | None = None
        self.observed: State = ()
        self.rows: Rows = []
        self.earlier: Losses | None = None
        self.final: Any = None
        self.kept: Reached | None = None
        """After the last piece, for `newest`."""
        self.took: float | None = None
        """Seconds a step."""

    def follow(self) -> _End:
        """The end: after the last step, or where all lanes diverged, the data ended or `stop` said so."""
        with on_the_way(self.keeper, self.newest):
            try:
                result = self._begin()
                while result is None and not self._over():
                    piece, begun = self._piece(), time.monotonic()
                    try:
                        state = self.driver.run(self.state, self.step, piece)  # pyright: ignore[reportArgumentType]
                    except DataExhaustedError as end:
                        result = self._exhausted(end)
                    else:
                        result = self._arrived(piece, state, begun)
            except BaseException as error:
                self._carry(error)
                raise
        return self.conclude(self.reached(), result or Result.successful)

    def reached(self) -> Reached:
        assert self.state is not None
        state = whole(self.state)
        position = self.driver.position(self.step) if self.keeper else None
        return Reached(self.step, state, self.observed, self.rows, self.earlier, self.final, position)

    def newest(self) -> Reached | None:
        """The last state that was computed, for another thread; none before step 0."""
        kept, state = self.kept, self.driver.reached
        if kept is None or state is None or kept is not self.kept or not state.step.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            return kept
        return replace(kept, step=int(np.max(state.step)), state=whole(state))

    def _begin(self) -> Result | None:
        """At step 0, or where the run was stopped; what it ended with, if it had ended."""
        self.driver.tracked = self.keeper is not None
        self.state, self.observed = self.driver.start()
        if self.keeper:
            self.keeper.check_position(self.driver.position(1))
        found = self.resume or (self.keeper and self.keeper.newest(self.state, self.observed))
        if found:
            _check_alike(found, self.state, self.observed)
            self.step, self.state, self.observed, self.rows = found.step, found.state, found.observed, found.rows
            if found.step <= self._late() or found.step == self.plan.num_steps:
                self.earlier, self.final = found.earlier, found.final
            self.driver.go_to(self.step, found.position)
        if not self.rows or (self._at_record() and self.rows[-1]["step"] < self.step):
            self._record()
        if found:
            self.report(self.step)  # pyright: ignore[reportArgumentType]
        self.kept = self.reached() if self.keeper else None
        return Result.stopped if self._said_stop(self.rows) else None

    def _piece(self) -> Any:
        """To which step the driver goes at once: the next record, or before it, so that the state can be kept."""
        interval, late = self.plan.interval, self._late()
        ends = [min(interval * (self.step // interval + 1), self.plan.num_steps)]
        if self.step < late:
            ends.append(late)
        if self.keeper and self.driver.by_steps:
            ends.append(self.keeper.next_step(int(self.step), self.took))
        return min(ends)

    def _arrived(self, step: int | float, state: RunState, begun: float) -> Result | None:
        """After a piece that began at this time: records and keeps what is due."""
        done, self.step, self.state = step - self.step, step, state
        self.driver.reached = None
        if step == self._late():
            self.earlier = state.loss_sum, state.loss_count
        if self.keeper and self.driver.by_steps:
            jax.block_until_ready(state.step)
            self.took = (time.monotonic() - begun) / done
        result = None
        if self._at_record():
            if self.earlier is not None:
                self.final = mean_loss_between(self.earlier, (state.loss_sum, state.loss_count))
            self._record()
            self.report(step)  # pyright: ignore[reportArgumentType]
            result = Result.stopped if self._said_stop(self.rows[-1:]) else None
        self._keep(ended=result is not None or self._over())
        return result

    def _keep(self, ended: bool) -> None:
        if self.keeper is None:
            return
        self.kept = self.reached()
        if self.keeper.checkpoint.at_end if ended else self.keeper.due(int(self.step)):
            try:
                self.keeper.write(self.kept)
            except OSError as error:
                warnings.warn(
                    f"The state at step {self.step} could not be written to {self.keeper.folder} ({error.strerror}); "
                    "training goes on, and the checkpoint before it stays.",
                    stacklevel=4,
                )

    def _exhausted(self, end: DataExhaustedError) -> Result:
        self.step, self.state = end.step, end.state
        if self.rows[-1]["step"] < end.step:
            self._record()
        return Result.data_exhausted

    def _late(self) -> int:
        """The step with which the last tenth of a run without records on the way begins; 0 of others, or one step."""
        steps = self.plan.num_steps
        if not (self.driver.by_steps and self._whole_run()):
            return 0
        return steps - -(-steps // 10)

    def _whole_run(self) -> bool:
        return self.plan.interval == self.plan.num_steps and len(self.rows) <= 2

    def _at_record(self) -> bool:
        return self.step % self.plan.interval == 0 or self.step == self.plan.num_steps

    def _record(self) -> None:
        assert self.state is not None
        row, state, observed = self.driver.record(self.state, self.observed)
        rows = [*self.rows, {"step": self.step, **row}]
        self.state, self.observed, self.rows = state, observed, rows  # at once: a signal may end the run anywhere
        self.log(self.step, row, self.state.diverged_at)  # pyright: ignore[reportArgumentType]

    def _over(self) -> bool:
        """Whether the last step was taken, or all lanes had diverged at the last record."""
        assert self.state is not None
        diverged = self.rows[-1]["step"] == self.step and np.all(np.asarray(self.state.diverged_at) >= 0)
        return bool(self.step >= self.plan.num_steps or diverged)

    def _said_stop(self, rows: Rows) -> bool:
        """Whether `stop` says so of the last of these records; it is shown each of them once."""
        if self.stop is None:
            return False
        said = [self.stop({name: np.asarray(value)[()] for name, value in row.items()}) for row in rows]
        return bool(said and said[-1])

    def _carry(self, error: BaseException) -> None:
        """Makes the solution so far an attribute of the error, of the last state that was computed, and keeps it."""
        solution, states = self.before, (self.driver.reached, self.state)
        for state in filter(None, states):
            with contextlib.suppress(Exception):  # where the device failed, reading what it was to compute fails again
                self.state = state = jax.block_until_ready(whole(state))
                self.step = int(np.max(state.step))
                solution = self.conclude(reached := self.reached(), Result.interrupted)
                error.add_note(f"The solution after {self.step} steps is this error's `solution`.")
                if self.keeper and self.kept is not None:  # what was refused leaves the folder as it was
                    self.keeper.write(reached)
                break
        with contextlib.suppress(AttributeError):  # some errors take none
            error.solution = solution  # pyright: ignore[reportAttributeAccessIssue]


def _check_alike(found: Reached, state: RunState, observed: State) -> None:
    """Raises `ValueError` unless a state has the form of the run's own."""
    own, other = (
        (jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)])
        for tree in ((state, observed), (found.state, found.observed))
    )
    if own != other:
        raise ValueError(
            "The run to go on with has a state of another form, shape or number format: its network, solver, schedule, "
            "safeguard or observers were others, or jax_enable_x64 was; pass those that it had."
        )
