"""What the kernel of now would reach if it were frozen."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.batches import AbstractBatches, FullBatch, Shuffled
from relin._core.context import Context
from relin._core.linearise import Taylor
from relin._core.problem import Problem
from relin._core.types import Inputs, Key, State, Step, Targets
from relin._observer._base import AbstractObserver
from relin._observer._kernel_drift import pair_of
from relin._observer._performance import Performance
from relin._solver import SolverState, WeightSpace

Record = dict[str, Shaped[Array, ""]]


class FrozenState(eqx.Module):
    """How many records there were, and what the last training found, at which step."""

    records: Int[Array, ""]
    step: Int[Array, ""]
    """−1 before the first training."""
    found: Record


class FrozenKernelAccuracy(AbstractObserver):
    """What lazy training from θ_t would reach: the accuracy of `Never()` begun at the current parameters.

    The network linearised at θ_t = θ_s + δ_t is trained with the run's own loss, from δ = 0 with a fresh optimiser, as
    `train(problem, WeightSpace(optimiser), Never(), θ_t, data, …)` does. What it reaches tells how good the features at
    step t are (Fort et al. 2020, arXiv:2010.15110). Records `frozen_kernel_loss`, its mean loss on the test data, and
    `frozen_kernel_accuracy` (a fraction) where the targets are classes.

    A record costs `num_steps` linearised steps and one pass over the test data: 11 records with `num_steps` as many as
    the run's own make it twelve times as long. At a step that was recorded before nothing is trained again.

    **Arguments:**

    - `data`: inputs and targets `(x, y)` to train on.
    - `test`: inputs and targets `(x, y)` to measure on.
    - `optimiser`: any Optax optimiser, for example `optax.sgd(0.1, momentum=0.9)`.
    - `num_steps`: steps of the linearised training.
    - `batch_size`: examples a step, drawn by shuffling once an epoch; `None` for all of them.
    - `key`: decides the batches, those of `train` with the same key; by default `jax.random.key(0)`.
    - `every`: train at records 0, `every`, 2 `every`, … only; the others are `nan`. Under `drive="vmap"`, where lanes
      decide together, they cost as much.
    - `chunk_size`: how many test inputs go through the network at once, see `Performance`.

    **Raises:** `TypeError` or `ValueError` if `data` or `test` is no pair of as many inputs as targets, or a number is
    not positive.
    """

    data: tuple[Inputs, Targets]
    performance: Performance
    solver: WeightSpace
    key: Key
    num_steps: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __init__(
        self,
        data: tuple[Inputs, Targets],
        test: tuple[Inputs, Targets],
        optimiser: optax.GradientTransformation,
        num_steps: int,
        *,
        batch_size: int | None = None,
        key: Key | None = None,
        every: int = 1,
        chunk_size: int | None = None,
    ):
        self.data = pair_of(data, "data")
        self.performance = Performance(pair_of(test, "test"), "frozen_kernel", chunk_size)
        self.solver = WeightSpace(optimiser)
        self.key = jax.random.key(0) if key is None else _check.key(key)
        self.num_steps = _check.count(num_steps, "num_steps", "pass the steps of the linearised training")
        remedy = "pass None for the full batch"
        self.batch_size = None if batch_size is None else _check.count(batch_size, "batch_size", remedy)
        self.every = _check.count(every, "every", "pass 1 to train at every record")
        self._batches.check(self._num_examples)

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        return {"data": self.data, "test": self.performance.data}

    @property
    def _batches(self) -> AbstractBatches:
        return FullBatch() if self.batch_size is None else Shuffled(self.batch_size)

    @property
    def _num_examples(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def init(self, context: Context) -> FrozenState:
        start = SolverState(context.anchor, context.displacement, ())
        found = eqx.filter_eval_shape(self._measured, context, start)
        zero = jnp.zeros((), jnp.int32)
        return FrozenState(zero, zero - 1, jax.tree.map(jnp.zeros_like, found))

    def compute(self, context: Context, state: FrozenState) -> tuple[Record, FrozenState]:
        due = state.records % self.every == 0
        wanted = due & (state.step != context.step)

        def again() -> tuple[Record, Array]:
            return self._measured(context, self._trained(context)), jnp.asarray(context.step, jnp.int32)

        def kept() -> tuple[Record, Array]:
            return state.found, state.step

        if context.traced:
            found, step = jax.lax.cond(wanted, again, kept)
        else:
            found, step = again() if wanted else kept()
        record = {name: jnp.where(due, value, jnp.nan) for name, value in found.items()}
        return record, FrozenState(state.records + 1, step, found)

    def _trained(self, context: Context) -> SolverState:
        """The solver's state after the linearised training."""
        step = _step if context.traced else _compiled_step
        start = _start if context.traced else _compiled_start
        planned, state = start(self, context)
        fixed = self, replace(context.problem, taylor=Taylor()), planned
        if context.traced:
            return jax.lax.scan(lambda s, t: (step(*fixed, s, t), None), state, jnp.arange(self.num_steps))[0]
        for t in range(self.num_steps):
            state = step(*fixed, state, jnp.asarray(t))
        return state

    def _measured(self, context: Context, state: SolverState) -> Record:
        """Loss and accuracy of the network linearised at θ_t, after training from there."""
        now = context.step, context.feature_updates
        there = Context(context.problem, state.anchor, state.displacement, *now, traced=context.traced)
        record, _ = self.performance.compute(there, ())
        return {name: value for name, value in record.items() if not name.startswith("network_")}


def _start(observer: FrozenKernelAccuracy, context: Context) -> tuple[State, SolverState]:
    """The plan of the batches, and the solver's state at θ_t."""
    key = jax.random.fold_in(observer.key, 0)  # as a run draws its batches
    planned = observer._batches.plan(key, observer._num_examples, 0, observer.num_steps)
    return planned, observer.solver.init(_tree.add(context.anchor, context.displacement))


def _step(
    observer: FrozenKernelAccuracy, problem: Problem, planned: State, state: SolverState, step: Step
) -> SolverState:
    indices = observer._batches.indices(planned, step)
    x, y = observer.data if indices is None else jax.tree.map(lambda a: a[indices], observer.data)
    return observer.solver.step(problem, state, x, y)[0]


_compiled_start = eqx.filter_jit(_start)
_compiled_step = eqx.filter_jit(_step)
