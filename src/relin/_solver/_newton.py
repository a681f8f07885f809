"""The linearised problem itself, damped, by Newton's method: a convex problem for a convex loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Int

from relin._core import tree as _tree
from relin._core.loss import AbstractLoss
from relin._core.types import Flag, Outputs, Scalar, Targets
from relin._solver._conjugate_gradients import rounding
from relin._solver._spaces import AbstractSpace, Solved

MAX_NEWTON_STEPS = 50
MAX_HALVINGS = 30
SUFFICIENT = 1e-4
"""The part of the slope's promise that a step must keep (Armijo; Nocedal & Wright 2006, section 3.1)."""


class _Iterate(NamedTuple):
    z: Any
    tangent: Outputs
    """J δ."""
    gradient: Any
    norm: Scalar
    """Of the gradient."""
    iterations: Int[Array, ""]
    steps: Int[Array, ""]
    progressed: Flag


def quadratic_step(
    loss: AbstractLoss, space: AbstractSpace, solver: lx.AbstractLinearSolver, outputs: Outputs, y: Targets
) -> Solved:
    """The minimum of the damped quadratic model at δ = 0: −(G + λI)⁻¹ ∇L, in the space's coordinates."""
    gradient = space.gradient(loss.gradient(outputs, y) / len(outputs), space.origin())
    return space.newton(lambda v: loss.hessian_product(outputs, y, v), gradient, solver)


def convex_step(
    loss: AbstractLoss, space: AbstractSpace, solver: lx.AbstractLinearSolver, outputs: Outputs, y: Targets
) -> Solved:
    """The minimum over δ of φ = L(f(θ_s) + J δ) + λ/2 ‖δ‖², in the space's coordinates.

    Newton's method with backtracking, until the gradient of φ is below √ε of its first norm.
    """

    def at(z: Any, tangent: Outputs, iterations: Int[Array, ""], steps: Int[Array, ""], progressed: Flag) -> _Iterate:
        gradient = space.gradient(loss.gradient(outputs + tangent, y) / len(outputs), z)
        return _Iterate(z, tangent, gradient, space.norm(gradient), iterations, steps, progressed)

    def body(now: _Iterate) -> _Iterate:
        solved = space.newton(lambda v: loss.hessian_product(outputs + now.tangent, y, v), now.gradient, solver)
        direction = solved.direction
        change = space.tangent(direction)
        slope = space.inner(now.gradient, direction, change)
        linear = space.damping * space.inner(now.z, direction, change)
        square = space.damping * space.inner(direction, direction, change)

        def rise(length: Scalar) -> Scalar:
            """φ along the direction, less λ/2 ‖δ‖² at its start."""
            value = loss.mean(outputs + now.tangent + length * change, y)
            return value + length * (linear + 0.5 * length * square)

        length, found = _backtracked(rise, slope)
        z = jax.tree.map(lambda a, b: jnp.where(found, a + (length * b).astype(a.dtype), a), now.z, direction)
        tangent = jnp.where(found, now.tangent + length * change, now.tangent)
        return at(z, tangent, now.iterations + solved.iterations, now.steps + 1, found)

    zero = jnp.zeros((), jnp.int32)
    first = at(space.origin(), _tree.no_displacement(outputs), zero, zero, jnp.ones((), bool))
    goal = rounding(outputs, 1 / 2) * first.norm

    def more(now: _Iterate) -> Flag:
        return now.progressed & (now.norm > goal) & (now.steps < MAX_NEWTON_STEPS)

    last = jax.lax.while_loop(more, body, first)
    return Solved(last.z, last.iterations, last.norm <= goal)


def _backtracked(function: Callable[[Scalar], Scalar], slope: Scalar) -> tuple[Scalar, Flag]:
    """The first of 1, ½, ¼, … at which the function has fallen enough from its value at 0, beyond rounding."""
    start = function(jnp.zeros_like(slope))
    slack = 10 * jnp.finfo(start.dtype).eps * jnp.abs(start)

    def refused(length: Scalar) -> Flag:
        return ~(function(length) <= start + SUFFICIENT * length * slope + slack)  # not a number is refused too

    def halved(carry: tuple[Scalar, Flag, Int[Array, ""]]) -> tuple[Scalar, Flag, Int[Array, ""]]:
        length = carry[0] / 2
        return length, refused(length), carry[2] + 1

    def more(carry: tuple[Scalar, Flag, Int[Array, ""]]) -> Flag:
        return carry[1] & (carry[2] < MAX_HALVINGS)

    whole = jnp.ones_like(slope)
    length, failed, _ = jax.lax.while_loop(more, halved, (whole, refused(whole), jnp.zeros((), jnp.int32)))
    return length, jnp.logical_not(failed)
