"""Damped Gauss–Newton: the linearised problem solved, instead of descended."""

import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, Shaped

from relin import _tree
from relin._batches import AbstractBatches
from relin._problem import Problem
from relin._schedule import AbstractSchedule
from relin._solver._base import AbstractStepSolver, SolverState
from relin._solver._newton import LinearisedProblem, Solved
from relin._types import Inputs, Params, Scalar, Targets

_NEWTON_STEPS, _HALVINGS = 30, 20
"""The most inner Newton steps of the convex problem, and the most halvings of each."""


class GaussNewtonState(eqx.Module):
    """What `GaussNewton` keeps beside the displacement."""

    damping: Float[Array, ""]
    raise_by: Float[Array, ""]
    """ν of Nielsen's rule: by how much the damping grows at the next rejection."""
    gain: Float[Array, ""]
    iterations: Int[Array, ""]
    unsolved: Int[Array, ""]


class GaussNewton(AbstractStepSolver):
    """One damped Gauss–Newton step an anchor, δ = −(G + λI)⁻¹ ∇L with G = JᵀHJ/N, for any loss.

    It is used with `Every(1)`: each step solves the problem linearised at its own anchor.

    **Arguments:**

    - `damping`: λ; the first one where it adapts. At 0 conjugate gradients give the minimum-norm step.
    - `adapt`: `"none"`, or `"levenberg-marquardt"`: λ follows the gain ratio ρ, the actual over the predicted
      decrease of the batch's loss, by Nielsen's rule (1999): λ ← λ max(1/3, 1 − (2ρ − 1)³), or λ ← νλ, ν ← 2ν where
      the loss did not decrease; such a step is not taken.
    - `loss_model`: `"quadratic"` takes the loss's second-order expansion in the outputs; `"convex"` the loss itself,
      of the linearised network, by an inner Newton method with a line search. They agree for squared error.
    - `space`: where the system is solved: `"weights"`, P unknowns; `"functions"`, N·C unknowns, for losses whose
      gradient lies in the range of their Hessian, as those of relin do; `"auto"`, where there are fewer. Undamped steps
      are solved in weights, where the system is consistent however the kernel is.
    - `linear_solver`: any lineax solver of positive semidefinite systems; by default conjugate gradients to a relative
      1e-4, in float64 1e-10.

    Records hold `damping`, `gain_ratio` (not a number unless it adapts), `linear_iterations`, all so far, and
    `unsolved`, how many steps' systems were not solved to tolerance. A step that is not finite is never taken, one
    that is finite is, as in truncated Newton methods.

    **Raises:** `ValueError` for numbers or names out of range, and another schedule.
    """

    damping: Scalar | float
    adapt: Literal["none", "levenberg-marquardt"] = "none"
    loss_model: Literal["quadratic", "convex"] = "quadratic"
    space: Literal["auto", "weights", "functions"] = "auto"
    linear_solver: lx.AbstractLinearSolver | None = None

    def __check_init__(self):
        if isinstance(self.damping, int | float) and not 0 <= self.damping < math.inf:
            raise ValueError(f"`damping` must be at least 0 and finite, got {self.damping}; pass for example 0.1.")
        for name, known in (
            ("adapt", ("none", "levenberg-marquardt")),
            ("loss_model", ("quadratic", "convex")),
            ("space", ("auto", "weights", "functions")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {known}, got {getattr(self, name)!r}; pass one of these.")
        if self.adapt != "none" and isinstance(self.damping, int | float) and self.damping == 0:
            raise ValueError("Damping that adapts by factors must begin above 0, got 0; pass for example 1e-3.")

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        if not schedule.every_step:
            raise ValueError(
                f"GaussNewton solves each linearised problem in one step, got {schedule}; pass Every(1), or take the "
                "steps between re-linearisations with WeightSpace or SpectralDescent."
            )

    def init(self, params: Params) -> SolverState:
        kind = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        zero = jnp.zeros((), jnp.int32)
        damping, raise_by, gain = (jnp.asarray(value, kind) for value in (self.damping, 2.0, jnp.nan))
        return SolverState(params, _tree.zeros_like(params), GaussNewtonState(damping, raise_by, gain, zero, zero))

    def relinearise(self, state: SolverState) -> SolverState:
        params = _tree.add(state.anchor, state.displacement)
        return SolverState(params, _tree.zeros_like(params), state.optimiser)

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        own = state.optimiser
        return {
            "damping": own.damping,
            "gain_ratio": own.gain,
            "linear_iterations": own.iterations,
            "unsolved": own.unsolved,
        }

    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        own: GaussNewtonState = state.optimiser
        linear = LinearisedProblem(problem, problem.linearise(state.anchor).on(x), y, own.damping, state.anchor)
        loss = problem.loss.mean(linear.linearised.at_anchor, y)  # δ = 0 here: every step begins at its own anchor
        solved = self._convex(linear) if self.loss_model == "convex" else self._newton(linear, state.displacement)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(solved.displacement)]))
        displacement = _tree.select(finite, solved.displacement, state.displacement)
        damping, raise_by, gain = own.damping, own.raise_by, own.gain
        if self.adapt == "levenberg-marquardt":
            after = problem.loss.mean(problem.linearise(state.anchor).network(displacement, x), y)
            model = linear.loss if self.loss_model == "convex" else linear.quadratic
            predicted = loss - model(displacement)
            gain = jnp.where(finite & (predicted > 0), (loss - after) / jnp.where(predicted > 0, predicted, 1.0), -1.0)
            gain = jnp.where(jnp.isfinite(gain), gain, -1.0).astype(own.gain.dtype)
            better = gain > 0
            displacement = _tree.select(better, displacement, state.displacement)
            lowered = damping * jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            damping = jnp.where(better, lowered, damping * raise_by)
            raise_by = jnp.where(better, 2.0, 2 * raise_by).astype(raise_by.dtype)
        unsolved = own.unsolved + jnp.asarray(~(finite & solved.successful), jnp.int32)
        own = GaussNewtonState(damping, raise_by, gain, own.iterations + solved.iterations, unsolved)
        return SolverState(state.anchor, displacement, own), loss

    def _newton(self, linear: LinearisedProblem, displacement: Params) -> Solved:
        num_outputs = linear.linearised.at_anchor.size
        num_params = sum(leaf.size for leaf in jax.tree.leaves(linear.like))
        functions = self.space == "functions" or (self.space == "auto" and num_outputs < num_params)
        functions &= not (isinstance(self.damping, int | float) and self.damping == 0)
        return linear.newton_point(displacement, functions, self.linear_solver or _conjugate_gradients(linear))

    def _convex(self, linear: LinearisedProblem) -> Solved:
        """Newton's method with halved steps, until the gradient is small."""
        start = _tree.zeros_like(linear.like)
        smallest = _tolerance(linear) * _tree.norm(linear.gradient(start))

        def unfinished(carry: _Inner) -> Bool[Array, ""]:
            return (carry.slope > smallest) & (carry.steps < _NEWTON_STEPS) & ~carry.stuck

        def body(carry: _Inner) -> _Inner:
            point, iterations, _ = self._newton(linear, carry.displacement)
            direction = _tree.subtract(point, carry.displacement)
            now = linear.objective(carry.displacement)

            def too_far(halving: tuple[Array, Array]) -> Array:
                scale, count = halving
                there = linear.objective(_tree.add(carry.displacement, _tree.scale(scale, direction)))
                return ~(there <= now) & (count < _HALVINGS)

            one = jnp.ones((), now.dtype), jnp.zeros((), jnp.int32)
            scale, count = jax.lax.while_loop(too_far, lambda h: (h[0] / 2, h[1] + 1), one)
            stuck = count >= _HALVINGS
            moved = _tree.add(carry.displacement, _tree.scale(scale, direction))
            displacement = _tree.select(stuck, carry.displacement, moved)
            slope = _tree.norm(linear.gradient(displacement))
            return _Inner(displacement, slope, carry.steps + 1, carry.iterations + iterations, stuck)

        zero = jnp.zeros((), jnp.int32)
        first = _Inner(start, _tree.norm(linear.gradient(start)), zero, zero, jnp.zeros((), bool))
        last = jax.lax.while_loop(unfinished, body, first)
        return Solved(last.displacement, last.iterations, last.slope <= smallest)


class _Inner(NamedTuple):
    """Where the inner Newton method is."""

    displacement: Params
    slope: Float[Array, ""]
    steps: Int[Array, ""]
    iterations: Int[Array, ""]
    stuck: Bool[Array, ""]


def _conjugate_gradients(linear: LinearisedProblem) -> lx.CG:
    tolerance = _tolerance(linear)
    return lx.CG(rtol=tolerance, atol=tolerance / math.sqrt(linear.linearised.at_anchor.size))


def _tolerance(linear: LinearisedProblem) -> float:
    return 1e-10 if linear.linearised.at_anchor.dtype == jnp.float64 else 1e-4
