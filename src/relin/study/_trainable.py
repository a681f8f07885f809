"""Whether a network of the user's own can be trained and measured as a study does: asked before any run."""

from collections.abc import Iterable
from typing import Any

import jax

import relin as il
from relin._loop import validate
from relin.kernel._arguments import OneExampleError
from relin.kernel._independence import alone_as_in_batch, doubt
from relin.study._code import name_of
from relin.study._schedules import AbstractTolerance
from relin.study._settings import GridSpec, StudySpec

_FEW = 16
"""Examples on which outputs are compared where the program does not tell."""


def is_coupled(problem: il.Problem, params: Any, x: Any) -> bool:
    """Whether an example's outputs depend on the others of its batch, as the network is evaluated; so they do where it
    takes this batch only."""
    network = problem.evaluated(problem.variables).apply
    few = jax.tree.map(lambda a: a[:_FEW], x)
    try:
        return doubt(network, params, x) is not None and not bool(alone_as_in_batch(network, params, few)[0])
    except OneExampleError:
        return True


def check_network(spec: StudySpec, problem: il.Problem, params: Any, batch: tuple[Any, Any]) -> None:
    """Raises `ValueError` unless the network can be linearised and trained on the batch.

    The same readings as those of `relin.check` that need no compiled program, see `relin.Preflight.obstacle`.
    """
    try:
        validate.network(problem, params, batch)
    except Exception as error:  # whatever the network raises
        raise ValueError(
            f"network: {name_of(spec.model)} cannot be trained on a batch of {len(batch[1])} examples: {_said(error)}"
        ) from error


def check_schedules(spec: GridSpec, problem: il.Problem, params: Any, batch: tuple[Any, Any]) -> None:
    """Raises `ValueError` where a schedule looks at half a batch, and the network takes a whole one only."""
    name, size = name_of(spec.model), len(batch[1])
    asking = [
        condition.name for condition in spec.all_conditions() if isinstance(condition.schedule, AbstractTolerance)
    ]
    if not asking:
        return
    try:
        validate.outputs_of(problem, params, jax.tree.map(lambda a: a[: max(1, size // 2)], batch[0]))
    except Exception as error:
        raise ValueError(
            f"network: {name} takes a whole batch of {size} examples only ({_said(error)}), and {asking[0]} looks at "
            "half of one; leave adaptive schedules out, for example by an empty list of tolerances."
        ) from error


def check_observers(
    spec: GridSpec, problem: il.Problem, params: Any, observers: Iterable[il.AbstractObserver], coupled: bool
) -> None:
    """Raises `ValueError` unless the network can be measured as the study does."""
    name = name_of(spec.model)
    try:
        validate.shown(problem, params, tuple(observers))
    except Exception as error:
        if coupled:
            raise ValueError(
                f"network: the outputs of {name} for an example depend on the others of its batch, which study "
                f"{spec.study} cannot measure on validation and test examples ({_said(error)}); let the "
                "outputs of an example depend on it alone, as with batch statistics that are frozen in evaluation, or "
                "choose another study."
            ) from error
        raise ValueError(f"network: {name} cannot be measured by study {spec.study}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
