"""The training loop: one run, or many at once."""

import contextlib
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from relin._core import check as _check, finite as _finite
from relin._core.augment import AbstractAugmentation
from relin._core.batches import AbstractBatches, FullBatch, Shuffled
from relin._core.errors import Result
from relin._core.primitives import slow_in_loops
from relin._core.problem import Problem
from relin._core.types import Key, Params
from relin._logger import AbstractLogger, Log, Loggers
from relin._loop import validate as _validate
from relin._loop.compiled import Kind, derivative, separate
from relin._loop.drivers import (
    AbstractDriver,
    ArraySource,
    CompiledDriver,
    DataExhaustedError,
    HostDriver,
    IterableSource,
)
from relin._loop.ending import Known, Rows, constant_loss, lane_solutions, mean_loss_between, solution_of, with_lane
from relin._loop.program import Batch, Run, RunState, Sampling, whole
from relin._loop.reasons import Examples, Streamed, explained, warn_of_observers
from relin._loop.solution import LaneSolutions, Solution
from relin._loop.stretches import StretchDriver
from relin._observer import AbstractObserver
from relin._safeguard import AbstractSafeguard, check_safeguard
from relin._schedule import AbstractSchedule, Every
from relin._solver import AbstractSolver, AbstractStretchSolver
from relin.datasets._dataset import Dataset

Progress = Callable[[int, int], None]
Drive = Literal["auto", "compiled", "host"]
_End = TypeVar("_End")


