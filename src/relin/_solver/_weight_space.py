"""Training the displacement with an Optax optimiser."""

from typing import Any, Literal

import jax
import optax

from relin import _tree
from relin._problem import Problem
from relin._solver._base import AbstractSolver, SolverState
from relin._types import Inputs, Params, Scalar, Targets


class WeightSpace(AbstractSolver):
    """δ_{t+1} = δ_t + Opt(g_t), with g_t the gradient of the linearised network's loss.

    **Arguments:**

    - `optimiser`: any `optax.GradientTransformation`. It is shown θ_t = anchor + displacement as its parameters, so
      weight decay acts on the network's parameters.
    - `on_relinearise`: `"keep"` lets the optimiser's state live on through a re-linearisation; `"reset"` starts it
      anew, except for the step counts and values of learning-rate schedules.
    """

    optimiser: optax.GradientTransformation
    on_relinearise: Literal["keep", "reset"] = "keep"

    def __check_init__(self):
        if not (hasattr(self.optimiser, "init") and hasattr(self.optimiser, "update")):
            raise TypeError(
                f"`optimiser` must be an Optax gradient transformation, got {self.optimiser!r}; "
                "pass for example optax.sgd(0.1, momentum=0.9)."
            )
        if self.on_relinearise not in ("keep", "reset"):
            raise ValueError(
                f'`on_relinearise` must be "keep" or "reset", got {self.on_relinearise!r}; '
                'pass "keep" to let the optimiser\'s state live on.'
            )

    def init(self, params: Params) -> SolverState:
        return SolverState(params, _tree.zeros_like(params), self.optimiser.init(params))

    def relinearise(self, state: SolverState) -> SolverState:
        params = current_params(state)
        return SolverState(params, _tree.zeros_like(params), self._carry_over(state.optimiser, params))

    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        loss, gradient = problem.linearised_value_and_grad(state.anchor, state.displacement, x, y)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, current_params(state))
        displacement = optax.apply_updates(state.displacement, updates)
        return SolverState(state.anchor, displacement, optimiser), loss

    def ordinary_step(
        self, problem: Problem, params: Params, optimiser: Any, x: Inputs, y: Targets
    ) -> tuple[Params, Any, Scalar]:
        """A step that re-linearises first: f̄ = f there, so it is the ordinary step, with its operations and cost."""
        optimiser = self._carry_over(optimiser, params)
        loss, gradient = problem.value_and_grad(params, x, y)
        updates, optimiser = self.optimiser.update(gradient, optimiser, params)
        return optax.apply_updates(params, updates), optimiser, loss

    def ordinary_step_in_full(
        self, problem: Problem, params: Params, optimiser: Any, x: Inputs, y: Targets
    ) -> tuple[SolverState, Scalar]:
        """The same step, keeping also the anchor and the displacement it made.

        The displacement is computed apart from θ_t: sharing the product −η g would keep the compiler from contracting
        it into θ − η g, and the parameters would differ from a plain Optax loop's in the last bit.
        """
        optimiser = self._carry_over(optimiser, params)
        loss, gradient = problem.value_and_grad(params, x, y)
        updates, new_optimiser = self.optimiser.update(gradient, optimiser, params)
        exact = optax.apply_updates(params, updates)
        gradient, optimiser, anchor = jax.lax.optimization_barrier((gradient, optimiser, params))
        displacement, _ = self.optimiser.update(gradient, optimiser, anchor)
        displacement = optax.apply_updates(_tree.zeros_like(params), displacement)
        return SolverState(params, displacement, new_optimiser, exact), loss

    def _carry_over(self, state: Any, params: Params) -> Any:
        if self.on_relinearise == "keep":
            return state
        return _reset_all_but_schedules(state, self.optimiser.init(params))


def current_params(state: SolverState) -> Params:
    """θ_t."""
    return _tree.add(state.anchor, state.displacement) if state.exact is None else state.exact


def _reset_all_but_schedules(state: Any, fresh: Any) -> Any:
    """`fresh`, with the counts and values of learning-rate schedules taken from `state`."""
    if isinstance(state, optax.ScaleByScheduleState):
        return state
    if hasattr(state, "hyperparams") and hasattr(state, "inner_state"):  # optax.inject_hyperparams
        return state._replace(inner_state=_reset_all_but_schedules(state.inner_state, fresh.inner_state))
    if isinstance(state, dict):  # optax.partition
        return {name: _reset_all_but_schedules(part, fresh[name]) for name, part in state.items()}
    if isinstance(state, tuple):
        parts = [_reset_all_but_schedules(s, f) for s, f in zip(state, fresh, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return fresh
