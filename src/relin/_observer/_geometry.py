"""How far training moved, and how wrong the linearisation is."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from relin._core import tree as _tree
from relin._core.context import Context
from relin._core.types import Inputs, State
from relin._observer._base import AbstractObserver, chunk_of


class LinearisationError(AbstractObserver):
    """‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ on a probe set x, as `linearisation_error`; 0 at an anchor.

    **Arguments:**

    - `probe`: the inputs x, a PyTree of arrays with a leading axis of examples; norms are over all their outputs.
    - `chunk_size`: at most so many examples are in the network at once; by default what suits the device.

    **Raises:** `ValueError` for a `chunk_size` below 1.
    """

    probe: Inputs
    chunk_size: int = eqx.field(static=True)

    def __init__(self, probe: Inputs, chunk_size: int | None = None):
        self.probe = jax.tree.map(jnp.asarray, probe)
        self.chunk_size = chunk_of(self.probe, chunk_size)

    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        predictions = context.predictions_in_chunks(self.probe, self.chunk_size)
        return {"linearisation_error": context.error_of(predictions)}, state


class Movement(AbstractObserver):
    """How far the parameters are from where they began and from the anchor.

    Records `parameter_movement`, ‖θ_t − θ_0‖/‖θ_0‖ (Chizat et al. 2019, arXiv:1812.07956), and `displacement_norm`,
    ‖δ_t‖. θ_t − θ_0 is summed as (θ_s − θ_0) + δ_t: with the anchor still at θ_0 nothing cancels.
    """

    def init(self, context: Context) -> State:
        return context.anchor

    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        moved = _tree.add(_tree.subtract(context.anchor, state), context.displacement)
        record = {
            "parameter_movement": _tree.norm(moved) / _tree.norm(state),
            "displacement_norm": _tree.norm(context.displacement),
        }
        return record, state
