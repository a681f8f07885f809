"""Training the displacement with an Optax optimiser."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.batches import AbstractBatches
from relin._core.context import Context
from relin._core.linearise import LinearisedOutputs
from relin._core.network import Variables
from relin._core.problem import Problem
from relin._core.types import Inputs, Params, Scalar, Step, Targets
from relin._schedule import AbstractSchedule
from relin._solver._averaging import AbstractAveraging
from relin._solver._base import AbstractStepSolver, SolverState, current_params
from relin._solver._displacement_bound import DisplacementBound
from relin._solver._optax import LIVING_ON, WITHOUT_MOMENTS, check_optimiser, inner, stuck, updated
from relin._solver._window import AbstractWindowRate, RateCap, Window, WindowRates, check_rates


class WeightSpace(AbstractStepSolver):
    """δ_{t+1} = δ_t + Opt(g_t), with g_t the gradient of the linearised network's loss.

    **Arguments:**

    - `optimiser`: an `optax.GradientTransformation`. It is shown θ_t = anchor + displacement as its parameters, so
      weight decay acts on the network's parameters. One that asks for more is given `value` and `grad`, the batch's
      loss and gradient, and `value_fn`, that loss as a function of the parameters, under the names that it knows:
      `optax.lbfgs`, `optax.contrib.reduce_on_plateau`, `optax.contrib.sophia` and `optax.contrib.sam` in
      opaque mode work as in a plain loop. The loss is that of the network linearised at the anchor, with the proximal
      term; with `Every(1)` the function is the network's own, where that period is not traced. With
      `optax.apply_if_finite` a run goes on after a loss that is not finite, as long as the parameters are. The
      documentation's page on optimisers has a table of what works. One whose parameters are not those to evaluate,
      such as `optax.contrib.schedule_free`, is refused with a `ValueError` where a run begins.
    - `on_relinearise`: `"keep"` lets the optimiser's state live on through a re-linearisation; `"reset"` starts it
      anew; a number between them, in (0, 1), shrinks its moments by that factor. Courses of learning rates,
      `reduce_on_plateau` among them, always live on, as do counts of steps and of failures, gradients gathered by
      `optax.MultiSteps` and keys of random numbers; under a factor so do a line search and the memory of `optax.lbfgs`,
      which are no moments. That memory compares gradients: with `"reset"` only those of the same linear model.
    - `proximal`: λ of a term λ/2 ‖δ‖² added to the linearised problem's loss: the damping of Levenberg–Marquardt. It
      leaves ordinary training as it is, where the displacement is zero at every step.
    - `averaging`: `UniformAverage()` or `ExponentialAverage(decay)` makes the displacement a mean of those since the
      anchor; `None` takes the last.
    - `bound`: a `DisplacementBound` keeps each layer's displacement below a part of its weights' norm, after every
      step; with one, `Every(1)` is not ordinary training.
    - `window_rate`: the learning rate's course within a window, such as `CosineWindow()`, beside the optimiser's own
      schedule over the run; it multiplies the optimiser's updates.
    - `rate_cap`: a `RateCap`, the largest rate of a window.

    **Raises:** `ValueError` for numbers out of range; `TypeError` for another optimiser, `averaging`, `bound` or rate.
    """

    optimiser: optax.GradientTransformation
    on_relinearise: Literal["keep", "reset"] | float = "keep"
    proximal: Scalar | float = 0.0
    averaging: AbstractAveraging | None = None
    bound: DisplacementBound | None = None
    window_rate: AbstractWindowRate | None = None
    rate_cap: RateCap | None = None

    def __check_init__(self):
        _check.optimiser(self.optimiser)
        check_rates(self.window_rate, self.rate_cap)
        on = self.on_relinearise
        if on not in ("keep", "reset") and not (isinstance(on, float) and 0 < on < 1):
            raise ValueError(
                f'`on_relinearise` must be "keep", "reset" or a factor between 0 and 1, got {on!r}; '
                'pass "keep" to let the optimiser\'s state live on.'
            )
        if not _check.is_number(self.proximal, lambda proximal: 0 <= proximal < math.inf):
            raise ValueError(f"`proximal` must be at least 0 and finite, got {self.proximal}; pass 0 for no damping.")
        if not (self.averaging is None or isinstance(self.averaging, AbstractAveraging)):
            raise TypeError(
                f"`averaging` must be a relin average or None, got {self.averaging!r}; pass for example "
                "relin.UniformAverage()."
            )
        if not (self.bound is None or isinstance(self.bound, DisplacementBound)):
            raise TypeError(
                f"`bound` must be a relin.DisplacementBound or None, got {self.bound!r}; pass for example "
                "relin.DisplacementBound(0.1)."
            )

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        check_optimiser(self.optimiser, params)
        if self.averaging is not None:
            self.averaging.check(params)
        if self.bound is not None:
            self.bound.check(params)
        self.rates.check(self.optimiser, schedule, params)

    @property
    def rates(self) -> WindowRates:
        """How the learning rate depends on the window."""
        return WindowRates(self.window_rate, self.rate_cap)

    def begin(self, context: Context, state: SolverState, length: Step) -> SolverState:
        return replace(state, window=state.window and self.rates.begun(context, state.window, length))

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        return self.rates.measures(state.window)

    def failure(self, state: SolverState) -> str:
        return stuck(state.optimiser)

    def init(self, params: Params) -> SolverState:
        return self._at_anchor(params, self.optimiser.init(params), self.rates.init(params))

    def relinearise(self, state: SolverState) -> SolverState:
        params, window = current_params(state), state.window and state.window.again()
        return self._at_anchor(params, self._carry_over(state.optimiser, params), window)

    def _at_anchor(self, params: Params, optimiser: Any, window: Window | None) -> SolverState:
        iterates = None if self.averaging is None else self.averaging.init(params)
        return SolverState(params, _tree.no_displacement(params), optimiser, iterates=iterates, window=window)

    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        solver, loss, _ = self.step_and_variables(problem, state, x, y)
        return solver, loss

    def step_and_variables(
        self, problem: Problem, state: SolverState, x: Inputs, y: Targets
    ) -> tuple[SolverState, Scalar, Variables | None]:
        at = state.anchor, _iterate(state)
        (loss, variables), gradient = problem.linearised_value_grad_and_variables(*at, x, y)
        return *self._advanced(problem, state, x, y, loss, gradient), variables

    def step_on(
        self, problem: Problem, state: SolverState, linearised: LinearisedOutputs, x: Inputs, y: Targets
    ) -> tuple[SolverState, Scalar]:
        """The same step where x was linearised at the anchor before: 4/3 of an ordinary step's operations, not 5/3."""
        return self._advanced(problem, state, x, y, *problem.value_and_grad_on(linearised, _iterate(state), y))

    def _advanced(
        self, problem: Problem, state: SolverState, x: Inputs, y: Targets, loss: Scalar, gradient: Params
    ) -> tuple[SolverState, Scalar]:
        iterate = _iterate(state)
        if self._damped:
            gradient = _tree.add(gradient, _tree.scale(self.proximal, iterate))
        params, value = _tree.add(state.anchor, iterate), self._with_proximal_term(loss, iterate)

        def value_fn(p: Params) -> Scalar:
            # p − anchor, written so that p = θ_t gives δ itself, and with it `value`, whatever θ_s + δ was rounded to
            displacement = _tree.add(iterate, _tree.subtract(p, params))
            outputs = problem.linearise(state.anchor).value(displacement, x)
            return self._with_proximal_term(problem.loss.mean(outputs, y), displacement)

        updates, optimiser = self._update(gradient, state.optimiser, params, value, value_fn)
        window = state.window
        if window is not None:
            window = self.rates.taken(window, self.proximal)
            updates = _tree.scale(window.factor, updates)
        displacement, iterates = optax.apply_updates(iterate, updates), state.iterates
        if self.bound is not None:
            displacement = self.bound.bounded(displacement, state.anchor)
        if self.averaging is not None and iterates is not None:
            displacement, iterates = self.averaging.averaged(state.displacement, iterates, displacement)
        return SolverState(state.anchor, displacement, optimiser, iterates=iterates, window=window), loss

    def ordinary_step(
        self, problem: Problem, params: Params, optimiser: Any, x: Inputs, y: Targets
    ) -> tuple[Params, Any, Scalar, Variables | None]:
        """A step that re-linearises first: f̄ = f there, so it is the ordinary step, with its operations and cost."""
        optimiser = self._carry_over(optimiser, params)
        (loss, variables), gradient = problem.value_grad_and_variables(params, x, y)
        updates, optimiser = self._update(gradient, optimiser, params, loss, _loss_of(problem, x, y))
        return optax.apply_updates(params, updates), optimiser, loss, variables

    def ordinary_step_in_full(
        self, problem: Problem, params: Params, optimiser: Any, x: Inputs, y: Targets
    ) -> tuple[SolverState, Scalar, Variables | None]:
        """The same step, keeping also the anchor and the displacement it made.

        The displacement is computed apart from θ_t: sharing the product −η g would keep the compiler from contracting
        it into θ − η g, and the parameters would differ from a plain Optax loop's in the last bit.
        """
        optimiser = self._carry_over(optimiser, params)
        (loss, variables), gradient = problem.value_grad_and_variables(params, x, y)
        value_fn = _loss_of(problem, x, y)
        updates, new_optimiser = self._update(gradient, optimiser, params, loss, value_fn)
        exact = optax.apply_updates(params, updates)
        gradient, optimiser, anchor = jax.lax.optimization_barrier((gradient, optimiser, params))
        displacement, _ = self._update(gradient, optimiser, anchor, loss, value_fn)
        displacement = optax.apply_updates(_tree.zeros_like(params), displacement)
        return SolverState(params, displacement, new_optimiser, exact), loss, variables

    def _update(
        self, gradient: Params, state: Any, params: Params, value: Scalar, value_fn: Callable[[Params], Scalar]
    ) -> tuple[Params, Any]:
        """Optax's update, with what line searches and the like ask for; `value_fn` is traced by those alone."""
        return updated(self.optimiser, gradient, state, params, value, value_fn)

    @property
    def _damped(self) -> bool:
        return not (isinstance(self.proximal, int | float) and self.proximal == 0)

    def _with_proximal_term(self, loss: Scalar, displacement: Params) -> Scalar:
        """L + λ/2 ‖δ‖²."""
        if not self._damped:
            return loss
        return loss + (0.5 * self.proximal * optax.tree.norm(displacement, squared=True)).astype(loss.dtype)

    def _carry_over(self, state: Any, params: Params) -> Any:
        if self.on_relinearise == "keep":
            return state
        if self.on_relinearise == "reset":
            return _all_but(LIVING_ON, lambda old, new: new, state, self.optimiser.init(params))
        factor = self.on_relinearise

        def shrunk(old: Any, new: Any) -> Any:
            moment = jnp.issubdtype(jnp.result_type(old), jnp.inexact)
            return (new + factor * (old - new)).astype(old.dtype) if moment else old

        return _all_but(LIVING_ON + WITHOUT_MOMENTS, partial(jax.tree.map, shrunk), state, self.optimiser.init(params))


def _iterate(state: SolverState) -> Params:
    """Where the optimiser is: δ_t, of which the displacement is a mean where there is averaging."""
    return state.displacement if state.iterates is None else state.iterates.last


def _loss_of(problem: Problem, x: Inputs, y: Targets) -> Callable[[Params], Scalar]:
    return lambda params: problem.loss.mean(problem.apply(params, x), y)


def _all_but(kept: tuple[type, ...], join: Callable[[Any, Any], Any], state: Any, fresh: Any) -> Any:
    """`join` of the parts of an optimiser's state and of a fresh one; parts of the `kept` types from `state`."""
    if isinstance(state, kept):
        return state
    if field := inner(state):
        return state._replace(**{field: _all_but(kept, join, getattr(state, field), getattr(fresh, field))})
    if isinstance(state, dict):  # optax.partition
        return {name: _all_but(kept, join, part, fresh[name]) for name, part in state.items()}
    if isinstance(state, tuple):
        parts = [_all_but(kept, join, s, f) for s, f in zip(state, fresh, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return join(state, fresh)
