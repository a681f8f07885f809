"""The steps of a run as pure functions, and the loops that run them on the device."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from relin._core import tree as _tree
from relin._core.augment import AbstractAugmentation
from relin._core.batches import AbstractBatches, FullBatch
from relin._core.context import Context, shortened
from relin._core.linearise import LinearisedOutputs
from relin._core.network import Variables
from relin._core.problem import Problem
from relin._core.repr import one_line
from relin._core.types import Flag, Flags, Inputs, Key, Params, Scalar, State, Step, Targets
from relin._loop.placement import Placement
from relin._observer import AbstractObserver
from relin._safeguard import AbstractSafeguard, StepScale
from relin._schedule import AbstractSchedule
from relin._solver import AbstractSolver, AbstractStepSolver, Iterates, SolverState, WeightSpace, all_finite, forgiving

_BLOCK = 64
"""Steps of which it is asked at once whether they are due."""

Batch = tuple[Inputs, Targets]
Data = tuple[PyTree[Shaped[Array, "examples ..."]], PyTree[Shaped[Array, "examples ..."]]]


class Run(eqx.Module):
    """One training run: all that may differ between the lanes of one program.

    **Arguments:**

    - `problem`, `solver`, `schedule`, `safeguard`: as for `train`; the schedule is one, not a number K.
    - `params`: θ_0, a PyTree of floating-point arrays.
    - `key`: decides the batches and the augmentation.

    Every number in these may be a traced array, such as K, the learning rate or a tolerance, and so may `params` and
    `key`; all else is the same in every lane.
    """

    problem: Problem
    solver: AbstractSolver
    schedule: AbstractSchedule
    params: Params
    key: Key
    safeguard: AbstractSafeguard | None = None

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def ordinary(self) -> bool:
        """Whether the run is known to be ordinary training, which has a path of its own."""
        solver = self.solver
        plain = isinstance(solver, WeightSpace) and solver.bound is None and solver.rate_cap is None
        return self.schedule.every_step and plain and self.safeguard is None


class Sampling(eqx.Module):
    """How batches are drawn from the data: the same for all lanes."""

    batches: AbstractBatches
    augment: AbstractAugmentation | None


class RunState(eqx.Module):
    """Where a run is, between two steps."""

    step: Int[Array, ""]
    solver: Any
    """A `SolverState`; between ordinary steps the pair (θ_t, optimiser state)."""
    schedule: State
    feature_updates: Int[Array, ""]
    diverged_at: Int[Array, ""]
    """The first step whose batch loss was not finite, and was not passed over by the optimiser; −1 before."""
    loss_sum: Float[Array, ""]
    """Of the batches since the last record."""
    loss_count: Int[Array, ""]
    safeguard: State = ()
    scale: Float[Array, ""] | None = None
    """Of the last re-linearisation that had a safeguard."""
    evaluations: Int[Array, ""] | None = None
    """Of the network by the safeguard, so far."""
    variables: Variables | None = None
    """Of the network: running statistics and the like."""


def context(
    run: Run, state: RunState, batch: Batch | None = None, traced: bool = True, later: tuple[Batch, ...] = ()
) -> Context:
    """With the coming batch, schedules and safeguards see the network as it is trained on it; without, observers see it
    as it is evaluated."""
    inputs, targets = (None, None) if batch is None else batch
    solver, problem = state.solver, run.problem
    return Context(
        problem.evaluated(state.variables) if batch is None else problem.trained(state.variables),
        solver.anchor,
        solver.displacement,
        state.step,
        state.feature_updates,
        inputs,
        targets,
        traced,
        later,
    )


def init(run: Run, first_batch: Batch) -> RunState:
    """The state before step 0."""
    zero = jnp.zeros((), jnp.int32)
    loss = jax.eval_shape(lambda: run.problem.loss.mean(run.problem.apply(run.params, first_batch[0]), first_batch[1]))
    loss_type = jnp.promote_types(loss.dtype, jnp.float32)  # a sum of many losses needs more digits than half precision
    solver = run.solver.init(run.params)
    if run.ordinary:
        solver = replace(solver, exact=solver.anchor, iterates=None, window=None)
    variables = jax.tree.map(jnp.asarray, run.problem.variables)
    state = RunState(zero, solver, (), zero, zero - 1, jnp.zeros((), loss_type), zero, variables=variables)
    seen = context(run, state, first_batch)
    state = replace(state, schedule=run.schedule.init(seen))
    if run.safeguard is None:
        return state
    return replace(state, safeguard=run.safeguard.init(seen), scale=jnp.ones((), loss_type), evaluations=zero)


class Setup(NamedTuple):
    """All that a program is made from."""

    run: Run
    sampling: Sampling
    observers: tuple[AbstractObserver, ...]
    num_steps: Step
    """Of the whole run; the largest count where there are infinitely many."""
    nested: bool
    """Whether the steps between two re-linearisations are a loop of their own, see `steps`."""
    placement: Placement | None
    """On several devices."""


BatchAt = Callable[[Step], Batch]
"""From a step to its batch."""


class GivenBatch(eqx.Module):
    """The batch of the coming step, for programs that are called once a step."""

    batch: Batch

    def __call__(self, step: Step) -> Batch:
        return self.batch


def relinearise(setup: Setup, state: RunState, batch_at: BatchAt) -> RunState:
    """What happens before a step at which `queried` holds: re-linearises, if an adaptive schedule says so."""
    run = setup.run
    if run.safeguard is not None:
        wanted, state = query(setup, state, batch_at)
        return jax.lax.cond(wanted, partial(_rescaled_by_batches, setup, batch_at), lambda s: s, state)
    relinearised = run.solver.relinearise(state.solver)
    if not run.schedule.adaptive:
        return _updated(state, relinearised, True)
    wanted, state = query(setup, state, batch_at)
    flags = run.schedule.relinearised(wanted, state.solver.anchor)
    return _updated(state, _relinearised_where(flags, relinearised, state.solver), jnp.any(wanted))


def _relinearised_where(flags: PyTree[Flag], relinearised: SolverState, before: SolverState) -> SolverState:
    """The state in which these parameters are re-linearised, and the others keep their anchors and displacements."""
    each = partial(_tree.select_each, flags)
    after = _tree.select(jax.tree.reduce(jnp.logical_or, flags), relinearised, before)
    after = replace(
        after,
        anchor=each(relinearised.anchor, before.anchor),
        displacement=each(relinearised.displacement, before.displacement),
    )
    if relinearised.iterates is None or before.iterates is None:
        return after
    return replace(after, iterates=Iterates(*map(each, relinearised.iterates, before.iterates)))


def begun(setup: Setup, state: RunState, batch_at: BatchAt) -> RunState:
    """The state before a step, after what the solver does once at each anchor if the step is its window's first.

    A loop of at most one turn: under `vmap` it is run where a lane begins a window, and `cond` at every step.
    """
    if state.solver.window is None:
        return state

    def begin(solver: SolverState) -> SolverState:
        seen = context(setup.run, replace(state, solver=solver), batch_at(state.step))
        return setup.run.solver.begin(seen, solver, window_length(setup, state))

    def turn(carry: tuple[Flag, SolverState]) -> tuple[Flag, SolverState]:
        return jnp.asarray(False), begin(carry[1])

    fresh = state.solver.window.step == 0
    return replace(state, solver=jax.lax.while_loop(lambda carry: carry[0], turn, (fresh, state.solver))[1])


def window_length(setup: Setup, state: RunState) -> Int[Array, ""]:
    """Steps from now to the next re-linearisation, or to the end of the run where that is first or the schedule is
    adaptive."""
    if setup.run.schedule.adaptive:
        return setup.num_steps - state.step

    def looked(first: Step) -> Bool[Array, " block"]:
        return due(setup, first + jnp.arange(_BLOCK, dtype=jnp.int32))

    def more(first: Step) -> Flag:
        return ~jnp.any(looked(first)) & (first < setup.num_steps)

    first = jax.lax.while_loop(more, lambda first: first + _BLOCK, state.step + 1)
    found = looked(first)
    end = jnp.where(jnp.any(found), first + jnp.argmax(found), setup.num_steps)
    return jnp.minimum(end, setup.num_steps) - state.step


def query(setup: Setup, state: RunState, batch_at: BatchAt) -> tuple[Flags, RunState]:
    """Whether the schedule wants to re-linearise at a due step; of a partial one, which parts."""
    seen = context(setup.run, state, batch_at(state.step))
    wanted, schedule = setup.run.schedule.query(seen, state.schedule)
    return jnp.asarray(wanted), replace(state, schedule=schedule)


def _rescaled_by_batches(setup: Setup, batch_at: BatchAt, state: RunState) -> RunState:
    batches = [batch_at(state.step + i) for i in range(num_shown(setup))]
    return rescaled(setup, state, step_scale(setup.run, state, *batches))


def num_shown(setup: Setup) -> int:
    """How many of the coming batches the safeguard is shown of arrays; equal ones once."""
    safeguard = setup.run.safeguard
    return 1 if safeguard is None or one_batch(setup.sampling) else safeguard.num_batches


def step_scale(run: Run, state: RunState, batch: Batch, *later: Batch, traced: bool = True) -> tuple[StepScale, State]:
    """How far the safeguard lets the anchor go, and its new state."""
    seen = context(run, state, batch, traced, later)
    return cast(AbstractSafeguard, run.safeguard).step_scale(seen, state.safeguard)


def rescaled(setup: Setup, state: RunState, decided: tuple[StepScale, State]) -> RunState:
    """The state after a re-linearisation as far as a safeguard lets it go; with scale 0 no feature is updated."""
    taken, safeguard = decided
    followed = replace(state.solver, displacement=shortened(taken.scale, state.solver.displacement))
    scale = jnp.asarray(taken.scale, cast(Array, state.scale).dtype)
    evaluations = cast(Array, state.evaluations) + taken.evaluations
    state = replace(state, safeguard=safeguard, scale=scale, evaluations=evaluations)
    return _updated(state, setup.run.solver.relinearise(followed), taken.scale > 0)


def _updated(state: RunState, solver: SolverState, updated: Flag) -> RunState:
    counted = state.feature_updates + jnp.asarray(updated & (state.diverged_at < 0), jnp.int32)
    return replace(state, solver=solver, feature_updates=counted)


def advance(setup: Setup, state: RunState, batch_at: BatchAt) -> RunState:
    """One step of the linearised problem."""
    problem, solver = setup.run.problem.trained(state.variables), cast(AbstractStepSolver, setup.run.solver)
    solved, loss, variables = solver.step_and_variables(problem, state.solver, *batch_at(state.step))
    return _advanced(state, solved, loss, state.feature_updates, variables)


def repeats(setup: Setup) -> bool:
    """Whether all steps see one batch, and the solver can use that: it is then linearised once for each anchor. A
    network with variables is not the same at every step."""
    run, sampling = setup.run, setup.sampling
    same = one_batch(sampling) and run.problem.variables is None and run.problem.taylor.order == 1
    return same and isinstance(run.solver, WeightSpace) and not run.ordinary


def one_batch(sampling: Sampling) -> bool:
    """Whether every step sees the same batch of arrays."""
    return isinstance(sampling.batches, FullBatch) and sampling.augment is None


def linearised(setup: Setup, state: RunState, batch_at: BatchAt) -> LinearisedOutputs:
    """The batch that all steps see, at the anchor."""
    return setup.run.problem.linearise(state.solver.anchor).on(batch_at(state.step)[0])


def advance_on(setup: Setup, state: RunState, at_anchor: LinearisedOutputs, batch_at: BatchAt) -> RunState:
    """`advance` where the batch was linearised before."""
    step_on = cast(WeightSpace, setup.run.solver).step_on
    solver, loss = step_on(setup.run.problem, state.solver, at_anchor, *batch_at(state.step))
    return _advanced(state, solver, loss, state.feature_updates, state.variables)


def _advanced(
    state: RunState, solver: Any, loss: Scalar, feature_updates: Int[Array, ""], variables: Variables | None
) -> RunState:
    """After a step. A batch whose loss is not finite counts for nothing where the optimiser passed over it."""
    alive, finite = state.diverged_at < 0, jnp.isfinite(loss)
    failed, counted = alive & ~finite, alive
    if (survived := _survived(solver)) is not None:
        failed, counted = failed & ~survived, alive & (finite | ~survived)
        variables = _tree.select(finite | ~survived, variables, state.variables)
    return replace(
        state,
        step=state.step + 1,
        solver=solver,
        feature_updates=feature_updates,
        diverged_at=jnp.where(failed, state.step, state.diverged_at),
        loss_sum=jnp.where(counted, state.loss_sum + loss, state.loss_sum),
        loss_count=state.loss_count + jnp.asarray(counted, jnp.int32),
        variables=variables,
    )


def _survived(solver: Any) -> Flag | None:
    """Whether the parameters are finite, of a step with an optimiser that passes over gradients that are not; `None`
    with any other, with which a run ends at the first loss that is not finite."""
    params, optimiser = solver if isinstance(solver, tuple) else (solver.displacement, solver.optimiser)
    return all_finite(params) if forgiving(optimiser) else None


def due(setup: Setup, steps: Int[Array, " steps"]) -> Bool[Array, " steps"]:
    """Which of these steps are due."""
    return jax.vmap(partial(_due, setup.run))(steps)


def _due(run: Run, step: Step) -> Bool[Array, ""]:
    return jnp.asarray(run.schedule.due(step)) & (step > 0)


def _queried(run: Run, state: RunState) -> Flag:
    """Whether the coming step begins with a query of the schedule, or with a re-linearisation."""
    return _due(run, state.step) & jnp.asarray(run.schedule.queried(state.step, state.schedule))


def steps(setup: Setup, state: RunState, data: Data, stop: Step, count: int) -> RunState:
    """Runs the steps up to `stop`, at most `count` of them, as loops on the device.

    `nested` puts the steps between two re-linearisations into an inner loop, so that what happens once per anchor costs
    nothing per step. Under `vmap` lanes with different schedules would wait for each other there; without it every
    step decides for itself.
    """
    run, batch_at = setup.run, planned_batches(setup, data, state.step, count + num_shown(setup) - 1)
    one_step = partial(advance, setup, batch_at=batch_at)

    def alive(s: RunState) -> Flag:
        return (s.step < stop) & (s.diverged_at < 0)

    if run.ordinary:
        more = lambda s: (s.step < stop - 1) & (s.diverged_at < 0)  # noqa: E731  the last step keeps its displacement
        light = jax.lax.while_loop(more, partial(ordinary_advance, setup, batch_at=batch_at), lightened(state))
        return ordinary_finish(setup, light, batch_at)

    def body(first: RunState) -> RunState:
        first = jax.lax.cond(_queried(run, first), partial(relinearise, setup, batch_at=batch_at), lambda s: s, first)
        first = begun(setup, first, batch_at)
        if not setup.nested:
            return one_step(first)
        step, more = one_step, lambda s: alive(s) & ((s.step == first.step) | ~_queried(run, s))
        if repeats(setup):
            step = partial(advance_on, setup, at_anchor=linearised(setup, first, batch_at), batch_at=batch_at)
        return jax.lax.while_loop(more, step, first)

    return jax.lax.while_loop(alive, body, state)


def lightened(state: RunState) -> Any:
    """The state of ordinary training between two steps: the solver's is the pair (θ_t, optimiser state)."""
    return replace(state, solver=(state.solver.exact, state.solver.optimiser))


