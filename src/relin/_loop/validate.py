"""What is wrong with the input of a run, in one sentence, before anything is compiled."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from relin._core import check as _check
from relin._core.augment import AbstractAugmentation
from relin._core.batches import AbstractBatches, FullBatch
from relin._core.forward_mode import check_rules
from relin._core.loss import TargetCheck
from relin._core.loss_contract import check_contract, check_shapes
from relin._core.primitives import backward_only, primitives
from relin._core.problem import Problem
from relin._core.randomness import RandomnessError
from relin._core.types import Inputs, Params
from relin._logger import AbstractLogger
from relin._loop.compiled import linearised_step, watched_outputs
from relin._loop.partition import hashable_partition
from relin._loop.program import Batch, Run, Sampling
from relin._observer import AbstractObserver
from relin._safeguard import AbstractSafeguard, check_safeguard
from relin._schedule import AbstractSchedule, Never
from relin._solver import AbstractMultiStepSolver, AbstractSolver, WeightSpace
from relin.datasets._dataset import Dataset


def parts(problem: Any, solver: Any, schedule: Any) -> None:
    """Raises `TypeError` unless a run is made of the right kinds of objects."""
    for value, kind, name, example in (
        (problem, Problem, "problem", "Problem(apply, relin.CrossEntropy())"),
        (solver, AbstractSolver, "solver", "WeightSpace(optax.sgd(0.1))"),
        (schedule, AbstractSchedule, "schedule", "Every(64)"),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"`{name}` must be a relin {name}, got {value!r}; pass for example relin.{example}.")


def together(
    problem: Problem, solver: AbstractSolver, schedule: AbstractSchedule, safeguard: AbstractSafeguard | None
) -> None:
    """Raises `ValueError` for parts of a run that make no sense together, `TypeError` for no safeguard."""
    check_safeguard(safeguard)
    if problem.taylor.order != 1 and not isinstance(solver, WeightSpace):
        raise ValueError(
            f"{type(solver).__name__} solves the linearised problem, got {problem.taylor}; leave `taylor` out, or use "
            "WeightSpace."
        )
    if not schedule.partial:
        return
    if not (isinstance(solver, WeightSpace) and solver.on_relinearise == "keep"):
        raise ValueError(
            "PerParameter must be used with WeightSpace(optimiser), which keeps the optimiser's state where some "
            f"parameters are re-linearised, got {solver}; pass that, or one schedule for all parameters."
        )
    if safeguard is not None:
        raise ValueError(
            f"PerParameter must be used without a safeguard, got {type(safeguard).__name__}, which judges a move of "
            "all parameters; leave it out, or pass one schedule for all parameters."
        )


def helpers(observers: Any, batches: Any, augment: Any, loggers: Any) -> None:
    """Raises `TypeError` unless what is passed beside a run's parts is of the right kinds."""
    if not isinstance(observers, list | tuple) or not all(isinstance(o, AbstractObserver) for o in observers):
        raise TypeError(f"`observers` must be a list of relin observers, got {observers!r}; pass [relin.Movement()].")
    if batches is not None and not isinstance(batches, AbstractBatches):
        raise TypeError(
            f"`batches` must be one such as relin.WithReplacement(64), got {batches!r}; or pass batch_size."
        )
    if augment is not None and not isinstance(augment, AbstractAugmentation):
        raise TypeError(
            f"`augment` must be one such as relin.Flip(), got {augment!r}; subclass relin.AbstractAugmentation."
        )
    if not isinstance(loggers, list | tuple) or not all(isinstance(logger, AbstractLogger) for logger in loggers):
        raise TypeError(f"`loggers` must be a list of relin loggers, got {loggers!r}; pass [relin.JSONLines(path)].")


def training_part(data: Any) -> Any:
    """The training part of a data set; anything else as it is."""
    return data.train if isinstance(data, Dataset) else data


def lanes(tree: PyTree) -> int:
    """The number of lanes; raises `ValueError` unless all arrays have a leading axis of as many."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"`lanes` must hold arrays with one leading axis of lanes, got shapes {shapes}; stack one entry a lane."
        )
    return sizes.pop()


def arrays(data: Batch) -> int:
    """The number of examples; raises unless all arrays of (x, y) have that many rows."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(data)):
        raise TypeError(
            "`data` must be concrete arrays, got traced ones; call train outside jax.jit and jax.vmap (it compiles its "
            "own loops), and train_lanes for many runs at once."
        )
    leaves = jax.tree.leaves(data)
    _check.numeric(data)
    shapes = {getattr(leaf, "shape", None) for leaf in leaves}
    if len(data) != 2 or not leaves or None in shapes or () in shapes:
        raise TypeError(
            f"`data` must be a pair (x, y) of arrays, got a tuple of {len(data)} with shapes {shapes}; convert both to "
            "arrays with a leading axis of examples, or pass a list or another iterable of such pairs."
        )
    sizes = {shape[0] for shape in shapes if shape}
    if len(sizes) != 1:
        raise ValueError(
            f"Inputs and targets must have the same number of examples, got {sorted(sizes)}; check `data`."
        )
    if not sizes - {0}:
        raise ValueError("`data` must hold at least one example, got none; check how it was selected.")
    return sizes.pop()


