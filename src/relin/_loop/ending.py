"""From the last state and the records of a run to its solution, and how the run ended."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relin._common.outcome import failed_to_train
from relin._core.errors import Result
from relin._core.problem import Problem
from relin._core.types import Params
from relin._loop.program import Batch
from relin._loop.reached import Losses, Reached, Rows
from relin._loop.solution import LaneSolutions, Solution, columns
from relin._solver import current_params

_DIGITS = 1e-3
"""A part of a sum of losses below this may be its rounding."""


@dataclass(frozen=True)
class Known:
    """What is known of a run before it begins."""

    mode: str
    constant_loss: float | None


def constant_loss(problem: Problem, params: Params, batch: Batch) -> float | None:
    """That of the best constant predictor of these targets; none where the loss does not say, or it predicts them."""
    outputs = jax.eval_shape(problem.trained(problem.variables).apply, params, batch[0])
    value = problem.loss.constant_loss(outputs, batch[1])
    return None if value is None or value == 0 or not math.isfinite(value) else float(value)


def mean_loss_between(earlier: Losses, later: Losses) -> np.ndarray:
    """Mean loss of the batches between two states without a record between them, not a number where it is lost in
    rounding; one a lane where the states have lanes."""
    sums, counts = ([np.asarray(value, np.float64) for value in values] for values in zip(earlier, later, strict=True))
    with np.errstate(invalid="ignore"):
        loss, count = sums[1] - sums[0], counts[1] - counts[0]
        known = (count > 0) & (np.abs(loss) > _DIGITS * np.abs(sums[1]))
    return np.where(known, loss / np.maximum(count, 1), np.nan)


def solution_of(known: Known, reached: Reached, result: Result) -> Solution:
    """The solution of one run.

    **Arguments:**

    - `result`: how it ended, of one that did not diverge, before its loss is compared.
    """
    state, rows = reached.state, reached.rows
    diverged_at, solver = int(state.diverged_at), state.solver
    result = Result.diverged if diverged_at >= 0 else result
    ended = result in (Result.successful, Result.stopped)
    loss = _final_loss(rows, reached.final) if ended and known.constant_loss is not None else None
    if loss is not None and failed_to_train(loss, known.constant_loss):
        result = Result.failed_to_train
    return Solution(
        params=current_params(solver),
        anchor=solver.anchor,
        displacement=solver.displacement,
        feature_updates=int(state.feature_updates),
        records=columns([{name: np.asarray(value) for name, value in row.items()} for row in rows]),
        result=result,
        diverged_at=diverged_at if diverged_at >= 0 else None,
        optimiser_state=solver.optimiser,
        variables=state.variables,
        mode=known.mode,
        final_loss=loss,
        constant_loss=known.constant_loss,
        reached=reached,
    )


def _final_loss(rows: Rows, final: Any) -> float | None:
    value = float(final) if final is not None else float(rows[-1]["training_loss"]) if len(rows) > 2 else math.nan
    return value if math.isfinite(value) else None


def with_lane(known: Known, before: LaneSolutions, reached: Reached, result: Result) -> LaneSolutions:
    return LaneSolutions((*before, solution_of(known, reached, result)))


def lane_solutions(known: Known, num_lanes: int, reached: Reached, result: Result) -> LaneSolutions:
    """Of states and records with a leading axis of lanes."""
    state, observed = jax.device_get((reached.state, reached.observed))
    rows = [{name: np.asarray(value) for name, value in row.items()} for row in reached.rows]
    reached = replace(reached, state=state, observed=observed, rows=rows)
    return LaneSolutions(tuple(_lane_solution(known, reached, result, lane) for lane in range(num_lanes)))


def _lane_solution(known: Known, reached: Reached, result: Result, lane: int) -> Solution:
    """One lane; its rows end with its divergence."""
    own, observed = jax.tree.map(lambda a: a[lane], (reached.state, reached.observed))
    mine = []
    for row in reached.rows:
        mine.append({name: value if name == "step" else value[lane] for name, value in row.items()})
        if 0 <= own.diverged_at < row["step"]:
            break
    own, final = jax.tree.map(jnp.asarray, own), None if reached.final is None else reached.final[lane]
    reached = replace(reached, state=own, observed=observed, rows=mine, earlier=None, final=final)
    return solution_of(known, reached, result)
