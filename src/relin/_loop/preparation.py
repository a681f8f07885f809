"""From the arguments of `train` and `train_lanes`, checked, to what is run and the driver that runs it."""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from relin._core import check as _check
from relin._core.batches import AbstractBatches, FullBatch, Shuffled
from relin._core.compiler import check_sums
from relin._core.primitives import slow_in_loops
from relin._loop import validate as _validate
from relin._loop.compiled import Programs, linearised_step
from relin._loop.drivers import AbstractDriver, DeviceDriver, HostDriver
from relin._loop.ending import Known, constant_loss
from relin._loop.multi_step import MultiStepDriver
from relin._loop.partition import hashable_partition
from relin._loop.placement import Placement, given as as_given
from relin._loop.program import Batch, Run, Sampling
from relin._loop.reasons import Examples, Streamed
from relin._loop.sources import ArraySource, IterableSource
from relin._observer import AbstractObserver
from relin._solver import AbstractMultiStepSolver

Drive = Literal["auto", "compiled", "host"]
LaneDrive = Literal["auto", "map", "vmap", "host"]


@dataclass(frozen=True)
class Plan:
    """What `train` and `train_lanes` run."""

    run: Run
    """The run, or the first lane's."""
    data: Any
    """A pair (x, y) of arrays, or an iterable of such batches."""
    sampling: Sampling
    observers: tuple[AbstractObserver, ...]
    num_steps: int
    interval: int
    """Steps between two records."""
    drive: Literal["multi-step", "host", "compiled", "map", "vmap"]
    known: Known
    placement: Placement | None = None

    def programs(self, make: Callable[[PyTree], Run], lanes: PyTree, one: bool = False) -> Programs:
        """The programs of the run that `make` makes of a lane, or of many where the drive runs them together, unless
        only one is meant."""
        over = "one" if one or self.drive not in ("map", "vmap") else self.drive
        return Programs(make, lanes, self.sampling, self.observers, self.num_steps, over, self.placement)


def prepared(
    run: Run,
    data: Any,
    num_steps: int | float,
    record_every: int | None,
    batch_size: int | None,
    batches: AbstractBatches | None,
    augment: Any,
    observers: Sequence[AbstractObserver],
    loggers: Any,
    drive: str,
    drives: tuple[str, ...],
    placement: Placement | None = None,
) -> Plan:
    """Raises `TypeError` or `ValueError` for input that cannot be trained."""
    check_sums()
    _check.params(run.params)
    _validate.parts(run.problem, run.solver, run.schedule)
    _validate.together(run.problem, run.solver, run.schedule, run.safeguard)
    _validate.helpers(observers, batches, augment, loggers)
    run = replace(run, key=_check.key(run.key))
    if placement is None:
        run = replace(run, params=jax.tree.map(jnp.asarray, run.params))
    else:
        params, placement = placement.with_params(run.params)
        run = replace(placement.placed(replace(run, params=())), params=params)
    if isinstance(run.solver, AbstractMultiStepSolver) and placement is not None and placement.mesh.is_multi_process:
        raise ValueError(
            f"{type(run.solver).__name__} reads what all devices hold, got a mesh over several processes; pass one of "
            "the devices of this process, or use WeightSpace."
        )
    data, many = _validate.training_part(data), "map" in drives
    if not isinstance(data, tuple) and (many or not isinstance(data, Iterable)):
        others = "" if many else " or an iterable of such pairs"
        raise TypeError(f"`data` must be a pair (x, y) of arrays{others}, got {data!r}; pass one.")
    sampling = Sampling(_batches(batch_size, batches, isinstance(data, tuple)), augment)
    num_steps, record_every = _validate.steps(run, sampling, num_steps, record_every, drive, drives)
    interval = min(record_every or num_steps, num_steps)
    given = run, data, sampling, tuple(observers), num_steps, interval
    if not isinstance(data, tuple):
        _check_iterable(run, sampling, drive)
        return Plan(*given, "host", Known(run.problem.mode, None), placement)
    sampling.batches.check(_validate.arrays(data))
    run.solver.check(run.problem, run.schedule, sampling.batches, run.params)
    data = tuple(jax.tree.map(jnp.asarray if placement is None else as_given, data))
    data = data if placement is None else placement.placed(data, split=True)
    seen = data if placement is None else placement.readable(data)
    _validate.network(run.problem, run.params, seen)
    _validate.shown(run.problem, run.params, (observers, run.safeguard, run.schedule, run.solver))
    known = Known(run.problem.mode, constant_loss(run.problem, run.params, seen))
    return replace(Plan(*given, _drive(run, data, drive, many), known, placement), data=data)


def _drive(run: Run, data: Batch, drive: Any, many: bool) -> Any:
    if isinstance(run.solver, AbstractMultiStepSolver):
        return "multi-step"
    if drive != "auto":
        return drive
    arrays, static = hashable_partition(run.problem.trained(run.problem.variables))
    if slow_in_loops(partial(linearised_step, static), arrays, run.params, run.params, *data):
        return "host"
    return ("map" if jax.default_backend() == "cpu" else "vmap") if many else "compiled"


def driver_of(
    plan: Plan, programs: Programs, report: Callable[[int], None]
) -> tuple[AbstractDriver, Examples | Streamed]:
    """The driver of a plan's programs, and the examples that they train on."""
    run, data = plan.run, plan.data
    if not isinstance(data, tuple):
        check = partial(_validate.targets, run.problem, run.params)
        source = IterableSource(programs, data, check, plan.num_steps)
        streamed = Streamed(source)
        first = streamed.first if plan.placement is None else plan.placement.readable(streamed.first)
        _validate.network(run.problem, run.params, first)
        _validate.shown(run.problem, run.params, (plan.observers, run.safeguard, run.schedule, run.solver))
        return HostDriver(programs, source, report), streamed
    examples = Examples(programs, data)
    if plan.drive == "multi-step":
        return MultiStepDriver(programs, data, plan.num_steps, report), examples
    if plan.drive == "host":
        return HostDriver(programs, ArraySource(programs, data, plan.num_steps), report), examples
    return DeviceDriver(programs, data, plan.interval), examples


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


def _check_iterable(run: Run, sampling: Sampling, drive: str) -> None:
    if isinstance(run.solver, AbstractMultiStepSolver):
        raise ValueError(
            f"{type(run.solver).__name__} sees the same examples again and again, got an iterable of batches; pass a "
            "tuple (x, y) of arrays, or use WeightSpace."
        )
    if drive == "compiled":
        raise ValueError(
            'An iterable of batches must be driven from the host, got drive="compiled"; pass drive="auto", or a tuple '
            "(x, y) of arrays."
        )
    run.solver.check(run.problem, run.schedule, sampling.batches, run.params)
