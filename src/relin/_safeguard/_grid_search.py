"""The best of a grid of scales."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relin._core import check as _check
from relin._core.context import Context
from relin._core.types import Scalar, State
from relin._safeguard._base import AbstractSafeguard, Probe, StepScale


class GridSearch(AbstractSafeguard):
    """Goes along the displacement to where the network's own loss is least, of a grid of scales.

    The scale is the α of the grid with the least L(f(·; θ_s + α δ)), the mean over several batches; of equal ones the
    largest. (The line search of Abreu et al., arXiv:2510.09378.) A loss that is not finite counts as infinite; where it
    is at every scale, the scale is 0: the anchor stays, the displacement is given up, and no feature update is counted.

    Unlike `LineSearch` it does not compare with the loss at the anchor, so the loss may rise, unless 0 is among
    `scales`. With K = 1 it is a search along every step of the optimiser. It costs an evaluation of the network for
    each scale and batch, once for each anchor; in lanes with `drive="vmap"` at every step, as all that an anchor costs.

    **Arguments:**

    - `scales`: of shape `(scales,)`, each in [0, 1].
    - `batches`: how many batches the loss is the mean of: that of the coming step and those of the steps after it,
      which are trained on in their turn all the same. An iterable is not read beyond the run's last step. Where every
      step sees the same batch, it is evaluated once.
    - `probe`: inputs and targets `(x, y)` on which the loss is measured in place of the batches.

    **Raises:** `ValueError` for numbers out of range.
    """

    scales: Float[Array, " scales"] | tuple[Scalar | float, ...] = tuple(2 ** (-i / 2) for i in range(5))
    batches: int = eqx.field(static=True, default=4)
    probe: Probe | None = None

    def __check_init__(self):
        if not _is_grid(self.scales):
            raise ValueError(
                "`scales` must be one or more numbers from 0 to 1, not all 0, got "
                f"{self.scales!r}; (1, 0.5, 0.25) tries the whole displacement, half of it and a quarter."
            )
        _check.count(self.batches, "batches", "4 is usual")

    @property
    def num_batches(self) -> int:
        return self.batches if self.probe is None else 1

    def step_scale(self, context: Context, state: State) -> tuple[StepScale, State]:
        batches = context.batches if self.probe is None else (self.probe,)
        scales = jnp.stack([jnp.asarray(scale, jnp.result_type(float)) for scale in self.scales])
        if context.traced:
            stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)

            def of_scale(scale: Array) -> Array:
                return jnp.mean(jax.lax.map(lambda batch: context.network_loss(scale, *batch), stacked))

            losses = jax.lax.map(of_scale, scales)
        else:
            losses = jnp.stack([jnp.mean(_losses(context, scale, batches)) for scale in scales])
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
        least = jnp.min(losses)
        best = jnp.max(jnp.where(losses == least, scales, 0))
        evaluations = jnp.asarray(len(scales) * len(batches), jnp.int32)
        return StepScale(jnp.where(jnp.isfinite(least), best, 0), evaluations), state


def _losses(context: Context, scale: Array, batches: tuple[Probe, ...]) -> Array:
    return jnp.stack([context.network_loss(scale, *batch) for batch in batches])


def _is_grid(scales: Any) -> bool:
    """Whether they may be the scales of a grid."""
    if not isinstance(scales, tuple | list | jax.Array | np.ndarray) or getattr(scales, "ndim", 1) != 1:
        return False
    within = all(_check.is_number(scale, lambda scale: 0 <= scale <= 1) for scale in scales)
    return within and any(_check.is_number(scale, lambda scale: scale > 0) for scale in scales)
