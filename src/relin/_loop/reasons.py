"""Why a run failed, looked for after the end."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from relin._core import finite as _finite
from relin._core.batches import FullBatch
from relin._core.errors import Result
from relin._loop.compiled import Programs
from relin._loop.program import Batch, Run
from relin._loop.solution import Solution
from relin._loop.sources import ArraySource, IterableSource
from relin._observer import AbstractObserver
from relin._solver import SolverState


class Examples:
    """The batches of a run on arrays, drawn again; `clean` if the arrays are known to be finite."""

    def __init__(self, programs: Programs, data: Batch, clean: bool | None = False):
        self.programs, self.data = programs, data
        self.clean = bool(clean) and programs.sampling.augment is None
        self.full = isinstance(programs.sampling.batches, FullBatch)

    def in_data(self, step: int) -> str:
        """What is not finite in the batch of a step."""
        return "" if self.clean else _finite.in_data(*self.batch(step), self.named(step))

    def batch(self, step: int) -> Batch:
        return self._source(step)(step)

    def named(self, step: int) -> Callable[[int], str]:
        """What an example of a batch is called, by its place in the data."""
        if self.full:
            return _finite.example
        places = self._source(step).indices(step, step + 1)[0]
        return lambda place: f"example {places[place]}"

    def _source(self, step: int) -> ArraySource:
        return ArraySource(self.programs, self.data, step + 1)


class Streamed:
    """The batches of a run on an iterable, of which the first is kept."""

    def __init__(self, source: IterableSource):
        self.source, self.first = source, source.first()

    def in_data(self, step: int) -> str:
        first, targets, example = np.asarray(self.source.unfinite)
        if not 0 <= first <= step:
            return ""
        what = "targets" if targets else "inputs"
        return (
            f"the {what} of example {example} of the batch at step {first} hold a number that is not finite: leave "
            "that example out, or replace what is missing"
        )

    def batch(self, step: int) -> Batch | None:
        return self.first if step == 0 else None

    def named(self, step: int) -> Callable[[int], str]:
        return lambda place: f"example {place} of the batch at step {step}"


def explained(solution: Solution, run: Run, examples: Examples | Streamed | None, thorough: bool) -> Solution:
    """The solution with the reason of its failure, where one is found.

    Looked at are the numbers of the data and, if the run failed within two steps or `thorough`, those of the network at
    its initial parameters: what is finite there the steps made large. Without examples only the solver is asked.
    """
    if solution.result in (Result.successful, Result.failed_to_train):
        end = SolverState(solution.anchor, solution.displacement, solution.optimiser_state)
        if not (reason := run.solver.failure(end)):
            return solution
        solution = replace(solution, result=Result.solver_failed, reason=reason)
    elif solution.result is not Result.diverged:
        return solution
    if examples is None:
        return solution
    found = _reason(solution.diverged_at or 0, run, examples, thorough)
    return replace(solution, reason=found) if found else solution


def warn_of_observers(solution: Solution, run: Run, observers: Iterable[AbstractObserver]) -> None:
    """Warns of each observer whose data, network or derivative is not finite at step 0, where a record is not."""
    end = SolverState(solution.anchor, solution.displacement, solution.optimiser_state)
    own = {"training_loss", *run.solver.measures(end)}
    first = [column[0] for name, column in solution.records.items() if name not in own]
    if np.isfinite(first).all():
        return
    problem = run.problem.evaluated(run.problem.variables)
    for observer in observers:
        for name, (x, y) in observer.labelled.items():
            losses = _finite.Losses(problem.loss, y)
            if found := _finite.in_network(problem.apply, jax.tree.map(jnp.asarray, run.params), x, losses):
                kind = type(observer).__name__
                warnings.warn(f"{kind} records what is not finite: in its `{name}`, {found}.", stacklevel=3)
                break


def _reason(step: int, run: Run, examples: Examples | Streamed, thorough: bool) -> str:
    if found := examples.in_data(step):
        return found
    if step > 1 and not thorough:
        return ""
    problem, params = run.problem.trained(run.problem.variables), jax.tree.map(jnp.asarray, run.params)
    for place in (step - 1, step):  # the step before made the parameters
        batch = examples.batch(place) if place >= 0 else None
        if batch is not None:
            losses, named = _finite.Losses(problem.loss, batch[1]), examples.named(place)
            if found := _finite.in_network(problem.apply, params, batch[0], losses, named):
                return found
    return ""
