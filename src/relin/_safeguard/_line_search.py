"""Backtracking along the displacement."""

import equinox as eqx
import jax
import jax.numpy as jnp

from relin._core import check as _check
from relin._core.context import Context
from relin._core.types import Scalar, State
from relin._safeguard._base import AbstractSafeguard, Probe, StepScale


class LineSearch(AbstractSafeguard):
    """Goes along the displacement only as far as the network's own loss allows.

    The scale is the largest α in 1, β, …, β^max_halvings with L(f(·; θ_s + α δ)) ≤ c L(f(·; θ_s)) on the probe; if none
    is, it is 0 and the anchor stays. (Backtracking, Nocedal & Wright 2006, algorithm 3.1, with a bound on the loss in
    place of sufficient decrease.)

    **Arguments:**

    - `factor`: c, at least 1: by how much the loss may rise over a re-linearisation.
    - `shrink`: β, in (0, 1).
    - `max_halvings`: how often the scale may be shrunk.
    - `probe`: inputs and targets `(x, y)` on which the loss is measured; the coming step's batch if not given.

    **Raises:** `ValueError` for numbers out of range.
    """

    factor: Scalar | float = 1.0
    shrink: Scalar | float = 0.5
    max_halvings: int = eqx.field(static=True, default=6)
    probe: Probe | None = None

    def __check_init__(self):
        if not _check.is_number(self.factor, lambda factor: factor >= 1):
            raise ValueError(f"`factor` must be at least 1, got {self.factor}; 1 allows no rise of the loss.")
        if not _check.is_number(self.shrink, lambda shrink: 0 < shrink < 1):
            raise ValueError(
                f"`shrink` must be between 0 and 1, got {self.shrink}; 0.5 halves the scale at each refusal."
            )
        _check.count(self.max_halvings, "max_halvings", "6 is usual", least=0)

    def step_scale(self, context: Context, state: State) -> tuple[StepScale, State]:
        x, y = context.batch if self.probe is None else self.probe
        before = context.network_loss(0.0, x, y)
        bound = self.factor * before

        def refused(scale: jax.Array) -> jax.Array:
            return ~(context.network_loss(scale, x, y) <= bound)  # not a number is refused too

        def shrunk(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            scale, tries, _ = carry
            scale = (scale * self.shrink).astype(scale.dtype)
            return scale, tries + 1, refused(scale)

        def more(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            return carry[2] & (carry[1] <= self.max_halvings)

        whole = jnp.ones((), before.dtype)
        carry = whole, jnp.ones((), jnp.int32), refused(whole)
        if context.traced:
            carry = jax.lax.while_loop(more, shrunk, carry)
        else:
            while more(carry):
                carry = shrunk(carry)
        scale, tries, still_refused = carry
        return StepScale(jnp.where(still_refused, 0.0, scale), tries + 1), state
