"""A radius that follows how well the linearisation predicts."""

import jax.numpy as jnp

from relin._core import check as _check, tree as _tree
from relin._core.context import Context
from relin._core.types import Scalar, State
from relin._safeguard._base import AbstractSafeguard, Probe, StepScale


class TrustRegion(AbstractSafeguard):
    """Goes along the displacement at most a radius, which adapts by the gain ratio.

    The gain ratio is actual over predicted decrease of the loss on the probe,

        ρ = (L(f(·; θ_s)) − L(f(·; θ_s + α δ))) / (L(f(·; θ_s)) − L(f̄(α δ))),   α = min(1, radius/‖δ‖).

    Where ρ < ¼ the radius becomes `shrink` · ‖α δ‖; where ρ > ¾ and the radius was reached it grows by `grow`. Where
    the loss rises or is not a number the displacement is given up: the scale is 0, and the radius shrinks. (The control
    of Levenberg–Marquardt and of Nocedal & Wright 2006, algorithm 4.1. On a probe that was not trained on the predicted
    decrease may be negative; a loss that falls all the same counts as ρ > ¾.)

    **Arguments:**

    - `radius`: of the first region, in parameter space; infinity lets the first displacement set the scale.
    - `shrink`, `grow`: factors of the radius, below and above 1.
    - `probe`: inputs and targets `(x, y)` on which the losses are measured; the coming step's batch if not given.

    **Raises:** `ValueError` for numbers out of range.
    """

    radius: Scalar | float
    shrink: Scalar | float = 0.5
    grow: Scalar | float = 2.0
    probe: Probe | None = None

    def __check_init__(self):
        if not _check.is_number(self.radius, lambda radius: radius > 0):
            raise ValueError(
                f"`radius` must be above 0, got {self.radius}; 1.0 is a usual start, infinity trusts the first step."
            )
        shrinks = _check.is_number(self.shrink, lambda shrink: 0 < shrink < 1)
        if not (shrinks and _check.is_number(self.grow, lambda grow: grow > 1)):
            raise ValueError(
                f"`shrink` must be between 0 and 1 and `grow` above 1, got {self.shrink} and {self.grow}; "
                "0.5 and 2 are usual."
            )

    def init(self, context: Context) -> State:
        return jnp.asarray(self.radius, _tree.norm(context.displacement).dtype)

    def step_scale(self, context: Context, state: State) -> tuple[StepScale, State]:
        x, y = context.batch if self.probe is None else self.probe
        length = _tree.norm(context.displacement)
        scale = jnp.where(length > state, state / jnp.where(length > 0, length, 1.0), 1.0)
        before = context.network_loss(0.0, x, y)
        actual = before - context.network_loss(scale, x, y)
        predicted = before - context.linearised_loss(scale, x, y)
        accepted = actual >= 0  # false where it is not a number
        fair = accepted & (actual >= 0.25 * predicted) & jnp.isfinite(actual) & jnp.isfinite(length)
        good = (actual > 0.75 * predicted) & (length >= state)
        followed = jnp.where(length < state, length, state)  # ‖α δ‖; the radius where δ is not finite
        radius = jnp.where(fair, jnp.where(good, self.grow * state, state), self.shrink * followed)
        radius = jnp.where(length == 0, state, radius).astype(state.dtype)
        return StepScale(jnp.where(accepted, scale, 0.0), jnp.asarray(3, jnp.int32)), radius
