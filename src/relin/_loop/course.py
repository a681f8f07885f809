"""A run followed from its first step, or from where it was stopped, to its end."""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from relin._common.words import listed
from relin._core.errors import Result
from relin._core.types import State
from relin._logger import Log
from relin._loop.checkpoint import Keeper, ignoring_sigterm, on_the_way
from relin._loop.drivers import AbstractDriver, DataExhaustedError
from relin._loop.ending import mean_loss_between
from relin._loop.preparation import Plan
from relin._loop.program import RunState, whole
from relin._loop.reached import Earlier, Reached, Rows
from relin._loop.watching import Report

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
        report: Report,
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
        self.earlier: Earlier | None = None
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
                with ignoring_sigterm():
                    self._carry(error)
                raise
        return self.conclude(self.reached(), result or Result.successful)

    def reached(self, position: Any = None) -> Reached:
        assert self.state is not None
        where = self.step, whole(self.state), self.observed, self.rows, self.plan.num_steps
        return Reached(*where, self.earlier, self.final, position)

    def newest(self) -> Reached | None:
        """The last state that was computed, for another thread; none before step 0."""
        kept, state = self.kept, self.driver.reached
        if kept is None or state is None or kept is not self.kept or kept.position is not None:
            return kept
        return self._on_the_way(kept, state) if state.step.is_ready() else kept  # pyright: ignore[reportAttributeAccessIssue]

    def _on_the_way(self, kept: Reached, state: RunState) -> Reached:
        """A later state than one that was kept, within a piece."""
        step = int(np.max(state.step))
        earlier = Earlier(step, (state.loss_sum, state.loss_count)) if step == self._late() else kept.earlier
        return replace(kept, step=step, state=whole(state), earlier=earlier)

    def _begin(self) -> Result | None:
        """At step 0, or where the run was stopped; what it ended with, if it had ended."""
        self.state, self.observed = self.driver.start()
        if self.keeper:
            self.keeper.check((self.state, self.observed), self.driver.position(1))
            with contextlib.suppress(OSError):  # what cannot be written is told at the first checkpoint
                self.keeper.sole.take()
        found = self.resume or (self.keeper and self.keeper.newest(self.state, self.observed))
        if found:
            _check_alike(found, self.state, self.observed)
            self._check_steps(found)
            self.step, self.rows = found.step, found.rows
            self.state, self.observed = self._in_place((found.state, found.observed), (self.state, self.observed))
            if found.earlier is not None and found.earlier.step == self._late():
                self.earlier = found.earlier
            if found.step == self.plan.num_steps:
                self.final = found.final
            self.driver.go_to(self.step, found.position)
        if self.keeper:
            for row in self.rows:  # those that a logger has taken are not shown to it again
                values = {name: value for name, value in row.items() if name != "step"}
                self.log(row["step"], values, self.state.diverged_at)
            self.kept = self.reached(self.driver.position(self.step))
        if not self.rows or (self._at_record() and self.rows[-1]["step"] < self.step):
            self._arrive_at_record()
        if found:
            self.report(self.step)  # pyright: ignore[reportArgumentType]
        return Result.stopped if self._said_stop(self.rows) else None

    def _in_place(self, found: tuple[RunState, State], own: tuple[RunState, State]) -> tuple[RunState, State]:
        """A state that was found, of the own one's weak types, and in its place if either is on several devices."""
        several = any(len(leaf.devices()) > 1 for leaf in jax.tree.leaves(found) if isinstance(leaf, jax.Array))
        moves = several or self.plan.placement is not None

        def each(new: Any, leaf: Any) -> Any:
            new = jax.device_put(new, leaf.sharding) if moves else new
            lost = getattr(leaf, "weak_type", False) and not getattr(new, "weak_type", False)  # a file does not hold it
            return leaf.at[...].set(new) if lost else new

        return jax.tree.map(each, found, own)

    def _piece(self) -> Any:
        """To which step the driver goes at once: the next record, or before it, so that the state can be kept."""
        interval, late = self.plan.interval, self._late()
        ends = [min(interval * (self.step // interval + 1), self.plan.num_steps)]
        if self.step < late:
            ends.append(late)
        if self.keeper and self.driver.by_steps:
            ends.append(self.keeper.next_step(int(self.step), self.took))
        if self._moves_a_bar():
            ends.append(self.report.next_step(int(self.step), self.took))
        return min(ends)

    def _moves_a_bar(self) -> bool:
        """Whether pieces are to be short enough for a bar: where the driver itself does not tell of its steps."""
        return self.report.by_bar and self.driver.by_steps and not self.driver.tells

    def _arrived(self, step: int | float, state: RunState, begun: float) -> Result | None:
        """After a piece that began at this time: records and keeps what is due."""
        done, self.step, self.state = step - self.step, step, state
        self.driver.reached = None
        if step == self._late():
            self.earlier = Earlier(int(step), (state.loss_sum, state.loss_count))
        timed = self.keeper and self.driver.by_steps and self.keeper.checkpoint.every is None
        if timed or self._moves_a_bar():
            jax.block_until_ready(state.step)
            self.took = (time.monotonic() - begun) / done
        if self.keeper:
            self.kept = self.reached(self.driver.position(step))
        result = None
        if self._at_record():
            self._arrive_at_record()
            self.report(step)  # pyright: ignore[reportArgumentType]
            result = Result.stopped if self._said_stop(self.rows[-1:]) else None
        elif self._moves_a_bar():
            self.report(step)  # pyright: ignore[reportArgumentType]
        self._keep(ended=result is not None or self._over())
        return result

    def _arrive_at_record(self) -> None:
        """Records; the state is then kept from after it, unless it is recorded because the run ends, which a run of
        more steps does not."""
        assert self.state is not None
        if self.earlier is not None and self.step == self.plan.num_steps:
            self.final = mean_loss_between(self.earlier.losses, (self.state.loss_sum, self.state.loss_count))
        self._record()
        if self.keeper and self.kept is not None and not self.keeper.is_only_the_end(self.step):
            self.kept = self.reached(self.kept.position)

    def _keep(self, ended: bool) -> None:
        if self.keeper is None or self.kept is None:
            return
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
            if self.keeper:  # before the record, which a run of more batches does not make
                with contextlib.suppress(LookupError):
                    self.kept = self.reached(self.driver.position(end.step))
            self._record()
        self._keep(ended=True)
        return Result.data_exhausted

    def _late(self) -> int:
        """The step with which the last tenth of a run without records on the way begins; 0 of others, or one step."""
        steps = self.plan.num_steps
        if not (self.driver.by_steps and self._whole_run()):
            return 0
        return steps - -(-steps // 10)

    def _whole_run(self) -> bool:
        return self.plan.interval == self.plan.num_steps

    def _at_record(self) -> bool:
        return self.step % self.plan.interval == 0 or self.step == self.plan.num_steps

    def _record(self) -> None:
        assert self.state is not None
        row, state, observed = self.driver.record(self.state, self.observed)
        if self.rows and (other := row.keys() ^ self.rows[-1].keys() - {"step"}):
            raise ValueError(
                f"Every record of a run must hold the same names, got some without {listed(sorted(other))}; pass the "
                "observers that it was begun with, and let them record all their names each time."
            )
        if self.keeper:  # they are written again and again
            row = {name: np.asarray(value) for name, value in row.items()}
        rows = [*self.rows, {"step": self.step, **row}]
        self.state, self.observed, self.rows = state, observed, rows  # at once: a signal may end the run anywhere
        self.log(self.step, row, self.state.diverged_at)  # pyright: ignore[reportArgumentType]

    def _over(self) -> bool:
        """Whether the last step was taken, or all lanes had diverged at the last record."""
        assert self.state is not None
        diverged = self.rows[-1]["step"] == self.step and np.all(np.asarray(self.state.diverged_at) >= 0)
        return bool(self.step >= self.plan.num_steps or diverged)

    def _said_stop(self, rows: Rows) -> bool:
        """Whether `stop`, which is shown these records, said so of any."""
        if self.stop is None:
            return False
        said = [self.stop({name: np.asarray(value)[()] for name, value in row.items()}) for row in rows]
        return any(said)

    def _carry(self, error: BaseException) -> None:
        """Makes the solution so far an attribute of the error, of the last state that was computed, and keeps it."""
        solution, states = self.before, (self.driver.reached, self.state)
        for state in filter(None, states):
            with contextlib.suppress(Exception):  # where the device failed, reading what it was to compute fails again
                reached = self._on_the_way(self.reached(), jax.block_until_ready(state))
                solution = self.conclude(reached, Result.interrupted)
                error.add_note(f"The solution after {reached.step} steps is this error's `solution`.")
                self._keep_at_last(reached, error)
                break
        with contextlib.suppress(AttributeError):  # some errors take none
            error.solution = solution  # pyright: ignore[reportAttributeAccessIssue]

    def _keep_at_last(self, reached: Reached, error: BaseException) -> None:
        """Keeps where an error ended the run; what was refused before it began leaves the folder as it was."""
        if self.keeper is None or self.kept is None:
            return
        try:
            with contextlib.suppress(LookupError):
                position = self.driver.position(reached.step)
                # Batches that failed may tell where they are wrongly: the last piece's end is known.
                told = "told" in (position or {})
                before_record = reached.step == self.kept.step and self.keeper.is_only_the_end(reached.step)
                if not (told or before_record):
                    self.kept = replace(reached, position=position)
            self.keeper.write(self.kept)
        except Exception as failure:
            error.add_note(f"The state could not be written to {self.keeper.folder}: {failure}")

    def _check_steps(self, found: Reached) -> None:
        """Raises `ValueError` for another number of steps where what was done depends on it."""
        if found.num_steps == self.plan.num_steps:
            return
        if self.keeper and not self.driver.by_steps and found.step % self.plan.interval:
            raise ValueError(
                "A run whose solver takes many steps at once has the same bits only if they end at the same records, "
                f"got num_steps={self.plan.num_steps} for one that ended between two, at step {found.step}; pass "
                f"num_steps={found.num_steps}, or choose another folder."
            )
        ahead = not isinstance(self.plan.data, tuple) and getattr(self.plan.run.safeguard, "num_batches", 1) > 1
        if ahead or found.state.solver.window is not None:
            what = "a safeguard that reads batches ahead" if ahead else "learning rates within windows"
            raise ValueError(
                f"A run with {what} ends at the step that it was begun with, {found.num_steps}, got num_steps="
                f"{self.plan.num_steps}; pass that number."
            )


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
