"""One damped Gauss–Newton step at each anchor."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.batches import AbstractBatches
from relin._core.loss import AbstractLoss, CrossEntropy, OneRowCrossEntropy
from relin._core.problem import Problem
from relin._core.types import Flag, Inputs, Outputs, Params, Scalar, Targets
from relin._schedule import AbstractSchedule
from relin._solver._base import AbstractStepSolver, SolverState, current_params
from relin._solver._conjugate_gradients import ConjugateGradients, rounding
from relin._solver._newton import convex_step, quadratic_step
from relin._solver._optax import all_finite
from relin._solver._spaces import Functions, Space, space_of

_RISE = 1000
"""A step that takes a batch's loss to more than so many times the first one has failed; batches differ by less."""


class GaussNewtonState(eqx.Module):
    """What `GaussNewton` carries from step to step, beside the parameters."""

    damping: Float[Array, ""]
    """λ of the next step."""
    growth: Float[Array, ""]
    """ν: the factor of λ at the next rejection."""
    gain_ratio: Float[Array, ""]
    """Of the last step: actual over predicted decrease of the batch's loss; not a number before the first."""
    linear_iterations: Int[Array, ""]
    """Of the linear solver, so far."""
    solve_failed: Int[Array, ""]
    """How many solves did not reach their tolerance, so far."""
    steps: Int[Array, ""]
    stuck: Int[Array, ""]
    """How many steps could not be taken, since they were not finite."""
    first_loss: Float[Array, ""]
    """Of the first batch, before its step."""
    raised_at: Int[Array, ""]
    """The first step that raised the loss far above it; −1 before."""
    raised_to: Float[Array, ""]