def ordinary_advance(setup: Setup, light: Any, batch_at: BatchAt) -> Any:
    """One ordinary step on the pair (θ_t, optimiser state)."""
    problem, solver = setup.run.problem.trained(light.variables), cast(WeightSpace, setup.run.solver)
    (params, optimiser), (x, y) = light.solver, batch_at(light.step)
    params, optimiser, loss, variables = solver.ordinary_step(problem, params, optimiser, x, y)
    return _advanced(light, (params, optimiser), loss, _with_ordinary_update(light), variables)


def ordinary_finish(setup: Setup, light: Any, batch_at: BatchAt) -> RunState:
    """One ordinary step that ends in the full state."""
    problem, solver = setup.run.problem.trained(light.variables), cast(WeightSpace, setup.run.solver)
    (params, optimiser), (x, y) = light.solver, batch_at(light.step)
    full, loss, variables = solver.ordinary_step_in_full(problem, params, optimiser, x, y)
    return _advanced(light, full, loss, _with_ordinary_update(light), variables)


def whole(state: RunState) -> RunState:
    """The full state, about to re-linearise, where it is one between ordinary steps."""
    if isinstance(state.solver, SolverState):
        return state
    params, optimiser = state.solver
    return replace(state, solver=SolverState(params, _tree.no_displacement(params), optimiser, params))


