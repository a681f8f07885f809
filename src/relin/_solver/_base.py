"""How the linearised problem is advanced."""

import abc

import equinox as eqx

from relin._problem import Problem
from relin._types import Inputs, Params, Scalar, Targets


class SolverState(eqx.Module):
    """The pair (θ_s, δ) and the optimiser's state.

    `exact` holds θ_t itself where a step computed it with the optimiser's own rounding (ordinary training); elsewhere
    it is `None` and θ_t = anchor + displacement.
    """

    anchor: Params
    displacement: Params
    optimiser: Params
    exact: Params | None = None


class AbstractSolver(eqx.Module):
    """Advances the linearised problem. Abstract; `WeightSpace` is the solver for any network and optimiser."""

    @abc.abstractmethod
    def init(self, params: Params) -> SolverState:
        """The state before step 0: the anchor is `params`, the displacement zero."""

    @abc.abstractmethod
    def relinearise(self, state: SolverState) -> SolverState:
        """anchor ← anchor + displacement, displacement ← 0."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        """One step without re-linearising; also the batch's loss before it."""