def train(
    problem: Problem,
    solver: AbstractSolver,
    schedule: AbstractSchedule | int,
    params: Params,
    data: Batch | Dataset | Iterable[Batch],
    *,
    num_steps: int | float,
    batch_size: int | None = None,
    key: Key,
    observers: Sequence[AbstractObserver] = (),
    record_every: int | None = None,
    batches: AbstractBatches | None = None,
    augment: AbstractAugmentation | None = None,
    safeguard: AbstractSafeguard | None = None,
    drive: Drive = "auto",
    progress: Progress | None = None,
    loggers: Sequence[AbstractLogger] = (),
    throw: bool = True,
) -> Solution:
    """Trains a network by iterative linearisation (Goldwaser & Ge, arXiv:2211.12345).

    Before step t, if the schedule says so, the anchor moves to the current parameters. Then the solver takes one step
    on the network linearised at the anchor, f̄(x) = f(x; θ_s) + J_s(x) δ. With `Every(1)` this is ordinary training, bit
    for bit; with `Never()` it is lazy training.

    **Arguments:**

    - `problem`, `solver`, `schedule`: what is minimised, how the linearised problem is advanced, when features are
      updated; an integer K is `Every(K)`.
    - `params`: θ_0, a PyTree of floating-point arrays.
    - `data`: a pair `(x, y)` of arrays with leading axis N, a data set for its training part, or any other
      iterable of batches `(x, y)`, begun again when it ends.
    - `num_steps`: T; `math.inf` for the limit of lazy training, with `Never()`, the full batch and a solver that takes
      all steps at once.
    - `batch_size`: examples a step, drawn by shuffling once an epoch; `None` for all of them.
    - `key`: decides the batches and the augmentation, the same for every schedule and solver.
    - `observers`: what to measure, at step 0, every `record_every` steps (default: only at the end) and at the end.
    - `batches`: another way to draw them, such as `WithReplacement(64)`, instead of `batch_size`.
    - `augment`: a random change of each batch's inputs, inside the compiled step.
    - `safeguard`: may stop a re-linearisation short of the full displacement, such as `LineSearch()`; records then also
      hold `safeguard_scale`, of the last re-linearisation, and `safeguard_evaluations` of the network, so far.
    - `drive`: `"compiled"` runs all steps between two records as one program on the device; `"host"` calls one
      compiled step after another. `"auto"` takes the first, except for convolutions on CPU, which XLA runs many times
      slower inside a loop.
      A solver that takes many steps at once, an `AbstractStretchSolver`, has a driver of its own.
    - `progress`: called with (steps done, T).
    - `loggers`: where each record goes as it is made, such as `JSONLines("run.jsonl")`; they are not closed. One
      that fails is warned of and left out, and training goes on.
    - `throw`: whether a run that fails raises.

    **Returns:** a `Solution`. Its `result` is `failed_to_train` where the loss at the end is not at least 1 % below
    that of the best constant predictor, which is no error; an iterable of batches, whose targets are not known
    beforehand, is not judged, nor a single step, nor steps taken at once without a record on the way.

    **Raises:** `TypeError` and `ValueError` for input that cannot be trained; `TrainingError`, which carries the
    solution so far, if the run diverges or its data end, unless `throw=False`. Ctrl-C, and whatever an observer,
    `progress` or the iterable raises on the way, keeps its type and has the solution so far as its attribute
    `solution`: with the records made, the parameters after the last step that was computed, and the result
    `"interrupted"`; `None` before step 0.
    """
    _check.params(params)
    schedule = _as_schedule(schedule)
    _validate.parts(problem, solver, schedule)
    check_safeguard(safeguard)
    _validate.together(problem, solver, schedule, safeguard)
    _validate.helpers(observers, batches, augment, loggers)
    params = jax.tree.map(jnp.asarray, params)
    run = Run(problem, solver, _as_arrays(schedule), params, _check.key(key), safeguard)
    data = _validate.training_part(data)
    if not isinstance(data, Iterable):
        raise TypeError(f"`data` must be a pair (x, y) of arrays or an iterable of such pairs, got {data!r}; pass one.")
    in_memory, constant = isinstance(data, tuple), None
    sampling = Sampling(_batches(batch_size, batches, in_memory), augment)
    lane, make = separate(run)
    shared, recombine = separate((sampling, tuple(observers)))
    kind = Kind(make, recombine)
    steps, record_every = _validate.steps(run, sampling, num_steps, record_every, drive, ("auto", "compiled", "host"))
    longest = _longest_stretch(steps, record_every)
    report = _reporter(progress, steps)
    arguments = kind, lane, shared
    if isinstance(data, tuple):
        batch = _as_batch(data)
        examples = Examples(arguments, batch)
        _check_data(run, sampling, batch)
        constant = constant_loss(problem, params, batch)
        if isinstance(solver, AbstractStretchSolver):
            driver = StretchDriver(kind, lane, shared, batch, steps, report)
        elif _drive(drive, run, batch) == "compiled":
            driver = CompiledDriver(kind, "single", lane, shared, batch, longest)
        else:
            driver = HostDriver(*arguments, ArraySource(arguments, batch, steps), report)
    elif isinstance(solver, AbstractStretchSolver):
        raise ValueError(
            f"{type(solver).__name__} sees the same examples again and again, got an iterable of batches; pass a tuple "
            "(x, y) of arrays, or use WeightSpace."
        )
    elif drive == "compiled":
        raise ValueError(
            'An iterable of batches must be driven from the host, got drive="compiled"; pass drive="auto", or a tuple '
            "(x, y) of arrays."
        )
    else:
        solver.check(problem, schedule, sampling.batches, params)
        source = IterableSource(arguments, data, lambda batch: _validate.targets(problem, params, batch))
        examples = Streamed(source)
        _validate.network(problem, params, examples.first)
        driver = HostDriver(*arguments, source, report)
    _validate.shown(problem, params, (observers, safeguard, schedule))
    conclude = partial(solution_of, Known(problem.mode, constant))
    solution = _follow(driver, steps, record_every, report, Loggers(loggers).of_run(), conclude)
    solution = explained(solution, run, examples, thorough=throw)
    warn_of_observers(solution, run, observers)
    return solution.throw() if throw else solution


