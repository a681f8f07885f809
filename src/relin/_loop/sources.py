"""Where the batches of a run that is driven from the host come from."""

import abc
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from relin._core import check as _check, finite as _finite, tree as _tree
from relin._core.fingerprint import fingerprint
from relin._core.loss import TargetCheck
from relin._core.types import State, Step
from relin._loop import program as _program, validate as _validate
from relin._loop.compiled import Programs
from relin._loop.placement import given
from relin._loop.program import Batch, Data, Run, Sampling, Setup

PLANNED_STEPS = 2**14
PLANNED_EXAMPLES = 2**23
"""How many steps, and how many examples, are planned at once: a bound on the memory of the plan."""


def planned_steps(sampling: Sampling, data: Data, longest: int) -> int:
    """How many steps' batches to plan at once, at most `longest`."""
    per_step = sampling.batches.planned_per_step(jax.tree.leaves(data)[0].shape[0])
    return min(longest, PLANNED_STEPS, max(1, PLANNED_EXAMPLES // max(1, per_step)))


def as_array(steps: range) -> Int[np.ndarray, " steps"]:
    return np.int32(steps.start) + np.arange(len(steps), dtype=np.int32)


class WrongTarget(NamedTuple):
    """The first target seen that the loss is not made for."""

    step: Int[Array, ""]
    """−1 before there is one."""
    example: Int[Array, ""]
    value: Shaped[Array, ""]


class AbstractSource(abc.ABC):
    """Where batches come from."""

    @abc.abstractmethod
    def __call__(self, step: int) -> Batch:
        """The batch of a step. Steps come in order, a step perhaps twice. `StopIteration` at the end."""

    @abc.abstractmethod
    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        """The batches of the `count` steps after this one, whose batch was asked for; fewer where the data end, and
        none where all are the same."""

    @abc.abstractmethod
    def check_targets(self) -> None:
        """Raises `ValueError` if a batch so far had wrong targets; waits for the device."""

    def position(self, step: int) -> Any:
        """Where the batches are before that of a step, for `go_to`; of arrays every batch follows from its step.

        **Raises:** `LookupError` where that is not known any more.
        """
        del step

    def go_to(self, step: int, position: Any) -> None:
        """Makes the batch of this step the next one, of batches that are at step 0. Without a position they are gone
        through, and not compared.

        **Raises:** `ValueError` for batches that are not those of the position.
        """
        del step, position


class ArraySource(AbstractSource):
    """Batches drawn on the device from arrays, one step at a time."""

    def __init__(self, programs: Programs, data: Batch, num_steps: int):
        self.programs, self.data = programs, data
        self.count = planned_steps(programs.sampling, data, min(num_steps, PLANNED_STEPS // 16))
        self.planned: tuple[range, State] = (range(0), None)

    def __call__(self, step: int) -> Batch:
        steps, planned = self.planned
        if step not in steps:
            steps = range(step, step + self.count)
            planned = self.programs.call(_program.plan, (), self.data, step, count=self.count)
            self.planned = steps, planned
        return self.programs.call(_program.read, (), self.data, planned, step)

    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        if _program.one_batch(self.programs.sampling):
            return ()
        return tuple(self(following) for following in range(step + 1, step + 1 + count))

    def check_targets(self) -> None:
        pass  # checked before training

    def indices(self, start: int, stop: int) -> np.ndarray:
        """The examples of the steps `start`, …, `stop − 1`, shape `(steps, batch)`."""
        pieces = []
        while start < stop:
            self(start)  # plans as far as needed
            planned = self.planned[0]
            found = self.programs.call(_program.indices, (), self.planned[1], as_array(planned))
            end = min(stop, planned.stop)
            pieces.append(np.asarray(found)[start - planned.start : end - planned.start])
            start = end
        return np.concatenate(pieces)


class IterableSource(AbstractSource):
    """Batches from a Python iterable, started again when it ends if it can be.

    `check` raises for a batch that cannot be trained on, and says what the loss expects of targets. It checks the
    first batch of each form; the targets of the others are checked on the device, and the host reads what was found
    when it reads the loss.
    """

    def __init__(
        self,
        programs: Programs,
        batches: Iterable[Batch],
        check: Callable[[Batch], TargetCheck | None],
        num_steps: int,
    ):
        self.programs, self.batches, self.check, self.num_steps = programs, batches, check, num_steps
        self.iterator: Iterator[Batch] = iter(batches)
        self.upcoming: dict[int, Batch] = {}
        """The batches of the step asked for last, and of those after it that were read."""
        self.given: dict[int, Any] = {}
        """The same as they were given, and that of the step before."""
        self.positions: dict[int, Any] = {}
        """What batches said of their position before each of these steps, of those that were read ahead."""
        self.read = 0
        """Batches, counted from step 0."""
        self.forms: dict[Any, TargetCheck | None] = {}
        self.types: Any = None
        self.wrong: WrongTarget | None = None
        self.unfinite: Any = None
        """See `_not_finite`."""

    def __call__(self, step: int) -> Batch:
        self.upcoming = {at: batch for at, batch in self.upcoming.items() if at >= step}
        for kept in (self.positions, self.given):
            for at in [at for at in kept if at < step - 2]:  # a run may end a step before the batch that it asked for
                del kept[at]
        return self._at(step)

    def position(self, step: int) -> Any:
        if step == 0:  # it begins there by itself
            return None
        if self._tells_position():
            return {"told": self._position() if step == self.read else self.positions[step]}
        return {"last": fingerprint(self.given[step - 1])}

    def _tells_position(self) -> bool:
        return hasattr(self.batches, "state_dict") or hasattr(self.iterator, "get_state")

    def _position(self) -> Any:
        """As PyTorch's StatefulDataLoader says it, or Grain's iterators."""
        if hasattr(self.batches, "state_dict"):
            return self.batches.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
        return self.iterator.get_state()  # pyright: ignore[reportAttributeAccessIssue]

    def go_to(self, step: int, position: Any) -> None:
        if step == 0:
            return
        if self._tells_position() and "told" in position:
            if hasattr(self.batches, "load_state_dict"):
                self.batches.load_state_dict(position["told"])  # pyright: ignore[reportAttributeAccessIssue]
                self.iterator = iter(self.batches)
            else:
                self.iterator.set_state(position["told"])  # pyright: ignore[reportAttributeAccessIssue]
            self.read = step
        else:
            self._skip_to(step, position)
        self.upcoming = {}

    def _skip_to(self, step: int, position: Any) -> None:
        last = self.given.get(step - 1)
        try:
            while self.read < step:
                last = self._next()
        except StopIteration:
            raise ValueError(
                f"`data` ended after {self.read} batches, and the run was at step {step}; pass the batches that it "
                "was begun with."
            ) from None
        if position is not None and fingerprint(last) != position.get("last"):
            raise ValueError(
                f"`data` gave another batch for step {step - 1} than it gave when the run was begun; pass the same "
                "batches in the same order, shuffled by a seed, or a loader with state_dict and load_state_dict."
            )
        self.given[step - 1] = last

    def later(self, step: int, count: int) -> tuple[Batch, ...]:
        batches = []
        with contextlib.suppress(StopIteration):
            for following in range(step + 1, min(step + 1 + count, self.num_steps)):
                if following not in self.upcoming and self._tells_position():
                    self.positions[following] = self._position()
                batches.append(self._at(following))
        return tuple(batches)

    def _at(self, step: int) -> Batch:
        if step not in self.upcoming:
            batch = self.given[step] = self._next()
            with _validate.naming(f"the batch of step {step}"):
                batch = self._checked(batch)
            found = self.programs.call(_prepared, (), batch, step, self.wrong, self.unfinite)
            self.upcoming[step], self.wrong, self.unfinite = found
        return self.upcoming[step]

    def check_targets(self) -> None:
        if self.wrong is None or (step := int(self.wrong.step)) < 0:
            return
        expected = next(filter(None, self.forms.values()))
        with _validate.naming(f"the batch of step {step}"):
            raise ValueError(_validate.wrong_target(expected, np.asarray(self.wrong.value), int(self.wrong.example)))

    def _checked(self, batch: Batch) -> Batch:
        """The batch as arrays; raises unless it is of the first one's types and can be trained on."""
        placement = self.programs.static.placement
        batch = jax.tree.map(jnp.asarray if placement is None else given, batch, is_leaf=_is_one_array)
        batch = batch if placement is None else placement.placed(batch, split=True)
        leaves, structure = jax.tree.flatten(batch)
        types = structure, tuple((leaf.dtype, leaf.ndim) for leaf in leaves)
        form = types, tuple(leaf.shape for leaf in leaves)
        if form not in self.forms:
            if self.types not in (None, types):
                first, now = (", ".join(f"{dtype} of {ndim} axes" for dtype, ndim in t[1]) for t in (self.types, types))
                raise TypeError(f"All batches must be of the first one's types, {first}, got {now}; convert them.")
            _validate.arrays(batch)
            self.types = types
            self.forms[form] = self.check(batch if placement is None else placement.readable(batch))
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
        self.read += 1
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"Each batch of an iterable must be a pair (x, y), got {type(batch).__name__}; "
                "pass a tuple (x, y) of arrays for data held in memory."
            )
        _check.numeric(batch)
        return batch[0], batch[1]


def _prepared(
    setup: Setup, batch: Batch, step: Step, wrong: WrongTarget | None, unfinite: Int[Array, "3"] | None
) -> tuple[Batch, WrongTarget | None, Int[Array, "3"]]:
    """A batch that comes from Python, augmented, what is wrong with the targets so far, and what is not finite."""
    batch = _program.augmented(setup, batch, step)
    return batch, _wrong_target(setup.run, batch, step, wrong), _not_finite(batch, step, unfinite)


def _wrong_target(run: Run, batch: Batch, step: Step, before: WrongTarget | None) -> WrongTarget | None:
    """The first wrong target of the batches so far; `None` for a loss that takes any target."""
    x, y = batch
    apply = run.problem.trained(run.problem.variables).apply
    outputs = jax.eval_shape(lambda p, x: apply(p, x), run.params, x)  # JAX would compare traced networks
    checked = run.problem.loss.check_targets(outputs, y)
    if checked is None:
        return None
    wrong = ~checked.allowed.reshape(-1)
    place = jnp.argmax(wrong)
    example = jnp.asarray(place // (wrong.size // outputs.shape[0]), jnp.int32)
    now = WrongTarget(jnp.where(wrong[place], step, -1).astype(jnp.int32), example, checked.values.reshape(-1)[place])
    return now if before is None else _tree.select(before.step >= 0, before, now)


def _not_finite(batch: Batch, step: Step, before: Int[Array, "3"] | None) -> Int[Array, "3"]:
    """The first batch that holds a number that is not finite: its step, −1 before there is one; whether it is among the
    targets; and the example."""
    inputs, targets = (_finite.first_row(part) for part in batch)
    now = jnp.stack([jnp.asarray(step, jnp.int32), jnp.int32(inputs < 0), jnp.where(inputs < 0, targets, inputs)])
    now = jnp.where((inputs < 0) & (targets < 0), -1, now)
    return now if before is None else jnp.where(before[0] < 0, now, before)


def _is_one_array(part: Any) -> bool:
    """Whether a part of a batch is a list of numbers, or of such lists; one of arrays is a PyTree of them."""
    return isinstance(part, list) and not all(getattr(item, "shape", ()) for item in part)
