"""The linear systems of Gauss–Newton steps, in the space of weights or of functions."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int

from relin import _tree
from relin._linearise import LinearisedOutputs
from relin._problem import Problem
from relin._types import Flag, Outputs, Params, Scalar, Targets

_POSITIVE = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


class Solved(NamedTuple):
    """A displacement, the iterations it took, and whether the solver says that it solved the system."""

    displacement: Params
    iterations: Int[Array, ""]
    successful: Flag


class LinearisedProblem(eqx.Module):
    """min_δ mean ℓ(f + J δ, y) + λ/2 ‖δ‖² on one batch."""

    problem: Problem
    linearised: LinearisedOutputs
    targets: Targets
    damping: Scalar
    like: Params

    def outputs(self, displacement: Params) -> Outputs:
        return self.linearised.value(displacement)

    def loss(self, displacement: Params) -> Scalar:
        """The mean loss, without the damping's term."""
        return self.problem.loss.mean(self.outputs(displacement), self.targets)

    def objective(self, displacement: Params) -> Scalar:
        return self.loss(displacement) + 0.5 * self.damping * _tree.norm(displacement) ** 2

    def gradient(self, displacement: Params) -> Params:
        """Of the objective."""
        slope = self.problem.loss.gradient(self.outputs(displacement), self.targets)
        return _tree.add(self._pulled(slope), _tree.scale(self.damping, displacement))

    def quadratic(self, displacement: Params) -> Scalar:
        """The second-order expansion of the loss in the outputs at δ = 0, at a displacement."""
        outputs, change = self.linearised.at_anchor, self.linearised.pushforward(displacement)
        loss, y = self.problem.loss, self.targets
        curved = loss.gradient(outputs, y) + 0.5 * loss.hessian_product(outputs, y, change)
        return loss.mean(outputs, y) + jnp.sum(curved * change) / outputs.shape[0]

    def newton_point(self, displacement: Params, functions: bool, solver: lx.AbstractLinearSolver) -> Solved:
        """Where the objective's second-order expansion at a displacement is least.

        (G + λI) δ = −Jᵀ u / N with u = ∂ℓ/∂f − H J δ_now, G = JᵀHJ/N, derivatives at the outputs of δ_now. In function
        space, with H = BBᵀ, u = B w and M = BᵀJ/√N: δ = −Mᵀ (MMᵀ + λI)⁻¹ w/√N, the same by the push-through identity.
        """
        outputs, loss, y = self.outputs(displacement), self.problem.loss, self.targets
        change = self.linearised.pushforward(displacement)
        slope = loss.gradient(outputs, y) - loss.hessian_product(outputs, y, change)
        if functions:
            return self._in_functions(outputs, slope, solver)

        def curvature(vector: Params) -> Params:
            curved = loss.hessian_product(outputs, y, self.linearised.pushforward(vector))
            return _tree.add(self._pulled(curved), _tree.scale(self.damping, vector))

        return _solved(curvature, _tree.scale(-1.0, self._pulled(slope)), solver)

    def _in_functions(self, outputs: Outputs, slope: Outputs, solver: lx.AbstractLinearSolver) -> Solved:
        factor, inverse = _factors(self.problem, outputs, self.targets)

        def spread(dual: Outputs) -> Outputs:  # B w
            return jnp.einsum("ncd,nd->nc", factor, dual, precision="highest")

        def gathered(values: Outputs) -> Outputs:  # Bᵀ v
            return jnp.einsum("ncd,nc->nd", factor, values, precision="highest")

        def curvature(dual: Outputs) -> Outputs:
            return gathered(self.linearised.pushforward(self._pulled(spread(dual)))) + self.damping * dual

        wanted = jnp.einsum("ncd,nc->nd", inverse, slope, precision="highest")
        dual, iterations, successful = _solved(curvature, wanted, solver)
        return Solved(_tree.scale(-1.0, self._pulled(spread(dual))), iterations, successful)

    def _pulled(self, cotangent: Outputs) -> Params:
        """Jᵀ c / N."""
        return self.linearised.pullback(cotangent / cotangent.shape[0], self.like)


def _factors(
    problem: Problem, outputs: Outputs, targets: Targets
) -> tuple[Float[Array, "batch C C"], Float[Array, "batch C C"]]:
    """B with H = BBᵀ for each example, and B⁻ᵀ; eigenvalues of H that rounding hides are raised to where it ends."""
    units = jnp.eye(outputs.shape[1], dtype=outputs.dtype)

    def column(unit: Array) -> Array:
        return problem.loss.hessian_product(outputs, targets, jnp.broadcast_to(unit, outputs.shape))

    values, vectors = jnp.linalg.eigh(jax.vmap(column, out_axes=2)(units))
    least = jnp.finfo(values.dtype).eps * values[:, -1:]
    roots = jnp.sqrt(jnp.maximum(jnp.maximum(values, least), jnp.finfo(values.dtype).tiny))[:, None]
    return vectors * roots, vectors / roots


def _solved(function: Any, vector: Any, solver: lx.AbstractLinearSolver) -> Solved:
    structure = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), vector)
    operator = lx.FunctionLinearOperator(function, structure, _POSITIVE)
    norm = _tree.norm(vector)
    unit = _tree.scale(1 / jnp.where(norm > 0, norm, 1.0), vector)  # so that tolerances are relative to it
    solution = lx.linear_solve(operator, unit, solver, throw=False)
    iterations = jnp.asarray(solution.stats.get("num_steps", 0), jnp.int32)
    return Solved(_tree.scale(norm, solution.value), iterations, solution.result == lx.RESULTS.successful)
