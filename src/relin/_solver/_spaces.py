"""Where a step of the linear model f(θ_s) + J δ is sought: among the weights, or among cotangents of the outputs."""

import abc
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jaxtyping import Array, Float, Int

from relin._core import tree as _tree
from relin._core.linearise import LinearisedOutputs
from relin._core.types import Flag, Outputs, Params, Scalar
from relin._solver._conjugate_gradients import rounding

Hessian = Callable[[Outputs], Outputs]
"""v ↦ H v of every example, `(N, C)`."""
Space = Literal["auto", "weights", "functions"]

POSITIVE = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


class Solved(NamedTuple):
    """A Newton direction, in the coordinates of its space, and what it took."""

    direction: Any
    iterations: Int[Array, ""]
    """Of the linear solver; 0 where it does not say."""
    succeeded: Flag


class AbstractSpace(eqx.Module):
    """Coordinates z of a displacement δ, in which the damped problem L(f(θ_s) + J δ) + λ/2 ‖δ‖² is solved.

    Gradients and directions of the problem have coordinates like z.
    """

    jvp: Callable[[Params], Outputs]
    """δ ↦ J δ, `(N, C)`."""
    vjp: Callable[[Outputs], Params]
    """c ↦ Jᵀ c."""
    damping: Scalar
    """λ."""

    @abc.abstractmethod
    def origin(self) -> Any:
        """The coordinates of δ = 0."""

    @abc.abstractmethod
    def displacement(self, z: Any) -> Params:
        """δ."""

    @abc.abstractmethod
    def tangent(self, z: Any) -> Outputs:
        """J δ, `(N, C)`."""

    @abc.abstractmethod
    def inner(self, z: Any, other: Any, tangent: Outputs) -> Scalar:
        """The inner product of the displacements of `z` and `other`, whose tangent is `tangent`."""

    @abc.abstractmethod
    def gradient(self, cotangent: Outputs, z: Any) -> Any:
        """Jᵀ c + λ δ, for c = ∂L/∂f, `(N, C)`."""

    @abc.abstractmethod
    def norm(self, z: Any) -> Scalar:
        """‖δ‖."""

    @abc.abstractmethod
    def newton(self, hessian: Hessian, gradient: Any, solver: lx.AbstractLinearSolver) -> Solved:
        """−(G + λI)⁻¹ of a gradient, with G = Jᵀ H J / N."""


class Weights(AbstractSpace):
    """z = δ: the system (G + λI) d = −∇ of size P."""

    anchor: Params

    def origin(self) -> Params:
        return _tree.no_displacement(self.anchor)

    def displacement(self, z: Params) -> Params:
        return z

    def tangent(self, z: Params) -> Outputs:
        return self.jvp(z)

    def inner(self, z: Params, other: Params, tangent: Outputs) -> Scalar:
        return jnp.asarray(optax.tree.vdot(z, other))

    def gradient(self, cotangent: Outputs, z: Params) -> Params:
        return _tree.add(self.vjp(cotangent), _tree.scale(self.damping, z))

    def norm(self, z: Params) -> Scalar:
        return _tree.norm(z)

    def newton(self, hessian: Hessian, gradient: Params, solver: lx.AbstractLinearSolver) -> Solved:
        def damped(direction: Params) -> Params:
            tangent = self.jvp(direction)
            return self.gradient(hessian(tangent) / len(tangent), direction)

        return _solved(damped, _tree.scale(-1.0, gradient), solver)


class Functions(AbstractSpace):
    """z = a with δ = Jᵀ a: systems of size N·C with the kernel Θ = J Jᵀ.

    Newton's direction d = Jᵀ v has (H Θ/N + λI) v = −c for a gradient Jᵀ c. With H = B Bᵀ and −c = B h + c₀, where
    c₀ is in directions without curvature, v = B w + c₀/λ and

        (Bᵀ Θ B/N + λI) w = h − Bᵀ Θ c₀/(λN),

    which is symmetric, needs no inverse of H, and at λ = 0, for c₀ = 0, gives the step of minimum norm. At λ = 0 with
    c₀ ≠ 0 the loss has no minimum along c₀: it is left out, and the solve counts as failed. A direction in which the
    loss curves down is taken as one without curvature, and the solve counts as failed.
    """

    zero: Outputs

    def origin(self) -> Outputs:
        return self.zero

    def displacement(self, z: Outputs) -> Params:
        return self.vjp(z)

    def tangent(self, z: Outputs) -> Outputs:
        return self.jvp(self.vjp(z))

    def inner(self, z: Outputs, other: Outputs, tangent: Outputs) -> Scalar:
        return jnp.vdot(z, tangent)

    def gradient(self, cotangent: Outputs, z: Outputs) -> Outputs:
        return cotangent + _tree.scale(self.damping, z)

    def norm(self, z: Outputs) -> Scalar:
        return _tree.norm(self.vjp(z))

    def newton(self, hessian: Hessian, gradient: Outputs, solver: lx.AbstractLinearSolver) -> Solved:
        root, h, flat, convex = _factored(_dense(hessian, gradient), -gradient)

        def times(w: Outputs) -> Outputs:
            return _each("ncd,nd->nc", root, w)

        def transposed(v: Outputs) -> Outputs:
            return _each("ncd,nc->nd", root, v)

        def damped(w: Outputs) -> Outputs:
            return transposed(self.tangent(times(w))) / len(w) + _tree.scale(self.damping, w)

        solvable = convex & ((self.damping > 0) | jnp.all(flat == 0))
        flat = jnp.where(self.damping > 0, flat / jnp.where(self.damping > 0, self.damping, 1), 0).astype(flat.dtype)
        solved = _solved(damped, h - transposed(self.tangent(flat)) / len(h), solver)
        return Solved(times(solved.direction) + flat, solved.iterations, solved.succeeded & solvable)


