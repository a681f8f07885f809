"""The training loop: one run, or many at once."""

import contextlib
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from relin._core import check as _check, finite as _finite
from relin._core.augment import AbstractAugmentation
from relin._core.batches import AbstractBatches
from relin._core.problem import Problem
from relin._core.types import Key, Params
from relin._logger import AbstractLogger, Loggers
from relin._loop import validate as _validate
from relin._loop.checkpoint import Checkpoint
from relin._loop.course import Course, Stop
from relin._loop.ending import lane_solutions, solution_of, with_lane
from relin._loop.identity import journal_of, keeper_of, reached_by
from relin._loop.placement import for_lanes, placement_of
from relin._loop.preparation import Drive, LaneDrive, driver_of, prepared
from relin._loop.program import Batch, Run
from relin._loop.reasons import Examples, explained, warn_of_observers
from relin._loop.solution import LaneSolutions, Solution
from relin._loop.watching import Progress as Progress, Report, watched
from relin._observer import AbstractObserver
from relin._safeguard import AbstractSafeguard
from relin._schedule import AbstractSchedule, Every
from relin._solver import AbstractSolver
from relin.datasets._dataset import Dataset


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
    progress: Progress | bool | None = None,
    loggers: Sequence[AbstractLogger] = (),
    checkpoint: Checkpoint | None = None,
    resume: Solution | None = None,
    stop: Stop | None = None,
    throw: bool = True,
    mesh: Mesh | None = None,
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
      iterable of batches `(x, y)`, started again when it ends.
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
      A solver that takes many steps at once, an `AbstractMultiStepSolver`, has a driver of its own.
    - `progress`: called with (steps done, T). `None` shows a progress bar where stderr is a terminal or, with
      ipywidgets, a notebook, in the main thread; `False` shows none, `True` shows it in any thread, and as a few
      lines on stderr where that is a file or a pipe.
    - `loggers`: where each record goes as it is made, such as `JSONLines("run.jsonl")`; they are not closed. One
      that fails is warned of and left out, and training goes on.
    - `checkpoint`: where the state is kept; the same call goes on from it, with the same bits at the end.
    - `resume`: a solution of the same run, from whose last step it goes on to step T. What decides the run is not
      compared; it may be another optimiser's rate, for example. It goes without `checkpoint`.
    - `stop`: called with each record, its numbers by name; where it says so the run ends in good order, with the result
      `stopped`. `EarlyStopping` is one.
    - `throw`: whether a run that fails raises.
    - `mesh`: a `jax.sharding.Mesh` of the devices that share the run. Each batch's examples are split over its axes
      `data` and `fsdp`, and each parameter over `fsdp`, along its largest axis that `fsdp` divides; what has none is
      on every device. Anchor, displacement and optimiser state lie as the parameters do. Parameters of which one
      comes split, and data that come split, stay as they are. Without `mesh` a run takes the mesh on which its
      parameters or its data come, or that `jax.set_mesh` set; explicit axes are taken as automatic ones.

    **Returns:** a `Solution`. Its `result` is `failed_to_train` where the loss at the end is not at least 1 % below
    that of the best constant predictor, which is no error; an iterable of batches, whose targets are not known
    beforehand, is not judged, nor a single step, nor steps taken at once without a record on the way.

    **Raises:** `TypeError` and `ValueError` for input that cannot be trained; `TrainingError`, which carries the
    solution so far, if the run diverges or its data end, unless `throw=False`. Ctrl-C, and whatever an observer,
    `progress` or the iterable raises on the way, keeps its type and has the solution so far as its attribute
    `solution`: with the records made, the parameters after the last step that was computed, and the result
    `"interrupted"`; `None` before step 0.
    """
    placement = placement_of(mesh, params, data)
    with placement.entered() if placement else contextlib.nullcontext():
        run = Run(problem, solver, _as_schedule(schedule), params, key, safeguard)
        options = num_steps, record_every, batch_size, batches, augment, observers, loggers
        plan = prepared(run, data, *options, drive, ("auto", "compiled", "host"), placement)
        with watched(progress, plan.num_steps) as told:
            programs, report = plan.programs(_as_it_is, plan.run), Report(told, plan.num_steps)
            driver, examples = driver_of(plan, programs, report)
            keeper = keeper_of(checkpoint, plan, record_every)
            begun = reached_by(resume, data, plan.num_steps, keeper)
            log, conclude = Loggers(loggers).of_run(None, journal_of(keeper)), partial(solution_of, plan.known)
            solution = Course(driver, plan, report, log, conclude, None, keeper, begun, stop).follow()
        if placement and placement.mesh.is_multi_process:  # no process can read all numbers
            solution = explained(solution, plan.run, None, thorough=False)
        else:
            solution = explained(solution, plan.run, examples, thorough=throw)
            warn_of_observers(solution, plan.run, observers)
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
    drive: LaneDrive = "auto",
    progress: Progress | bool | None = None,
    loggers: Sequence[AbstractLogger] = (),
    checkpoint: Checkpoint | None = None,
) -> LaneSolutions:
    """Trains many runs in one compiled program, spread over the devices of this process, each run on one of them.

    **Arguments:**

    - `make`: from one lane's arrays, possibly traced, to its `Run(problem, solver, schedule, params, key)`, with a
      safeguard last if there is one. The same function object finds its compiled program again.
    - `lanes`: a PyTree of arrays with a leading axis of lanes: periods, learning rates, seeds, keys, ….
    - `drive`: `"vmap"` advances all lanes together, `"map"` one after another in the same program, `"host"` one after
      another by single steps. `"auto"` takes the first on accelerators and the second on CPU, where small networks stay
      in the cache; the third for convolutions on CPU.
    - `checkpoint`: as for `train`; lanes that run together are kept together.
    - the others as for `train`.

    **Returns:** `LaneSolutions`, one `Solution` a lane, each what the same run gives alone. Divergence and
    failure to train are recorded, never raised.

    **Raises:** as `train`; the attribute `solution` of an error on the way is `LaneSolutions`, of the lanes begun.
    """
    data, placement = for_lanes(_validate.training_part(data))
    with placement.entered() if placement else contextlib.nullcontext():
        lanes = jax.tree.map(jnp.asarray, lanes)
        num_lanes = _validate.lanes(lanes)

        def lane_of(index: int) -> PyTree:
            return jax.tree.map(lambda a: a[index], lanes)

        first = make(lane_of(0))
        if not isinstance(first, Run):
            raise TypeError(f"`make` must return a relin.Run, got {type(first).__name__}; see its documentation.")
        _check_lanes(make, lane_of, num_lanes)
        options = num_steps, record_every, batch_size, batches, augment, observers, loggers
        plan = prepared(first, data, *options, drive, ("auto", "map", "vmap", "host"))
        logs, clean, solutions = Loggers(loggers), None, []
        with watched(progress, plan.num_steps) as told:
            if plan.drive in ("map", "vmap"):
                padded, report = _pad(lanes, -num_lanes % jax.local_device_count()), Report(told, plan.num_steps)
                driver, _ = driver_of(plan, plan.programs(make, padded), report)
                conclude, keeper = (
                    partial(lane_solutions, plan.known, num_lanes),
                    keeper_of(checkpoint, plan, record_every, make, lanes),
                )
                log = logs.of_lanes(num_lanes, journal_of(keeper))
                found = Course(driver, plan, report, log, conclude, None, keeper).follow()
            else:
                found = LaneSolutions(())
                for index in range(num_lanes):
                    report = Report(told, num_lanes * plan.num_steps, index * plan.num_steps)
                    programs = plan.programs(make, lane_of(index))
                    driver, _ = driver_of(plan, programs, report)
                    own = checkpoint and checkpoint.of_lane(index)
                    keeper = keeper_of(own, replace(plan, run=programs.setup.run), record_every)
                    conclude = partial(with_lane, plan.known, found)
                    log = logs.of_run(index, journal_of(keeper))
                    found = Course(driver, plan, report, log, conclude, found, keeper).follow()
        for index, solution in enumerate(found):
            if solution.diverged_at is not None and clean is None:
                clean = _finite.everywhere(plan.data)
            programs = plan.programs(make, lane_of(index), one=True)
            run = programs.setup.run
            solutions.append(explained(solution, run, Examples(programs, plan.data, clean), thorough=False))
            if index == 0:
                warn_of_observers(solution, run, observers)
        return LaneSolutions(tuple(solutions))


def _check_lanes(make: Callable[[Any], Run], lane_of: Callable[[int], PyTree], num_lanes: int) -> None:
    """Makes the runs of all other lanes, so that numbers that are out of range in one are refused before training."""
    for index in range(1, num_lanes):
        lane = lane_of(index)
        with contextlib.suppress(jax.errors.JAXTypeError):  # a run that is made of values that it computes
            eqx.filter_eval_shape(lambda: make(lane))  # noqa: B023  traced: initial parameters are not computed


def _as_schedule(schedule: Any) -> Any:
    """`Every(K)` for an integer K. A schedule's numbers are made arrays, so that one program serves every K; ordinary
    training keeps its own."""
    schedule = Every(operator.index(schedule)) if _check.is_integer(schedule) else schedule
    if not isinstance(schedule, AbstractSchedule) or schedule.every_step:
        return schedule
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, int | float | np.ndarray) else leaf, schedule
    )


def _as_it_is(run: Run) -> Run:
    return run


def _pad(lanes: PyTree, extra: int) -> PyTree:
    """The lanes and `extra` copies of the last one, so that every device gets equally many."""
    return jax.tree.map(lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], extra, axis=0)]), lanes)
