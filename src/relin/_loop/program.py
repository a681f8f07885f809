"""The steps of a run as pure functions, and the loops that run them on the device."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

from relin._core import finite as _finite, tree as _tree
from relin._core.augment import AbstractAugmentation
from relin._core.batches import AbstractBatches, FullBatch
from relin._core.context import Context, shortened
from relin._core.linearise import LinearisedOutputs
from relin._core.network import Variables
from relin._core.problem import Problem
from relin._core.repr import one_line
from relin._core.types import Flag, Flags, Inputs, Key, Params, Scalar, State, Step, Targets
from relin._safeguard import AbstractSafeguard, Verdict
from relin._schedule import AbstractSchedule
from relin._solver import AbstractSolver, AbstractStepSolver, SolverState, WeightSpace

Batch = tuple[Inputs, Targets]
Data = tuple[PyTree[Shaped[Array, "examples ..."]], PyTree[Shaped[Array, "examples ..."]]]


class Run(eqx.Module):
    """One training run: all that may differ between the lanes of one program."""

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
        return self.schedule.every_step and isinstance(self.solver, WeightSpace) and self.safeguard is None


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
    """The first step whose batch loss was not finite; −1 before."""
    loss_sum: Float[Array, ""]
    """Of the batches since the last record."""
    loss_count: Int[Array, ""]
    safeguard: State = ()
    scale: Float[Array, ""] | None = None
    """Of the last re-linearisation that a safeguard judged."""
    evaluations: Int[Array, ""] | None = None
    """Of the network by the safeguard, so far."""
    variables: Variables | None = None
    """Of the network: running statistics and the like."""


def context(run: Run, state: RunState, batch: Batch | None = None, traced: bool = True) -> Context:
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
    )


def init(run: Run, first_batch: Batch) -> RunState:
    """The state before step 0."""
    zero = jnp.zeros((), jnp.int32)
    loss = jax.eval_shape(lambda: run.problem.loss.mean(run.problem.apply(run.params, first_batch[0]), first_batch[1]))
    loss_type = jnp.promote_types(loss.dtype, jnp.float32)  # a sum of many losses needs more digits than half precision
    solver = run.solver.init(run.params)
    if run.ordinary:
        solver = replace(solver, exact=solver.anchor)
    variables = jax.tree.map(jnp.asarray, run.problem.variables)
    state = RunState(zero, solver, (), zero, zero - 1, jnp.zeros((), loss_type), zero, variables=variables)
    seen = context(run, state, first_batch)
    state = replace(state, schedule=run.schedule.init(seen))
    if run.safeguard is None:
        return state
    return replace(state, safeguard=run.safeguard.init(seen), scale=jnp.ones((), loss_type), evaluations=zero)


def begin(run: Run, state: RunState, batch: Batch) -> RunState:
    """What happens before a due step: ask the schedule, re-linearise if it says so."""
    if run.safeguard is not None:
        wanted, state = ask(run, state, batch)
        return jax.lax.cond(wanted, lambda s: moved(run, s, judge(run, s, batch)), lambda s: s, state)
    relinearised = run.solver.relinearise(state.solver)
    if not run.schedule.adaptive:
        return _begun(state, relinearised, True)
    wanted, state = ask(run, state, batch)
    moves = run.schedule.moves(wanted, state.solver.anchor)
    return _begun(state, _relinearised_where(moves, relinearised, state.solver), jnp.any(wanted))


def _relinearised_where(moves: PyTree[Flag], relinearised: SolverState, before: SolverState) -> SolverState:
    """The state in which these parameters' anchors moved, and the others kept their anchors and displacements."""
    any_moves = jax.tree.reduce(jnp.logical_or, moves)
    return replace(
        _tree.select(any_moves, relinearised, before),
        anchor=_tree.select_each(moves, relinearised.anchor, before.anchor),
        displacement=_tree.select_each(moves, relinearised.displacement, before.displacement),
    )


def ask(run: Run, state: RunState, batch: Batch) -> tuple[Flags, RunState]:
    """Whether the schedule wants to re-linearise at a due step; of a partial one, which parts."""
    wanted, schedule = run.schedule.query(context(run, state, batch), state.schedule)
    return jnp.asarray(wanted), replace(state, schedule=schedule)


def judge(run: Run, state: RunState, batch: Batch, traced: bool = True) -> tuple[Verdict, State]:
    """How far the safeguard lets the anchor go."""
    return cast(AbstractSafeguard, run.safeguard).judge(context(run, state, batch, traced), state.safeguard)