def space_of(
    kind: Space, linearised: LinearisedOutputs, anchor: Params, damping: Scalar
) -> tuple[Outputs, AbstractSpace]:
    """f(x; θ_s), and the space of that kind, by default the one with fewer coordinates.

    **Arguments:** `linearised` f̄ on a batch, at the anchor θ_s; `damping` λ.
    """
    outputs, jvp = linearised.at_anchor, linearised.pushforward

    def vjp(cotangent: Outputs) -> Params:
        return linearised.pullback(cotangent, anchor)

    if kind == "auto":
        num_params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(anchor))
        kind = "weights" if num_params <= outputs.size else "functions"
    if kind == "weights":
        return outputs, Weights(jvp, vjp, damping, anchor)
    return outputs, Functions(jvp, vjp, damping, _tree.no_displacement(outputs))


def _solved(function: Callable[[Any], Any], vector: Any, solver: lx.AbstractLinearSolver) -> Solved:
    operator = lx.FunctionLinearOperator(function, jax.eval_shape(lambda v: v, vector), POSITIVE)
    solution = lx.linear_solve(operator, vector, solver, throw=False)
    iterations = jnp.asarray(solution.stats.get("num_steps", 0), jnp.int32)
    left = _tree.norm(_tree.subtract(function(solution.value), vector))  # the solver's own is of rounded recurrences
    solved = left <= rounding(vector, 1 / 2) * _tree.norm(vector)
    return Solved(solution.value, iterations, (solution.result == lx.RESULTS.successful) & solved)


def _dense(hessian: Hessian, like: Outputs) -> Float[Array, "N C C"]:
    """H of every example."""
    basis = jnp.eye(like[0].size, dtype=like.dtype)
    columns = jax.vmap(lambda e: hessian(jnp.broadcast_to(e.reshape(like.shape[1:]), like.shape)))(basis)
    return jnp.moveaxis(columns.reshape(len(basis), len(like), -1), 0, -1)


def _each(sum_of: str, matrices: Float[Array, "N C C"], vectors: Outputs) -> Outputs:
    """One product for each example, with its outputs as one vector."""
    return jnp.einsum(sum_of, matrices, vectors.reshape(len(vectors), -1)).reshape(vectors.shape)


def _factored(hessian: Float[Array, "N C C"], vector: Outputs) -> tuple[Float[Array, "N C C"], Outputs, Outputs, Flag]:
    """B, h and c₀ of every example, with H = B Bᵀ and c = B h + c₀, both up to rounding; and whether H is positive
    semidefinite, without which B Bᵀ is that part of it."""
    curvature, basis = jnp.linalg.eigh(hessian)
    c = jnp.einsum("ncd,nc->nd", basis, vector.reshape(len(vector), -1))
    flat = curvature <= c.shape[1] * rounding(c, 1) * jnp.max(curvature)
    root = jnp.sqrt(jnp.where(flat, 0, curvature))
    h = jnp.where(flat, 0, c / jnp.where(flat, 1, root))
    outside = flat & (jnp.abs(c) > rounding(c, 2 / 3) * jnp.max(jnp.abs(c)))
    unbounded = jnp.einsum("ncd,nd->nc", basis, jnp.where(outside, c, 0))
    convex = jnp.all(curvature >= -rounding(c, 2 / 3) * jnp.max(jnp.abs(curvature)))
    return basis * root[:, None, :], h.reshape(vector.shape), unbounded.reshape(vector.shape), convex