def train_lanes(
    make: Callable[[Any], Run],
    lanes: PyTree,
    data: Batch | Dataset,
    *,
    num_steps: int,
    batch_size: int | None = None,
    observers: Sequence[AbstractObserver] = (),
    record_every: int | None = None,
    batches: AbstractBatches | None = None,
    augment: AbstractAugmentation | None = None,
    drive: Literal["auto", "map", "vmap", "host"] = "auto",
    progress: Progress | None = None,
    loggers: Sequence[AbstractLogger] = (),
) -> LaneSolutions:
    """Trains many runs in one compiled program, spread over the devices there are.

    **Arguments:**

    - `make`: from one lane's arrays, possibly traced, to its `Run(problem, solver, schedule, params, key)`, with a
      safeguard last if there is one. The same function object finds its compiled program again.
    - `lanes`: a PyTree of arrays with a leading axis of lanes: periods, learning rates, seeds, keys, ….
    - `drive`: `"vmap"` advances all lanes together, `"map"` one after another in the same program, `"host"` one after
      another by single steps. `"auto"` takes the first on accelerators and the second on CPU, where small networks stay
      in the cache; the third for convolutions on CPU.
    - the others as for `train`.

    **Returns:** `LaneSolutions`, one `Solution` a lane, each what the same run gives alone. Divergence and
    failure to train are recorded, never raised.

    **Raises:** as `train`; the attribute `solution` of an error on the way is `LaneSolutions`, of the lanes begun.
    """
    lanes = jax.tree.map(jnp.asarray, lanes)
    num_lanes = _validate.lanes(lanes)
    first = make(jax.tree.map(lambda a: a[0], lanes))
    if not isinstance(first, Run):
        raise TypeError(f"`make` must return a relin.Run, got {type(first).__name__}; see its documentation.")
    _validate.helpers(observers, batches, augment, loggers)
    _check.params(first.params)
    _validate.parts(first.problem, first.solver, first.schedule)
    check_safeguard(first.safeguard)
    _validate.together(first.problem, first.solver, first.schedule, first.safeguard)
    _check.key(first.key)
    sampling = Sampling(_batches(batch_size, batches, True), augment)
    num_steps, record_every = _validate.steps(
        first, sampling, num_steps, record_every, drive, ("auto", "map", "vmap", "host")
    )
    shared, recombine = separate((sampling, tuple(observers)))
    kind = Kind(make, recombine)
    data = _as_batch(_validate.training_part(data))
    _check_data(first, sampling, data)
    _validate.shown(first.problem, first.params, (observers, first.safeguard, first.schedule))
    stretches = isinstance(first.solver, AbstractStretchSolver)
    if stretches:
        drive = "host"
    if drive == "auto":
        drive = "map" if jax.default_backend() == "cpu" else "vmap"
        drive = "host" if _drive("auto", first, data) == "host" else drive
    logs = Loggers(loggers)
    known = Known(first.problem.mode, constant_loss(first.problem, first.params, data))
    if drive == "host":
        found = LaneSolutions(())
        for index in range(num_lanes):
            arguments = (kind, jax.tree.map(lambda a, index=index: a[index], lanes), shared)
            report = _reporter(progress, num_lanes * num_steps, index * num_steps)
            if stretches:
                driver = StretchDriver(*arguments, data, num_steps, report)
            else:
                driver = HostDriver(*arguments, ArraySource(arguments, data, num_steps), report)
            conclude = partial(with_lane, known, found)
            found = _follow(driver, num_steps, record_every, report, logs.of_run(index), conclude, found)
        return _explained(found, kind, lanes, shared, data, observers)
    padded = _pad(lanes, -num_lanes % jax.device_count())
    driver = CompiledDriver(kind, drive, padded, shared, data, _longest_stretch(num_steps, record_every))
    report = _reporter(progress, num_steps)
    conclude = partial(lane_solutions, known, num_lanes)
    found = _follow(driver, num_steps, record_every, report, logs.of_lanes(num_lanes), conclude)
    return _explained(found, kind, lanes, shared, data, observers)


def _explained(
    found: LaneSolutions, kind: Kind, lanes: PyTree, shared: PyTree, data: Batch, observers: Sequence[AbstractObserver]
) -> LaneSolutions:
    """The solutions with the reasons of what failed: of the data, and of the network at the first two steps. Observers
    are looked at in the first lane."""
    clean, solutions = None, []
    for index, solution in enumerate(found):
        if solution.diverged_at is not None and clean is None:
            clean = _finite.everywhere(data)
        lane = jax.tree.map(lambda a, index=index: a[index], lanes)
        examples = Examples((kind, lane, shared), data, clean)
        solutions.append(explained(solution, kind.make(lane), examples, thorough=False))
        if index == 0:
            warn_of_observers(solution, kind.make(lane), observers)
    return LaneSolutions(tuple(solutions))