def moved(run: Run, state: RunState, judged: tuple[Verdict, State]) -> RunState:
    """The state after a re-linearisation that a safeguard judged; where it went nowhere no feature was updated."""
    verdict, safeguard = judged
    followed = replace(state.solver, displacement=shortened(verdict.scale, state.solver.displacement))
    scale = jnp.asarray(verdict.scale, cast(Array, state.scale).dtype)
    evaluations = cast(Array, state.evaluations) + verdict.evaluations
    state = replace(state, safeguard=safeguard, scale=scale, evaluations=evaluations)
    return _begun(state, run.solver.relinearise(followed), verdict.scale > 0)


def _begun(state: RunState, solver: SolverState, updated: Flag) -> RunState:
    counted = state.feature_updates + jnp.asarray(updated & (state.diverged_at < 0), jnp.int32)
    return replace(state, solver=solver, feature_updates=counted)


def advance(run: Run, state: RunState, batch: Batch) -> RunState:
    """One step of the linearised problem."""
    problem = run.problem.trained(state.variables)
    solver, loss, variables = cast(AbstractStepSolver, run.solver).step_and_variables(problem, state.solver, *batch)
    return _advanced(replace(state, variables=variables), solver, loss, state.feature_updates)


def repeats(run: Run, sampling: Sampling) -> bool:
    """Whether all steps see one batch, and the solver can use that: it is then linearised once for each anchor. A
    network with variables is not the same at every step."""
    same = isinstance(sampling.batches, FullBatch) and sampling.augment is None
    same = same and run.problem.variables is None and run.problem.taylor.order == 1
    return same and isinstance(run.solver, WeightSpace) and not run.ordinary


def linearised(run: Run, state: RunState, batch: Batch) -> LinearisedOutputs:
    """The batch that all steps see, at the anchor."""
    return run.problem.linearise(state.solver.anchor).on(batch[0])


def advance_on(run: Run, state: RunState, at_anchor: LinearisedOutputs, batch: Batch) -> RunState:
    """`advance` where the batch was linearised before."""
    solver, loss = _weight_space(run).step_on(run.problem, state.solver, at_anchor, *batch)
    return _advanced(state, solver, loss, state.feature_updates)


def _advanced(state: RunState, solver: Any, loss: Scalar, feature_updates: Int[Array, ""]) -> RunState:
    alive = state.diverged_at < 0
    failed = alive & ~jnp.isfinite(loss)
    return replace(
        state,
        step=state.step + 1,
        solver=solver,
        feature_updates=feature_updates,
        diverged_at=jnp.where(failed, state.step, state.diverged_at),
        loss_sum=jnp.where(alive, state.loss_sum + loss, state.loss_sum),
        loss_count=state.loss_count + jnp.asarray(alive, jnp.int32),
    )


def is_due(run: Run, step: Step) -> Flag:
    return jnp.asarray(run.schedule.due(step)) & (step > 0)


def asks(run: Run, state: RunState) -> Flag:
    """Whether the coming step begins with a question to the schedule, or with a re-linearisation."""
    return is_due(run, state.step) & jnp.asarray(run.schedule.looks(state.step, state.schedule))


def segment(
    run: Run, sampling: Sampling, data: Data, state: RunState, stop: Step, count: int, nested: bool
) -> RunState:
    """Runs the steps up to `stop`, at most `count` of them, as loops on the device.

    `nested` puts the steps between two re-linearisations into an inner loop, so that what happens once per anchor costs
    nothing per step. Under `vmap` lanes with different schedules would wait for each other there; without it every
    step decides for itself.
    """
    batch_at = batch_reader(run, sampling, data, state.step, count)

    def alive(s: RunState) -> Flag:
        return (s.step < stop) & (s.diverged_at < 0)

    if run.ordinary:
        return _ordinary_loop(run, batch_at, state, stop)

    def one_step(s: RunState) -> RunState:
        return advance(run, s, batch_at(s.step))

    def until_due(s: RunState) -> RunState:
        def more(carry):
            s, fresh = carry
            return alive(s) & (fresh | ~asks(run, s))

        step = one_step
        if repeats(run, sampling):
            at_anchor = linearised(run, s, batch_at(s.step))
            step = lambda s: advance_on(run, s, at_anchor, batch_at(s.step))  # noqa: E731
        return jax.lax.while_loop(more, lambda c: (step(c[0]), jnp.zeros((), bool)), (s, jnp.ones((), bool)))[0]

    def body(s: RunState) -> RunState:
        s = jax.lax.cond(asks(run, s), lambda s: begin(run, s, batch_at(s.step)), lambda s: s, s)
        return until_due(s) if nested else one_step(s)

    return jax.lax.while_loop(alive, body, state)


def _ordinary_loop(run: Run, batch_at: Callable[[Step], Batch], state: RunState, stop: Step) -> RunState:
    """Ordinary training: the loop carries θ_t alone, and the last step keeps its anchor and displacement."""
    params, optimiser = state.solver.exact, state.solver.optimiser
    light = replace(state, solver=(params, optimiser))

    def more(s):
        return (s.step < stop - 1) & (s.diverged_at < 0)

    light = jax.lax.while_loop(more, lambda s: ordinary_advance(run, s, batch_at(s.step)), light)
    return ordinary_finish(run, light, batch_at(light.step))


