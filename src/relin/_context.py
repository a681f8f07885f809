"""What schedules and observers may look at."""

import equinox as eqx
import jax
import jax.numpy as jnp

from relin._linearise import Linearisation
from relin._problem import Problem
from relin._types import Inputs, Outputs, Params, Scalar, Step, Targets

Predictions = tuple[Outputs, Outputs, Outputs]


class Context(eqx.Module):
    """The state of a run between two steps, read-only.

    `inputs` and `targets` are the batch of the coming step where there is one. `traced` tells whether the code runs
    inside a compiled program; where it does not, work on large arrays is cut into pieces from the host.
    """

    problem: Problem
    anchor: Params
    displacement: Params
    step: Step
    feature_updates: Step
    inputs: Inputs | None = None
    targets: Targets | None = None
    traced: bool = eqx.field(static=True, default=True)

    @property
    def linearisation(self) -> Linearisation:
        return self.problem.linearise(self.anchor)

    def predictions(self, x: Inputs) -> Predictions:
        """f̄(x), f(x; θ_t) and f(x; θ_s), each of shape `(batch, C)`."""
        return _predictions(self.linearisation, self.displacement, x)

    def predictions_in_chunks(self, x: Inputs, chunk_size: int) -> Predictions:
        """The same, with at most `chunk_size` inputs in the network at once."""
        num_inputs = jax.tree.leaves(x)[0].shape[0]
        whole = num_inputs - num_inputs % chunk_size
        if not self.traced:
            starts = range(0, num_inputs, chunk_size)
            pieces = [jax.tree.map(lambda a, i=i: a[i : i + chunk_size], x) for i in starts]
            parts = [_compiled_predictions(self.linearisation, self.displacement, piece) for piece in pieces]
        elif num_inputs <= chunk_size:
            return self.predictions(x)
        else:
            pieces = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk_size, *a.shape[1:]), x)
            mapped = jax.lax.map(self.predictions, pieces)
            parts = [tuple(part.reshape(whole, -1) for part in mapped)]
            if whole < num_inputs:
                parts.append(self.predictions(jax.tree.map(lambda a: a[whole:], x)))
        linearised, network, at_anchor = (jnp.concatenate(column) for column in zip(*parts, strict=True))
        return linearised, network, at_anchor

    def linearisation_error(self, x: Inputs) -> Scalar:
        """‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ over the whole batch; 0 at an anchor."""
        return relative_error(*self.predictions(x))


def relative_error(linearised: Outputs, network: Outputs, at_anchor: Outputs) -> Scalar:
    """‖network − linearised‖ / ‖network − at_anchor‖; 0 where nothing moved."""
    error = jnp.linalg.norm(network - linearised)
    moved = jnp.linalg.norm(network - at_anchor)
    return jnp.where(moved == 0, 0.0, error / jnp.where(moved == 0, 1.0, moved))


def _predictions(linearisation: Linearisation, displacement: Params, x: Inputs) -> Predictions:
    at_anchor = linearisation.at_anchor(x)
    linearised = at_anchor + linearisation.jvp(displacement, x)
    return linearised, linearisation.network(displacement, x), at_anchor


_compiled_predictions = eqx.filter_jit(_predictions)
