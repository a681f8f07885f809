"""How the linearised problem is advanced."""

import abc
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from relin._core import tree as _tree
from relin._core.batches import AbstractBatches
from relin._core.context import Context
from relin._core.network import Variables
from relin._core.problem import Problem
from relin._core.repr import one_line
from relin._core.types import Inputs, Params, Scalar, Step, Targets
from relin._schedule import AbstractSchedule
from relin._solver._averaging import Iterates
from relin._solver._window import Window


class SolverState(eqx.Module):
    """The pair (θ_s, δ) and the optimiser's state.

    `exact` holds θ_t itself where a step computed it with the optimiser's own rounding (ordinary training); elsewhere
    it is `None` and θ_t = anchor + displacement. With averaging the displacement is the mean of the window's iterates,
    of which `iterates` keeps the last. `window` says where the run is between two re-linearisations, for a solver that
    wants to know; its `begin` is then called at the first step of each.

    **Attributes:**

    - `anchor`: θ_s, a PyTree like the parameters.
    - `displacement`: δ, a PyTree like the parameters.
    - `optimiser`: the optimiser's state, or what a solver keeps in its place.
    - `exact`, `iterates`, `window`: see above.
    """

    anchor: Params
    displacement: Params
    optimiser: Params
    exact: Params | None = None
    iterates: Iterates | None = None
    window: Window | None = None


class AbstractSolver(eqx.Module):
    """Advances the linearised problem, step by step (`AbstractStepSolver`) or many steps at once
    (`AbstractMultiStepSolver`). Abstract; `WeightSpace` is the solver for any network and optimiser.
    """

    def __repr__(self) -> str:
        return one_line(self)

    @abc.abstractmethod
    def init(self, params: Params) -> SolverState:
        """The state before step 0: the anchor is `params`, the displacement zero."""

    @abc.abstractmethod
    def relinearise(self, state: SolverState) -> SolverState:
        """anchor ← anchor + displacement, displacement ← 0."""

    def begin(self, context: Context, state: SolverState, length: Step) -> SolverState:
        """What is done once at each anchor, where the state has a `window`.

        **Arguments:**

        - `context`: the coming step's, with its batch and the network as it is trained on it. Not traced where
          `context.traced` is false.
        - `length`: steps to the next re-linearisation or the end of the run, see `AbstractWindowRate`.
        """
        return state

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        """What each record says of the solver itself, by name; nothing unless it overrides this."""
        return {}

    def failure(self, state: SolverState) -> str:
        """Why a run that ended in this state failed though its losses are finite, in one sentence with what to do;
        nothing if it did not. The run's result is then `Result.solver_failed`."""
        return ""

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        """Raises `ValueError`, with the alternative, for a combination that makes no sense."""


class AbstractStepSolver(AbstractSolver):
    """A solver that takes one step at a time, inside a compiled loop."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        """One step without re-linearising; also the batch's loss before it."""

    def step_and_variables(
        self, problem: Problem, state: SolverState, x: Inputs, y: Targets
    ) -> tuple[SolverState, Scalar, Variables | None]:
        """The same, and the network's variables after a forward pass at the anchor: one of its own, unless a solver
        that has it anyway overrides this."""
        variables = None if problem.variables is None else problem.forward(state.anchor, x)[1]
        return *self.step(problem, state, x, y), variables


class MultiStep(NamedTuple):
    """What many steps at one anchor came to."""

    state: SolverState
    losses: Float[Array, " steps"]
    """The batches' losses before those of the steps at which the solver knows them, in order; the first step's is the
    first. One that is not finite is a divergence."""
    steps: Int[Array, " steps"]
    """The steps of `losses`, counted from the first of these."""


class AbstractMultiStepSolver(AbstractSolver):
    """A solver that uses that the problem is linear in the displacement between two re-linearisations.

    It is called from the host with concrete arrays, and compiles what it runs. The data must be held in memory, and be
    seen without augmentation.
    """

    @abc.abstractmethod
    def multi_step(
        self,
        problem: Problem,
        state: SolverState,
        data: tuple[Inputs, Targets],
        indices: Int[np.ndarray, "steps batch"] | None,
        start: int,
        count: int | float,
    ) -> MultiStep:
        """The steps `start`, …, `start + count − 1` at one anchor, from the displacement in `state`.

        `indices` are the examples of each step, `None` where every step sees all of `data`; `count` is an integer, or
        infinite for the limit.
        """


def current_params(state: SolverState) -> Params:
    """θ_t."""
    return _tree.add(state.anchor, state.displacement) if state.exact is None else state.exact