def _follow(
    driver: AbstractDriver,
    num_steps: int,
    record_every: int | None,
    report: Callable[[int], None],
    log: Log,
    conclude: Callable[..., _End],
    before: _End | None = None,
) -> _End:
    """What `conclude` makes of the state, the records, the result and the final loss at the end, or where all lanes
    diverged or the data ended. Where an error ends the run, that is the error's `solution`, and `before` if it never
    began."""
    state, rows, final = None, Rows(), None
    try:
        state, observed = driver.init()

        def record(step: int) -> None:
            nonlocal state, observed
            assert state is not None
            row, state, observed = driver.observe(state, observed)
            rows.append({"step": step, **row})
            log(step, row, state.diverged_at)

        record(0)
        start = 0
        while start < num_steps:
            stop = min(start + (record_every or num_steps), num_steps)
            try:
                late = _last_tenth(num_steps) if driver.by_steps and (start, stop) == (0, num_steps) else 0
                if late:
                    earlier = state = driver.run(state, start, late)
                    state = driver.run(state, late, stop)
                    final = mean_loss_between(earlier, state)
                else:
                    state = driver.run(state, start, stop)
            except DataExhaustedError as end:
                state = end.state
                if rows[-1]["step"] < end.step:
                    record(end.step)
                return conclude(state, rows, Result.data_exhausted)
            driver.reached = None
            record(stop)
            report(stop)
            if np.all(np.asarray(state.diverged_at) >= 0):
                break
            start = stop
    except BaseException as error:
        _carry(error, (driver.reached, state), rows, conclude, before)
        raise
    return conclude(state, rows, Result.successful, final)


def _last_tenth(num_steps: int) -> int:
    """The step with which the last tenth of the steps begins; 0 of a single step."""
    return num_steps - -(-num_steps // 10)


def _carry(
    error: BaseException,
    states: Sequence[RunState | None],
    rows: Rows,
    conclude: Callable[..., Any],
    solution: Any,
) -> None:
    """Makes the solution so far an attribute of the error: of the first of these states that was computed."""
    for state in filter(None, states):
        with contextlib.suppress(Exception):  # where the device failed, reading what it was to compute fails again
            solution = conclude(jax.block_until_ready(whole(state)), rows, Result.interrupted)
            error.add_note(f"The solution after {np.max(state.step)} steps is this error's `solution`.")
            break
    with contextlib.suppress(AttributeError):  # some errors take none
        error.solution = solution  # pyright: ignore[reportAttributeAccessIssue]


def _as_schedule(schedule: Any) -> AbstractSchedule:
    """`Every(K)` for an integer K; anything else as it is."""
    return Every(operator.index(schedule)) if _check.is_integer(schedule) else schedule


def _as_arrays(schedule: AbstractSchedule) -> AbstractSchedule:
    """The schedule with its numbers as arrays, so that one program serves every K; ordinary training keeps its own."""
    if schedule.every_step:
        return schedule
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, int | float | np.ndarray) else leaf, schedule
    )


def _as_batch(data: tuple) -> Batch:
    _validate.arrays(data)
    x, y = jax.tree.map(jnp.asarray, data)
    return x, y


def _batches(batch_size: int | None, batches: AbstractBatches | None, in_memory: bool) -> AbstractBatches:
    if not in_memory and not (batch_size is None and batches is None):
        raise ValueError(
            f"An iterable of batches must decide its own batch size, got batch_size={batch_size} and "
            f"batches={batches}; leave both out, or pass a tuple (x, y) of arrays."
        )
    if batches is None:
        if isinstance(batch_size, np.integer):
            batch_size = operator.index(batch_size)
        return FullBatch() if batch_size is None else Shuffled(batch_size)
    if batch_size is not None:
        raise ValueError(
            f"Either `batch_size` or `batches` must be given, got both {batch_size} and {batches}; leave one out."
        )
    return batches


def _check_data(run: Run, sampling: Sampling, data: Batch) -> None:
    num_examples = _validate.arrays(data)
    sampling.batches.check(num_examples)
    run.solver.check(run.problem, run.schedule, sampling.batches, run.params)
    _validate.network(run.problem, run.params, data)


def _drive(drive: Drive, run: Run, data: Batch) -> Literal["compiled", "host"]:
    if drive != "auto":
        return drive
    arrays, make = separate(run.problem.trained(run.problem.variables))
    return "host" if slow_in_loops(partial(derivative, make), arrays, run.params, *data) else "compiled"


def _longest_stretch(num_steps: int, record_every: int | None) -> int:
    return min(record_every or num_steps, num_steps)


def _pad(lanes: PyTree, extra: int) -> PyTree:
    """The lanes and `extra` copies of the last one, so that every device gets equally many."""
    return jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], extra, axis=0)]), lanes)


def _reporter(progress: Progress | None, total: int, offset: int = 0) -> Callable[[int], None]:
    return (lambda step: None) if progress is None else lambda step: progress(offset + step, total)