def _with_ordinary_update(light: Any) -> Int[Array, ""]:
    return light.feature_updates + ((light.step > 0) & (light.diverged_at < 0))


def plan(setup: Setup, data: Data, start: Step, count: int) -> State:
    """What the batches of the steps `start`, …, `start + count − 1` are read from."""
    num_examples = jax.tree.leaves(data)[0].shape[0]
    return setup.sampling.batches.plan(jax.random.fold_in(setup.run.key, 0), num_examples, start, count)


def read(setup: Setup, data: Data, planned: State, step: Step) -> Batch:
    """The batch of a planned step."""
    indices = setup.sampling.batches.indices(planned, step)
    batch = data if indices is None else jax.tree.map(lambda a: a[indices], data)
    return augmented(setup, batch, step)


def indices(setup: Setup, planned: State, steps: Int[Array, " steps"]) -> Int[Array, "steps batch"] | None:
    """The examples of planned steps."""
    return jax.vmap(lambda step: setup.sampling.batches.indices(planned, step))(steps)


def planned_batches(setup: Setup, data: Data, start: Step, count: int) -> BatchAt:
    """The batches of the steps `start`, …, `start + count − 1`."""
    return partial(read, setup, data, plan(setup, data, start, count))


def augmented(setup: Setup, batch: Batch, step: Step) -> Batch:
    """The batch as a step sees it, each of several devices holding some of its examples."""
    if setup.placement is not None:
        batch = setup.placement.split(batch)
    if setup.sampling.augment is None:
        return batch
    key = jax.random.fold_in(jax.random.fold_in(setup.run.key, 1), step)
    return setup.sampling.augment(key, batch[0]), batch[1]