class GaussNewton(AbstractStepSolver):
    """δ = −(G + λI)⁻¹ ∇L(θ_s) at each anchor, with the generalised Gauss–Newton matrix G = mean JᵀHJ, H = ∂²ℓ/∂f².

    For any loss that is convex in the outputs, whose `gradient` and `hessian_product` it uses, by automatic
    differentiation unless the loss gives its own; with `Every(1)`, and
    batches large enough for their curvature to be trusted, best all of the data. The network is linearised once a step;
    J and G are never formed.

    **Arguments:**

    - `damping`: λ, at least 0. At 0 the step is the one of minimum norm where G is singular.
    - `adapt`: `"none"` keeps λ and takes every step. `"levenberg-marquardt"` begins with λ and adapts it by the gain
      ratio ρ, the actual over the model's decrease of the batch's loss: a step that does not lower it is rejected
      (δ = 0) and λ grows by ν = 2, 4, 8, …; after the others λ shrinks or grows by max(1/3, 1 − (2ρ − 1)³) (Nielsen
      1999; Madsen, Nielsen & Tingleff 2004, algorithm 3.16).
    - `loss_model`: `"quadratic"`, the step above; `"convex"` minimises L(f(θ_s) + J δ) + λ/2 ‖δ‖² itself, whose
      quadratic model at δ = 0 that is: the same for the squared error. Newton's method with a line search finds it,
      where there is one: the cross-entropy of data that J separates needs λ > 0.
    - `space`: `"weights"` solves for the P entries of δ; `"functions"` for a with δ = Jᵀa, as many as outputs of the
      batch, N·C; `"auto"` takes the smaller. Without damping the system is always that of the weights, which has a
      solution also where the kernel is singular and the targets contradict each other.
    - `linear_solver`: any `lineax` solver of symmetric positive semidefinite operators, `ConjugateGradients()` if not
      given. One that needs a matrix makes it, of size P or N·C.
    - `curvature`: `"whole"`, H above; `"one-row"`, for `CrossEntropy()` of integer classes, keeps of H the curvature of
      an example's class against the rest, p (1 − p) g gᵀ (arXiv:2605.06081), without the classes' among each other.

    A solve that does not reach its tolerance is counted; what it found is the step if it is finite, as of conjugate
    gradients stopped early, which are a step of descent; so is a solve that meets a direction in which the loss curves
    down, since G is then no model with a minimum. Otherwise δ = 0: no step is ever taken that is not finite.

    A run has failed, with the result `Result.solver_failed`, if no step could be taken, or if one took its batch's loss
    above a thousand times the first batch's (or √ε, if that is more). Too small a damping does that: the step leaves
    the region where the linearised network says anything of the network, or the system is so ill-conditioned that in
    single precision it is not solved, which `solve_failed` counts, by a residual taken anew with the solution. Pass a
    larger damping (1e-3 of the largest curvature, see `Sharpness`, is a start), adapt it, or train in double precision.

    Records hold `damping`, λ of the next step, `gain_ratio` of the last, and, so far, `linear_iterations` (0 for a
    direct solver) and `solve_failed`.

    **Raises:** `ValueError` for numbers out of range, other choices, and settings that do not go together; `TypeError`
    for another `linear_solver`.
    """

    damping: Scalar | float
    adapt: Literal["none", "levenberg-marquardt"] = "none"
    loss_model: Literal["quadratic", "convex"] = "quadratic"
    space: Space = "auto"
    linear_solver: lx.AbstractLinearSolver = ConjugateGradients()
    curvature: Literal["whole", "one-row"] = "whole"

    def __check_init__(self):
        _check.choice(self.adapt, "adapt", ("none", "levenberg-marquardt"))
        _check.choice(self.loss_model, "loss_model", ("quadratic", "convex"))
        _check.choice(self.curvature, "curvature", ("whole", "one-row"))
        if self.curvature == "one-row" and self.loss_model == "convex":
            raise ValueError(
                'loss_model="convex" minimises the loss with all of its curvature; pass curvature="whole", or '
                'loss_model="quadratic".'
            )
        _check.choice(self.space, "space", ("auto", "weights", "functions"))
        if not _check.is_number(self.damping, lambda damping: 0 <= damping < math.inf):
            raise ValueError(f"`damping` must be at least 0 and finite, got {self.damping}; pass 0 for none.")
        if self.adapt != "none" and not _check.is_number(self.damping, lambda damping: damping > 0):
            raise ValueError(
                f"`damping` must be above 0 to be adapted by factors, got {self.damping}; pass a first guess such as "
                '1e-3, or adapt="none".'
            )
        if not isinstance(self.linear_solver, lx.AbstractLinearSolver):
            raise TypeError(
                f"`linear_solver` must be a lineax solver, got {self.linear_solver!r}; pass for example "
                "relin.ConjugateGradients()."
            )

    def init(self, params: Params) -> SolverState:
        dtype, zero = _tree.dtype_of(params), jnp.zeros((), jnp.int32)
        damping, growth, gain_ratio = (jnp.asarray(value, dtype) for value in (self.damping, 2, jnp.nan))
        unknown = jnp.full_like(gain_ratio, jnp.nan)
        state = GaussNewtonState(damping, growth, gain_ratio, zero, zero, zero, zero, unknown, zero - 1, unknown)
        return SolverState(params, _tree.no_displacement(params), state)

    def relinearise(self, state: SolverState) -> SolverState:
        params = current_params(state)
        return SolverState(params, _tree.no_displacement(params), state.optimiser)

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        own: GaussNewtonState = state.optimiser
        return {
            "damping": own.damping,
            "gain_ratio": own.gain_ratio,
            "linear_iterations": own.linear_iterations,
            "solve_failed": own.solve_failed,
        }

    def failure(self, state: SolverState) -> str:
        own: GaussNewtonState = state.optimiser
        if int(own.steps) and int(own.stuck) == int(own.steps):
            return "no step of GaussNewton could be taken, since none was finite; pass a larger damping"
        if int(own.raised_at) >= 0:
            return (
                f"GaussNewton's step {int(own.raised_at)} raised the loss of its batch to {float(own.raised_to):.3g}, "
                f"from {float(own.first_loss):.3g} at step 0, with damping {float(own.damping):.3g}: it left the "
                "region where the linearised network holds; pass a larger damping (1e-3 of the sharpness is a start) "
                'or adapt="levenberg-marquardt"'
            )
        return ""

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        _check.single_precision(params, "GaussNewton")
        if not schedule.every_step:
            raise ValueError(
                f"GaussNewton must be used with relin.Every(1), got {schedule}, since each of its steps solves the "
                "linearised problem anew; pass relin.Every(1), or for many steps at an anchor "
                "WeightSpace(optimiser, proximal=damping)."
            )
        smoothing = getattr(problem.loss, "label_smoothing", 0)
        if self.curvature == "one-row" and (type(problem.loss) is not CrossEntropy or smoothing):
            raise ValueError(
                f'curvature="one-row" is that of CrossEntropy(), got {problem.loss!r}; pass curvature="whole".'
            )

    def step(self, problem: Problem, state: SolverState, x: Inputs, y: Targets) -> tuple[SolverState, Scalar]:
        own: GaussNewtonState = state.optimiser
        with jax.default_matmul_precision("highest"):  # TF32's rounding would keep the solver from its tolerance
            linearised = problem.linearise(state.anchor)
            undamped = isinstance(self.damping, int | float) and self.damping == 0
            kind = "weights" if undamped else self.space
            outputs, space = space_of(kind, linearised.on(x), state.anchor, own.damping)
            if jnp.finfo(outputs.dtype).bits < 32 and (isinstance(space, Functions) or self.loss_model == "convex"):
                raise ValueError(
                    "GaussNewton must be given outputs of at least single precision to solve in their space, or to "
                    f"minimise a convex loss, got {outputs.dtype}; cast them to float32 at the end of `apply`, or pass "
                    'space="weights" and loss_model="quadratic".'
                )
            solve = quadratic_step if self.loss_model == "quadratic" else convex_step
            loss_of_model = problem.loss if self.curvature == "whole" else OneRowCrossEntropy()
            solved = solve(loss_of_model, space, self.linear_solver, outputs, y)
            found = space.displacement(solved.direction)
            loss = problem.loss.mean(outputs, y)
            after = problem.loss.mean(linearised.network(found, x), y)
            promised = self._promised(loss_of_model, outputs, space.tangent(solved.direction), y)
        gain_ratio = ((loss - after) / promised).astype(own.gain_ratio.dtype)
        finite = all_finite(found)
        damping, growth, taken = own.damping, own.growth, finite
        if self.adapt == "levenberg-marquardt":
            taken = finite & (after < loss) & (promised > 0)
            damping, growth = _nielsen(damping, growth, gain_ratio, taken)
        first = jnp.where(own.steps == 0, loss, own.first_loss).astype(own.first_loss.dtype)
        held = after <= _RISE * jnp.maximum(first, rounding(first, 1 / 2))
        raised = taken & ~held & (own.raised_at < 0)
        displacement = _tree.select(taken, found, _tree.zeros_like(found))
        own = GaussNewtonState(
            damping,
            growth,
            gain_ratio,
            own.linear_iterations + solved.iterations,
            own.solve_failed + ~(solved.succeeded & finite),
            own.steps + 1,
            own.stuck + ~finite,
            first,
            jnp.where(raised, own.steps, own.raised_at),
            jnp.where(raised, after, own.raised_to).astype(own.raised_to.dtype),
        )
        return SolverState(state.anchor, displacement, own), loss

    def _promised(self, loss: AbstractLoss, outputs: Outputs, tangent: Outputs, y: Targets) -> Scalar:
        """The decrease of the loss by its model, without the damping's term."""
        if self.loss_model == "convex":
            return loss.mean(outputs, y) - loss.mean(outputs + tangent, y)
        slope = loss.gradient(outputs, y)
        curved = loss.hessian_product(outputs, y, tangent)
        return -jnp.vdot(slope + 0.5 * curved, tangent) / len(outputs)


def _nielsen(damping: Scalar, growth: Scalar, gain_ratio: Scalar, taken: Flag) -> tuple[Scalar, Scalar]:
    """λ and ν after a step that was taken, or rejected."""
    factor = jnp.where(taken, jnp.maximum(1 / 3, 1 - (2 * gain_ratio - 1) ** 3), growth)
    least = jnp.finfo(damping.dtype).tiny
    return jnp.clip(damping * factor, least, 1 / least), jnp.where(taken, 2, 2 * growth)
