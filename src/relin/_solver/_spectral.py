"""Gradient descent on squared error, any number of steps at once."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.batches import AbstractBatches, FullBatch
from relin._core.loss import SquaredError
from relin._core.problem import Problem
from relin._core.types import Inputs, Params, Scalar, Targets
from relin._schedule import AbstractSchedule
from relin._solver._base import AbstractMultiStepSolver, MultiStep, SolverState
from relin._solver._filters import Descent, expand
from relin._solver._matrix_free import GaussNewtonProducts, largest_eigenvalue_of, minimum_norm

_STAGE = 256
"""By how much a stage of steps is longer than all that come before, and than all that follow. What rounding leaves of
a stage is relative to the gradient at its beginning, which stages before have made small; what it leaves along large
eigenvalues, times the steps, later ones shrink again. In one long stage single precision would lose its digits."""
_GAIN = 0.1 * _STAGE
"""How much what an expansion leaves out grows on its way to the outputs, as measured; about max_x x exp(−x/`_STAGE`)
for a gradient as large as the first."""
_MARGIN = 1.01
"""On the largest eigenvalue, which Lanczos approaches from below."""


class SpectralState(eqx.Module):
    """What `SpectralDescent` keeps beside the displacement."""

    velocity: Params
    bound: Float[Array, ""]
    """On the eigenvalues of G at the anchor; not a number where it is not known yet."""
    products: Int[Array, ""]
    error: Float[Array, ""]


class SpectralDescent(AbstractMultiStepSolver):
    """Full-batch gradient descent on squared error, all steps between two re-linearisations at once.

    On eigenvectors of the kernel Θ/N the steps are a filter, 1 − (1 − ηa)^K on the residual at eigenvalue a; the
    displacement after K steps is −q_K(G) ∇L with G = JᵀJ/N (method.md, "Function space"). The result is that of the
    discrete steps, not of an approximation to them; for 10⁶ steps it costs what some 4000 of them do.

    **Arguments:**

    - `learning_rate`: η.
    - `momentum`: β of v ← βv + g, δ ← δ − ηv, as `optax.sgd(η, momentum=β)`. The velocity lives on through a
      re-linearisation, or starts anew, by `on_relinearise`.
    - `steps`: `"discrete"`, or `"flow"`: gradient flow for time η a step.
    - `method`: `"chebyshev"` forms no kernel: it takes about √(ηλK log 1/tolerance) products with J and Jᵀ, λ the
      largest eigenvalue. `"eigh"` decomposes the dense kernel of N·C numbers squared, in float64, at a cost that does
      not depend on K: for small N·C. With infinitely many steps (`num_steps=math.inf`, `Never()`) both give the
      minimum-norm solution; the first by conjugate gradients, as far as they come.
    - `tolerance`: what the expansion may leave out, relative to the outputs' change; by default 2e-5, in float64 1e-11.
    - `on_relinearise`: `"keep"` or `"reset"`, of the velocity.

    Records hold `kernel_products`, those made so far, `spectral_error`, what the last expansion left out (of the
    minimum-norm solution the relative residual of its equation), and `largest_rate`, 2 (1 + β)/λ, from which on descent
    diverges. A rate above it is followed while the growth leaves digits to follow, and is then the divergence it is.
    `training_loss` is that after each re-linearisation and record.

    **Raises:** `ValueError` for numbers out of range, another loss, or minibatches.
    """

    learning_rate: Scalar | float
    momentum: Scalar | float = 0.0
    steps: Literal["discrete", "flow"] = "discrete"
    method: Literal["chebyshev", "eigh"] = "chebyshev"
    tolerance: float | None = None
    on_relinearise: Literal["keep", "reset"] = "keep"

    def __check_init__(self):
        _check.choice(self.steps, "steps", ("discrete", "flow"))
        _check.choice(self.method, "method", ("chebyshev", "eigh"))
        _check.choice(self.on_relinearise, "on_relinearise", ("keep", "reset"))
        rate, momentum = self.learning_rate, self.momentum
        if not _check.is_number(rate, lambda rate: 0 < rate < math.inf):
            raise ValueError(f"`learning_rate` must be above 0 and finite, got {rate}; pass for example 0.1.")
        if not _check.is_number(momentum, lambda momentum: 0 <= momentum < 1):
            raise ValueError(f"`momentum` must be at least 0 and below 1, got {momentum}; pass 0 for none.")
        if self.steps == "flow" and not (isinstance(momentum, int | float) and momentum == 0):
            raise ValueError(f'Gradient flow has no momentum, got {momentum}; pass momentum=0 or steps="discrete".')

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        if not isinstance(problem.loss, SquaredError):
            raise ValueError(
                f"SpectralDescent needs SquaredError, whose descent is linear, got {type(problem.loss).__name__}; use "
                "WeightSpace or FunctionSpace for it."
            )
        if not isinstance(batches, FullBatch):
            raise ValueError(
                f"SpectralDescent takes the full batch at every step, got {batches}; leave `batch_size` out, or use "
                "WeightSpace or FunctionSpace for minibatches."
            )

    def init(self, params: Params) -> SolverState:
        kind = _tree.dtype_of(params)
        unknown = jnp.full((), jnp.nan, kind)
        state = SpectralState(_tree.zeros_like(params), unknown, jnp.zeros((), jnp.int32), jnp.zeros((), kind))
        return SolverState(params, _tree.no_displacement(params), state)

    def relinearise(self, state: SolverState) -> SolverState:
        params, own = _tree.add(state.anchor, state.displacement), state.optimiser
        velocity = own.velocity if self.on_relinearise == "keep" else _tree.zeros_like(own.velocity)
        kept = SpectralState(velocity, jnp.full_like(own.bound, jnp.nan), own.products, own.error)
        return SolverState(params, _tree.no_displacement(params), kept)

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        own = state.optimiser
        limit = jnp.inf if self.steps == "flow" else 2 * (1 + jnp.asarray(self.momentum))
        return {
            "kernel_products": own.products,
            "spectral_error": own.error,
            "largest_rate": limit * _MARGIN / own.bound,
        }

    def multi_step(
        self,
        problem: Problem,
        state: SolverState,
        data: tuple[Inputs, Targets],
        indices: Any,
        start: int,
        count: int | float,
    ) -> MultiStep:
        descent = Descent(float(self.learning_rate), float(self.momentum), self.steps == "flow")
        products = GaussNewtonProducts(problem, state.anchor, data)
        own: SpectralState = state.optimiser
        loss, bound = products.loss(state.displacement), float(own.bound)
        if math.isnan(bound) and math.isfinite(loss):
            bound = _MARGIN * largest_eigenvalue_of(products)
        if math.isnan(bound):  # a derivative that is not finite
            return MultiStep(state, jnp.full_like(loss[None], jnp.nan), jnp.zeros(1, jnp.int32))
        kind = own.bound.dtype
        growth, digits = descent.growth(bound / _MARGIN), -math.log(jnp.finfo(kind).eps)
        if growth > 0 and growth * count > digits:
            failed = min(count - 1, math.ceil(digits / growth))
            found = state.displacement, own.velocity, float(own.error)
            losses, steps = jnp.stack([loss, jnp.full_like(loss, jnp.inf)]), jnp.asarray([0, failed])
        else:
            advance = self._by_eigenvectors if self.method == "eigh" else self._by_polynomials
            found = advance(products, descent, state, count, bound)
            losses, steps = loss[None], jnp.zeros(1, jnp.int32)
        displacement, velocity, error = found
        made = own.products + jnp.asarray(products.made, own.products.dtype)
        own = SpectralState(velocity, jnp.asarray(bound, kind), made, jnp.asarray(error, kind))
        return MultiStep(SolverState(state.anchor, displacement, own), losses, steps)

    def _by_polynomials(
        self, products: GaussNewtonProducts, descent: Descent, state: SolverState, count: int | float, bound: float
    ) -> tuple[Params, Params, float]:
        displacement, velocity, error = state.displacement, state.optimiser.velocity, 0.0
        moving = descent.momentum > 0 and any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(velocity))
        tolerance = self._tolerance(state.optimiser.bound.dtype)
        if math.isinf(count):
            change, error = minimum_norm(products, displacement, tolerance)
            if moving:  # where no eigenvalue is, the velocity moves on to its end
                along, _ = minimum_norm(products, displacement, tolerance, velocity)
                rest = descent.rate * descent.momentum / (1 - descent.momentum)
                change = _tree.subtract(change, _tree.scale(rest, _tree.subtract(velocity, along)))
            return _tree.add(displacement, change), _tree.zeros_like(velocity), error
        for steps in _stages(int(count)):
            expansion = expand(descent, steps, bound, tolerance / _GAIN, moving)
            inputs = (products.gradient(displacement), velocity) if moving else (products.gradient(displacement),)
            change, velocity = products.filtered(expansion.coefficients, bound, inputs)
            displacement = _tree.add(displacement, change)
            moving, error = descent.momentum > 0, max(error, expansion.error * _GAIN)
        return displacement, velocity, error

    def _by_eigenvectors(
        self, products: GaussNewtonProducts, descent: Descent, state: SolverState, count: int | float, bound: float
    ) -> tuple[Params, Params, float]:
        values, vectors = products.decomposition()
        displacement, velocity = state.displacement, state.optimiser.velocity
        filters = descent.filters(values, count)
        at_zero = descent.filters(np.zeros(1), count)[:, 1, 0]
        residual = vectors.T @ products.residual(displacement)
        along = vectors.T @ products.outputs(velocity) if descent.momentum else np.zeros_like(residual)
        positive = values > 0
        found = []
        for output in (0, 1):  # p(G) Jᵀ = Jᵀ p(A), and p(G) = p(0) + Jᵀ (p(A) − p(0)) A⁻¹ J / N
            rest = np.where(positive, (filters[output, 1] - at_zero[output]) / np.where(positive, values, 1.0), 0.0)
            dual = vectors @ (filters[output, 0] * residual + rest * along)
            change = products.pulled_back(dual)
            found.append(_tree.add(change, _tree.scale(float(at_zero[output]), velocity)))
        return _tree.add(displacement, found[0]), found[1], 0.0

    def _tolerance(self, dtype: Any) -> float:
        if self.tolerance is not None:
            return float(self.tolerance)
        return 1e-11 if dtype == jnp.float64 else 2e-5


def _stages(count: int) -> list[int]:
    """The steps in stages that grow up to one long stage, and shrink after it."""
    if count <= _STAGE:
        return [count]
    rest = -(-count // _STAGE)
    after = _stages(rest)
    after = after[len(after) // 2 :] if len(after) > 1 else after
    return [*reversed(after), count - 2 * sum(after), *after]
