"""What schedules and observers may look at."""

import equinox as eqx
import jax
import jax.numpy as jnp

from relin._core import tree as _tree
from relin._core.linearise import Linearisation
from relin._core.problem import Problem
from relin._core.types import Inputs, Outputs, Params, Scalar, Step, Targets

Predictions = tuple[Outputs, Outputs, Outputs]


class Context(eqx.Module):
    """The state of a run between two steps, read-only: what schedules, safeguards and observers are shown.

    **Attributes:**

    - `problem`: the network and its loss; schedules and safeguards get the network as it is trained on the coming
      batch, observers as it is evaluated.
    - `anchor`, `displacement`: θ_s and δ_t, PyTrees like the parameters; θ_t is their sum.
    - `step`: t, the coming step, from 0.
    - `feature_updates`: re-linearisations after step 0, so far.
    - `inputs`, `targets`: the batch of the coming step; `None` for observers.
    - `later`: the batches of the steps after it that a safeguard asked for.
    - `traced`: whether the code runs inside a compiled program; where it does not, work on large arrays is cut into
      pieces from the host.
    """

    problem: Problem
    anchor: Params
    displacement: Params
    step: Step
    feature_updates: Step
    inputs: Inputs | None = None
    targets: Targets | None = None
    traced: bool = eqx.field(static=True, default=True)
    later: tuple[tuple[Inputs, Targets], ...] = ()

    @property
    def linearisation(self) -> Linearisation:
        """The network linearised at the anchor."""
        return self.problem.linearise(self.anchor)

    @property
    def batch(self) -> tuple[Inputs, Targets]:
        """The batch of the coming step. Schedules and safeguards are always shown one, observers never."""
        if self.inputs is None or self.targets is None:
            raise ValueError("There is no coming batch here; pass a probe.")
        return self.inputs, self.targets

    @property
    def batches(self) -> tuple[tuple[Inputs, Targets], ...]:
        """The batch of the coming step, and the later ones that a safeguard asked for by `num_batches`."""
        return self.batch, *self.later

    @property
    def half_batch(self) -> tuple[Inputs, Targets]:
        """The first half of the coming batch, rounded down to at least one example: a cheaper batch to look at."""
        num_examples = jax.tree.leaves(self.inputs)[0].shape[0]
        return jax.tree.map(lambda a: a[: max(1, num_examples // 2)], self.batch)

    def predictions(self, x: Inputs) -> Predictions:
        """f̄(x), f(x; θ_t) and f(x; θ_s) of inputs `x`, each of the network's shape, `(batch, C)`."""
        return _predictions(self.linearisation, self.displacement, x)

    def predictions_in_chunks(self, x: Inputs, chunk_size: int) -> Predictions:
        """The same, with at most `chunk_size` inputs in the network at once."""
        num_inputs = jax.tree.leaves(x)[0].shape[0]
        whole = num_inputs - num_inputs % chunk_size
        if not self.traced:
            parts = []
            for start in range(0, num_inputs, chunk_size):
                first = max(0, min(start, num_inputs - chunk_size))  # the last piece is as long as the others
                piece = jax.tree.map(lambda a, i=first: a[i : i + chunk_size], x)
                outputs = _compiled_predictions(self.linearisation, self.displacement, piece)
                parts.append(tuple(column[start - first :] for column in outputs))
        elif num_inputs <= chunk_size:
            return self.predictions(x)
        else:
            pieces = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk_size, *a.shape[1:]), x)
            mapped = jax.lax.map(self.predictions, pieces)
            parts = [tuple(part.reshape(whole, *part.shape[2:]) for part in mapped)]
            if whole < num_inputs:
                parts.append(self.predictions(jax.tree.map(lambda a: a[whole:], x)))
        linearised, network, at_anchor = (jnp.concatenate(column) for column in zip(*parts, strict=True))
        return linearised, network, at_anchor

    def linearisation_error(self, x: Inputs) -> Scalar:
        """‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ over the whole batch; 0 at an anchor."""
        return self.error_of(self.predictions(x))

    def error_of(self, predictions: Predictions) -> Scalar:
        """The linearisation error of predictions; 0 at an anchor, where they differ by rounding only."""
        error = relative_error(*predictions)
        return jnp.where(_tree.norm(self.displacement) == 0, jnp.zeros_like(error), error)

    def network_loss(self, scale: Scalar | float, x: Inputs, y: Targets) -> Scalar:
        """L of the network at anchor + scale · displacement, on the batch (x, y)."""
        loss = _network_loss if self.traced else _compiled_network_loss
        return loss(self.problem, self.anchor, self.displacement, jnp.asarray(scale), x, y)

    def linearised_loss(self, scale: Scalar | float, x: Inputs, y: Targets) -> Scalar:
        """L of the linearised network at scale · displacement, on the batch (x, y)."""
        loss = _linearised_loss if self.traced else _compiled_linearised_loss
        return loss(self.problem, self.anchor, self.displacement, jnp.asarray(scale), x, y)


def relative_error(linearised: Outputs, network: Outputs, at_anchor: Outputs) -> Scalar:
    """‖network − linearised‖ / ‖network − at_anchor‖; 0 where nothing moved."""
    error = jnp.linalg.norm(network - linearised)
    moved = jnp.linalg.norm(network - at_anchor)
    return jnp.where(moved == 0, 0.0, error / jnp.where(moved == 0, 1.0, moved))


def shortened(scale: Scalar, displacement: Params) -> Params:
    """scale · displacement; zero where the scale is, also of a displacement that is not finite."""
    return _tree.select(scale > 0, _tree.scale(scale, displacement), _tree.zeros_like(displacement))


def _predictions(linearisation: Linearisation, displacement: Params, x: Inputs) -> Predictions:
    at_anchor = linearisation.at_anchor(x)
    linearised = at_anchor + linearisation.jvp(displacement, x)
    if linearisation.taylor.order == 2:
        linearised = linearisation.value(displacement, x)
    return linearised, linearisation.network(displacement, x), at_anchor


def _network_loss(
    problem: Problem, anchor: Params, displacement: Params, scale: Scalar, x: Inputs, y: Targets
) -> Scalar:
    return problem.loss.mean(problem.linearise(anchor).network(shortened(scale, displacement), x), y)


def _linearised_loss(
    problem: Problem, anchor: Params, displacement: Params, scale: Scalar, x: Inputs, y: Targets
) -> Scalar:
    return problem.loss.mean(problem.linearise(anchor).value(shortened(scale, displacement), x), y)


_compiled_network_loss = eqx.filter_jit(_network_loss)
_compiled_linearised_loss = eqx.filter_jit(_linearised_loss)
_compiled_predictions = eqx.filter_jit(_predictions)