def steps(
    run: Run, sampling: Sampling, num_steps: int | float, record_every: int | None, drive: str, drives: tuple[str, ...]
) -> tuple[int, int | None]:
    """`num_steps`, which may be infinite, and `record_every` as Python's integers; raises unless these and `drive` go
    together with the run."""
    multi_step = isinstance(run.solver, AbstractMultiStepSolver)
    if multi_step and run.problem.variables is not None:
        raise ValueError(
            f"{type(run.solver).__name__} needs a network that is the same at every step, got one trained with "
            f"{run.problem.mode}; freeze it, or use WeightSpace."
        )
    if num_steps == math.inf:
        whole = multi_step and isinstance(run.schedule, Never) and isinstance(sampling.batches, FullBatch)
        if not whole or record_every is not None:
            raise ValueError(
                "Infinitely many steps need a solver that takes them at once, such as SpectralDescent, with Never(), "
                "the full batch and no `record_every`; pass these, or a number of steps."
            )
        num_steps = cast(int, math.inf)
    else:
        num_steps = _check.count(num_steps, "num_steps", "pass the number of steps to train")
        if num_steps > _check.LARGEST_COUNT and not multi_step:
            raise ValueError(
                f"`num_steps` must be at most {_check.LARGEST_COUNT:,}, got {num_steps:,}; train on from the solution."
            )
    if multi_step and sampling.augment is not None:
        raise ValueError(
            f"{type(run.solver).__name__} sees the same examples again and again, got `augment`; leave it out, or use "
            "WeightSpace."
        )
    if multi_step and drive not in ("auto", "host"):
        raise ValueError(
            f"{type(run.solver).__name__} is driven from the host, got drive={drive!r}; leave `drive` out."
        )
    if record_every is not None:
        remedy = "pass the steps between two records, or None for the end only"
        record_every = _check.count(record_every, "record_every", remedy)
    if drive not in drives:
        raise ValueError(f'`drive` must be one of {drives}, got {drive!r}; pass "auto" unless you know better.')
    return cast(int, num_steps), record_every


def undrawn(problem: Problem, params: Params, x: Inputs) -> None:
    """Raises `RandomnessError` for a network that draws random numbers while it is traced."""
    arrays, static = hashable_partition(problem)
    jax.eval_shape(partial(watched_outputs, static), arrays, params, x)


def draws(problem: Problem, params: Params, x: Inputs) -> bool:
    """Whether the network draws random numbers while it is traced."""
    try:
        undrawn(problem, params, x)
    except RandomnessError:
        return True
    return False


def network(problem: Problem, params: Params, batch: Batch) -> None:
    """Raises unless the network and the loss take this batch and can be linearised."""
    problem = problem.trained(problem.variables)
    undrawn(problem, params, batch[0])
    targets(problem, params, batch)
    arrays, static = hashable_partition(problem)
    linearisable(problem, params, batch[0], partial(linearised_step, static), arrays, params, params, *batch)
    check_rules(problem.apply, params, batch[0])


def linearisable(problem: Problem, params: Params, x: Inputs, step: Callable, *arguments: Any) -> None:
    """Raises unless the network has the derivatives that this linearised step takes of it."""
    if "custom_lin" in primitives(step, *arguments):  # custom_vjp's tangent
        raise ValueError(no_forward_mode(backward_only(problem.apply, params, x)))


def shown(problem: Problem, params: Params, parts: PyTree) -> None:
    """Raises unless the loss takes what observers, safeguards and schedules show it, and observers take the network."""
    for part in jax.tree.leaves(parts, is_leaf=lambda part: hasattr(part, "labelled")):
        if isinstance(part, AbstractObserver):
            part.check(problem.evaluated(problem.variables), params)
        for name, pair in getattr(part, "labelled", {}).items():
            with naming(f"`{name}` of {type(part).__name__}"):
                arrays(pair)
                targets(problem, params, pair)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Says of errors inside where they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"In {place}: {error}") from error


def targets(problem: Problem, params: Params, batch: Batch) -> TargetCheck | None:
    """What the loss says of these targets, all of them right; raises if one is not, or the network's outputs are none,
    or the loss does not keep its contract."""
    x, y = batch
    outputs = outputs_of(problem, params, x)
    check_shapes(problem.loss, outputs, y)
    check_contract(problem.loss, outputs, y)
    found = problem.loss.check_targets(outputs, y)
    if found is not None and (wrong := np.argwhere(~np.asarray(found.allowed))).size:
        first = tuple(int(i) for i in wrong[0])
        raise ValueError(wrong_target(found, np.asarray(found.values)[first], first[0]))
    return found


def outputs_of(problem: Problem, params: Params, x: Inputs) -> jax.ShapeDtypeStruct:
    """Shape and type of the network's outputs as it is trained; raises unless there is one row for each example."""
    outputs = jax.eval_shape(problem.trained(problem.variables).apply, params, x)
    if not (isinstance(outputs, jax.ShapeDtypeStruct) and jnp.issubdtype(outputs.dtype, jnp.floating)):
        raise TypeError(
            f"The network must return one floating-point array of shape (batch, C), got {outputs}; "
            "let `apply` return the logits or regression values alone."
        )
    num_examples = jax.tree.leaves(x)[0].shape[0]
    if outputs.shape[:1] != (num_examples,):
        raise ValueError(
            f"The network must return outputs of shape (batch, C), or (batch, …), got {outputs.shape} for "
            f"{num_examples} examples; let `apply` keep the examples on the first axis."
        )
    return outputs


def wrong_target(check: TargetCheck, value: Any, example: int) -> str:
    """What is wrong with the targets of an example."""
    return f"Targets must be {check.expected}, got {value} at example {example}; {check.remedy}."


def no_forward_mode(names: list[str]) -> str:
    """What is wrong with a network that uses functions of these names, where J v is not enough."""
    return (
        "The network must have a forward-mode derivative to be expanded to this order, got one that uses "
        f"{' and '.join(names)}, with a custom_vjp rule, for which JAX has none; use relin.Taylor(1), replace that "
        "function, or give it a custom_jvp rule instead."
    )
