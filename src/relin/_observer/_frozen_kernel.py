"""What the kernel of now would reach if it were frozen."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Shaped

from relin import _tree
from relin._batches import AbstractBatches, FullBatch, Shuffled
from relin._context import Context
from relin._observer._base import AbstractObserver
from relin._observer._kernel_drift import pair_of
from relin._observer._performance import Performance
from relin._problem import Problem
from relin._types import Inputs, Key, Params, State, Step, Targets

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
    optimiser: optax.GradientTransformation
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
        if not (hasattr(optimiser, "init") and hasattr(optimiser, "update")):
            raise TypeError(
                f"`optimiser` must be an Optax gradient transformation, got {optimiser!r}; "
                "pass for example optax.sgd(0.1, momentum=0.9)."
            )
        self.data = pair_of(data, "data")
        self.performance = Performance(pair_of(test, "test"), "frozen_kernel", chunk_size)
        self.optimiser = optimiser
        self.key = jax.random.key(0) if key is None else _typed(key)
        self.num_steps = _positive(num_steps, "num_steps", "pass the steps of the linearised training")
        remedy = "pass None for the full batch"
        self.batch_size = None if batch_size is None else _positive(batch_size, "batch_size", remedy)
        self.every = _positive(every, "every", "pass 1 to train at every record")
        self._batches.check(self._num_examples)

    @property
    def _batches(self) -> AbstractBatches:
        return FullBatch() if self.batch_size is None else Shuffled(self.batch_size)

    @property
    def _num_examples(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def init(self, context: Context) -> FrozenState:
        found = eqx.filter_eval_shape(self._measured, context, context.displacement)
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

    def _trained(self, context: Context) -> Params:
        """The displacement from θ_t after the linearised training."""
        step = _step if context.traced else _compiled_step
        start = _start if context.traced else _compiled_start
        anchor, planned, carry = start(self, context)
        fixed = self, context.problem, anchor, planned
        if context.traced:
            carry, _ = jax.lax.scan(lambda c, t: (step(*fixed, c, t), None), carry, jnp.arange(self.num_steps))
        else:
            for t in range(self.num_steps):
                carry = step(*fixed, carry, jnp.asarray(t))
        return carry[0]

    def _measured(self, context: Context, displacement: Params) -> Record:
        """Loss and accuracy of the network linearised at θ_t, at this displacement from θ_t."""
        anchor = _tree.add(context.anchor, context.displacement)
        now = context.step, context.feature_updates
        there = Context(context.problem, anchor, displacement, *now, traced=context.traced)
        record, _ = self.performance.compute(there, ())
        return {name: value for name, value in record.items() if not name.startswith("network_")}


def _start(observer: FrozenKernelAccuracy, context: Context) -> tuple[Params, State, tuple[Params, Any]]:
    """θ_t, the plan of the batches, and the pair of zero displacement and the optimiser's first state."""
    anchor = _tree.add(context.anchor, context.displacement)
    key = jax.random.fold_in(observer.key, 0)  # as a run draws its batches
    planned = observer._batches.plan(key, observer._num_examples, 0, observer.num_steps)
    return anchor, planned, (_tree.zeros_like(anchor), observer.optimiser.init(anchor))


def _step(
    observer: FrozenKernelAccuracy, problem: Problem, anchor: Params, planned: State, carry: Any, step: Step
) -> tuple[Params, Any]:
    """One step of the problem linearised at `anchor`."""
    displacement, state = carry
    indices = observer._batches.indices(planned, step)
    x, y = observer.data if indices is None else jax.tree.map(lambda a: a[indices], observer.data)
    loss, gradient = problem.linearised_value_and_grad(anchor, displacement, x, y)
    params = _tree.add(anchor, displacement)

    def value_fn(p: Params) -> Any:  # for line searches
        shifted = _tree.add(displacement, _tree.subtract(p, params))
        return problem.loss.mean(problem.linearise(anchor).value(shifted, x), y)

    update = optax.with_extra_args_support(observer.optimiser).update
    updates, state = update(gradient, state, params, value=loss, grad=gradient, value_fn=value_fn)
    return optax.apply_updates(displacement, updates), state


_compiled_start = eqx.filter_jit(_start)
_compiled_step = eqx.filter_jit(_step)


def _positive(value: Any, name: str, remedy: str) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}; {remedy}.")
    return int(value)


def _typed(key: Any) -> Key:
    """One typed random key; a raw one as `jax.random.PRNGKey` makes is wrapped."""
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key
    raise TypeError(f"`key` must be one random key such as jax.random.key(0), got {key!r}; make one from a seed.")
