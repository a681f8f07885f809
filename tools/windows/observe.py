"""An observer of some steps, and of the network linearised where it is now."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import relin as il


def _no_displacement(params: Any) -> Any:
    """Zeros that XLA does not know to be zeros, see docs/known-problems.md."""
    return jax.tree.map(lambda leaf: jnp.minimum(jnp.abs(leaf), 0), params)


class At(il.AbstractObserver):
    """What another observer without a state measures at steps `first`, …, of the multiples of `every`; else `nan`.

    With `here` it is shown the network linearised at θ_t itself: at the end of a window, the next anchor.
    """

    observer: il.AbstractObserver
    every: jax.Array = eqx.field(converter=jnp.asarray, default=1)
    first: jax.Array = eqx.field(converter=jnp.asarray, default=0)
    here: bool = eqx.field(static=True, default=False)

    @property
    def labelled(self) -> dict[str, Any]:
        return self.observer.labelled

    def compute(self, context: il.Context, state: Any) -> tuple[dict[str, jax.Array], Any]:
        if self.here:
            params = jax.tree.map(jnp.add, context.anchor, context.displacement)
            context = replace(context, anchor=params, displacement=_no_displacement(params))
        shapes = eqx.filter_eval_shape(lambda: self.observer.compute(replace(context, traced=True), state)[0])
        due = (context.step >= self.first) & (context.step % self.every == 0)

        def measured() -> dict[str, jax.Array]:
            return self.observer.compute(context, state)[0]

        def nothing() -> dict[str, jax.Array]:
            return {name: jnp.full((), jnp.nan, shape.dtype) for name, shape in shapes.items()}

        if context.traced:
            return jax.lax.cond(due, measured, nothing), state
        return measured() if due else nothing(), state