def ordinary_advance(run: Run, light: Any, batch: Batch) -> Any:
    """One ordinary step on the pair (θ_t, optimiser state)."""
    (params, optimiser), (x, y) = light.solver, batch
    problem = run.problem.trained(light.variables)
    params, optimiser, loss, variables = _weight_space(run).ordinary_step(problem, params, optimiser, x, y)
    return _advanced(replace(light, variables=variables), (params, optimiser), loss, _with_ordinary_update(light))


def ordinary_finish(run: Run, light: Any, batch: Batch) -> RunState:
    """One ordinary step that ends in the full state."""
    (params, optimiser), (x, y) = light.solver, batch
    problem = run.problem.trained(light.variables)
    solver, loss, variables = _weight_space(run).ordinary_step_in_full(problem, params, optimiser, x, y)
    return _advanced(replace(light, variables=variables), solver, loss, _with_ordinary_update(light))


def whole(state: RunState) -> RunState:
    """The full state, about to re-linearise, where it is one between ordinary steps."""
    if isinstance(state.solver, SolverState):
        return state
    params, optimiser = state.solver
    return replace(state, solver=SolverState(params, jax.tree.map(jnp.zeros_like, params), optimiser, params))


def _with_ordinary_update(light: Any) -> Int[Array, ""]:
    return light.feature_updates + ((light.step > 0) & (light.diverged_at < 0))


def _weight_space(run: Run) -> WeightSpace:
    return cast(WeightSpace, run.solver)


def batch_reader(run: Run, sampling: Sampling, data: Data, start: Step, count: int) -> Callable[[Step], Batch]:
    """A function from a step in `start`, …, `start + count − 1` to its batch."""
    return reader_of_plan(run, sampling, data, plan(run, sampling, data, start, count))


def plan(run: Run, sampling: Sampling, data: Data, start: Step, count: int) -> State:
    num_examples = jax.tree.leaves(data)[0].shape[0]
    return sampling.batches.plan(jax.random.fold_in(run.key, 0), num_examples, start, count)


def reader_of_plan(run: Run, sampling: Sampling, data: Data, planned: State) -> Callable[[Step], Batch]:
    def batch_at(step: Step) -> Batch:
        indices = sampling.batches.indices(planned, step)
        batch = data if indices is None else jax.tree.map(lambda a: a[indices], data)
        return augmented(run, sampling, batch, step)

    return batch_at


def augmented(run: Run, sampling: Sampling, batch: Batch, step: Step) -> Batch:
    if sampling.augment is None:
        return batch
    key = jax.random.fold_in(jax.random.fold_in(run.key, 1), step)
    return sampling.augment(key, batch[0]), batch[1]


class WrongTarget(NamedTuple):
    """The first target seen that the loss is not made for."""

    step: Int[Array, ""]
    """−1 before there is one."""
    example: Int[Array, ""]
    value: Shaped[Array, ""]


def watched(run: Run, batch: Batch, step: Step, before: WrongTarget | None) -> WrongTarget | None:
    """What is wrong with the batches so far; `None` for a loss that takes any target."""
    x, y = batch
    apply = run.problem.trained(run.problem.variables).apply
    outputs = jax.eval_shape(lambda p, x: apply(p, x), run.params, x)  # JAX would compare traced networks
    asked = run.problem.loss.check_targets(outputs, y)
    if asked is None:
        return None
    wrong = ~asked.allowed.reshape(-1)
    place = jnp.argmax(wrong)
    example = jnp.asarray(place // (wrong.size // outputs.shape[0]), jnp.int32)
    now = WrongTarget(jnp.where(wrong[place], step, -1).astype(jnp.int32), example, asked.values.reshape(-1)[place])
    return now if before is None else _tree.select(before.step >= 0, before, now)


def not_finite(batch: Batch, step: Step, before: Int[Array, "3"] | None) -> Int[Array, "3"]:
    """The first batch that holds a number that is not finite: its step, −1 before there is one; whether it is among the
    targets; and the example."""
    inputs, targets = (_finite.first_row(part) for part in batch)
    now = jnp.stack([jnp.asarray(step, jnp.int32), jnp.int32(inputs < 0), jnp.where(inputs < 0, targets, inputs)])
    now = jnp.where((inputs < 0) & (targets < 0), -1, now)
    return now if before is None else jnp.where(before[0] < 0, now, before)


def forget_losses(state: RunState) -> RunState:
    """The state after a record: the running mean of the loss begins anew."""
    return replace(state, loss_sum=jnp.zeros_like(state.loss_sum), loss_count=jnp.zeros_like(state.loss_count))
