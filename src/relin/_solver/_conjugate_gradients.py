"""Conjugate gradients that may be stopped anywhere, on operators that may be singular."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jaxtyping import Array, PyTree

from relin._core import check as _check, tree as _tree
from relin._core.types import Flag, Scalar


def rounding(tree: PyTree[Array], power: float | int) -> float:
    """ε^power, with ε the relative rounding of the tree's numbers, the coarsest if they differ."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(tree)) ** power


class Iterate(NamedTuple):
    """Where conjugate gradients are, on A y = b."""

    solution: PyTree[Array]
    """y."""
    residual: PyTree[Array]
    """b − A y."""
    direction: PyTree[Array]
    square: Scalar
    """‖b − A y‖²."""
    steepest: Scalar
    """The largest curvature along a direction so far."""
    curves: Flag
    """Whether A curves along the last direction; y stays as it is where not."""


def first_iterate(vector: PyTree[Array]) -> Iterate:
    square = _squared(vector)
    return Iterate(_tree.zeros_like(vector), vector, vector, square, jnp.zeros_like(square), jnp.ones((), bool))


def next_iterate(product_of: Callable[[PyTree[Array]], PyTree[Array]], now: Iterate) -> Iterate:
    """One step, with one product by A (Hestenes & Stiefel 1952)."""
    product, size = product_of(now.direction), _squared(now.direction)
    quotient = jnp.asarray(optax.tree.vdot(now.direction, product)) / size  # Rayleigh's
    steepest = jnp.maximum(now.steepest, quotient)
    curves = quotient > rounding(now.residual, 1) * steepest  # not a number does not curve either
    length = jnp.where(curves, now.square / (quotient * size), 0)
    solution, residual = _along(now.solution, length, now.direction), _along(now.residual, -length, product)
    square = jnp.where(curves, _squared(residual), now.square)
    direction = _along(residual, jnp.where(curves, square / now.square, 0), now.direction)
    return Iterate(solution, residual, direction, square, steepest, curves)


class ConjugateGradients(lx.AbstractLinearSolver):
    """Solves A y = b from y = 0 until ‖A y − b‖ ≤ `rtol` ‖b‖ (Hestenes & Stiefel 1952).

    Where A is singular and b in its range, y is the solution of minimum norm. Every iterate lowers ½ yᵀA y − bᵀy, so
    that y is a step of descent wherever it stops (Steihaug 1983): at `max_steps`, or where A does not curve along the
    next direction. `lineax.CG` asks for more, of each entry and of the last change of y: in float32 that often never
    holds, and where A is singular the iterations after the residual has vanished divide by rounding errors.

    **Arguments:**

    - `rtol`: ε^(2/3) of b's type if `None`, 4·10⁻¹¹ in float64 and 2·10⁻⁵ in float32.
    - `max_steps`: the most iterations, each with one product by A.

    **Raises:** `ValueError` where the operator is not tagged positive semidefinite.
    """

    rtol: float | None = None
    max_steps: int = 1000

    def __check_init__(self):
        if self.rtol is not None and not _check.is_number(self.rtol, lambda rtol: 0 < rtol < 1):
            raise ValueError(f"`rtol` must be between 0 and 1, got {self.rtol}; pass None for one that fits the type.")
        _check.count(self.max_steps, "max_steps", "1000 is usual")

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> lx.AbstractLinearOperator:
        if not lx.is_positive_semidefinite(operator):
            raise ValueError(
                "Conjugate gradients must be given a positive semidefinite operator, got one without "
                "lineax.positive_semidefinite_tag; tag it, or pass lineax.GMRES."
            )
        return operator

    def compute(
        self, state: lx.AbstractLinearOperator, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[PyTree[Array], lx.RESULTS, dict[str, Any]]:
        rtol = rounding(vector, 2 / 3) if self.rtol is None else self.rtol
        goal = rtol**2 * _squared(vector)

        def more(carry: tuple[Iterate, Array]) -> Flag:
            now, steps = carry
            return now.curves & (now.square > goal) & (steps < self.max_steps)

        def body(carry: tuple[Iterate, Array]) -> tuple[Iterate, Array]:
            return next_iterate(state.mv, carry[0]), carry[1] + 1

        now, steps = jax.lax.while_loop(more, body, (first_iterate(vector), jnp.zeros((), jnp.int32)))
        stopped = lx.RESULTS.where(now.curves, lx.RESULTS.max_steps_reached, lx.RESULTS.breakdown)
        result = lx.RESULTS.where(now.square <= goal, lx.RESULTS.successful, stopped)
        return now.solution, result, {"num_steps": steps, "max_steps": self.max_steps}

    def transpose(
        self, state: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        return state, {}

    def conj(
        self, state: lx.AbstractLinearOperator, options: dict[str, Any]
    ) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        return lx.conj(state), {}

    def assume_full_rank(self) -> bool:
        return False


def _squared(tree: PyTree[Array]) -> Scalar:
    return optax.tree.norm(tree, squared=True)


def _along(start: PyTree[Array], length: Scalar, direction: PyTree[Array]) -> PyTree[Array]:
    return _tree.add(start, _tree.scale(length, direction))
