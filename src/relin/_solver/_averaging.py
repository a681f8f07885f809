"""Means of a window's iterates."""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from relin._core import check as _check, tree as _tree
from relin._core.types import Params, Scalar


class Iterates(NamedTuple):
    """What a mean is continued from; each field has the parameters' structure, so that parts with anchors of their own
    have windows of their own."""

    last: Params
    """δ_t."""
    weight: PyTree[Scalar]
    """Sum of the iterates' weights, the last one's being 1."""
    rounding: Params
    """What the mean lost in rounding."""


class AbstractAveraging(eqx.Module):
    """A weighted mean of the iterates of a window. Abstract; `UniformAverage` and `ExponentialAverage` are final."""

    @abc.abstractmethod
    def weight(self, before: Scalar) -> Scalar:
        """The sum of the iterates' weights with one more, which weighs 1, from the sum before it; 0 at an anchor."""

    def init(self, params: Params) -> Iterates:
        """At an anchor."""
        weight = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), params)
        return Iterates(_tree.no_displacement(params), weight, _tree.zeros_like(params))

    def check(self, params: Params) -> None:
        """Raises `ValueError` for parameters in which a mean of many iterates would lose its digits."""
        _check.single_precision(params, type(self).__name__)

    def averaged(self, mean: Params, iterates: Iterates, displacement: Params) -> tuple[Params, Iterates]:
        """The mean with one more iterate: δ̄ + (δ − δ̄)/W with W the sum of weights.

        What a sum loses in rounding is added at the next one (Kahan): without it the mean of a long window, whose
        changes are small, would stand still.
        """

        def each(mean: Array, new: Array, weight: Array, rounding: Array) -> tuple[Array, Array, Array]:
            weight = self.weight(weight).astype(weight.dtype)
            change = (new - mean) / weight + rounding
            moved = mean + change
            return moved, weight, change - (moved - mean)

        leaves, structure = jax.tree.flatten(mean)
        others = (jax.tree.leaves(tree) for tree in (displacement, iterates.weight, iterates.rounding))
        columns = zip(*map(each, leaves, *others), strict=True)
        mean, weight, rounding = (jax.tree.unflatten(structure, column) for column in columns)
        return mean, Iterates(displacement, weight, rounding)


class UniformAverage(AbstractAveraging):
    """The anchor moves to the mean of the window's iterates, instead of the last.

    A window is the steps between two re-linearisations. With its iterates δ_1, …, δ_k so far, the displacement is
    δ̄ = (δ_1 + … + δ_k)/k: the anchor moves to θ_s + δ̄, safeguards and adaptive schedules judge δ̄, observers record
    it, and the solution is θ_s + δ̄ of the last window. The optimiser alone steps from δ_k, and its state lives on
    as `WeightSpace.on_relinearise` says. `training_loss`, of the batches before their steps, is the iterates'.

    In a window of one step the mean is the step: `Every(1)` is ordinary training. Each iterate is kept beside the mean
    and what that lost in rounding: twice the parameters' memory. In single precision the sum of weights stands still
    from 2²⁴ steps, and the mean of a longer window is an exponential one.
    """

    def weight(self, before: Scalar) -> Scalar:
        return 1 + before


class ExponentialAverage(AbstractAveraging):
    """The anchor moves to an exponential mean of the window's iterates.

    δ̄ = Σ_i d^(k−i) δ_i / Σ_i d^(k−i), which is Adam's mean with bias correction, (1 − d) Σ_i d^(k−i) δ_i / (1 − d^k);
    everything else as for `UniformAverage`, to which it tends as d → 1. (Around a Gauss–Newton step: Abreu et al.,
    arXiv:2510.09378.)

    **Arguments:**

    - `decay`: d, above 0 and at most 1, which makes it `UniformAverage`; below, 1/(1 − d) steps are remembered.

    **Raises:** `ValueError` for numbers out of range.
    """

    decay: Scalar | float = 0.999

    def __check_init__(self):
        if not _check.is_number(self.decay, lambda decay: 0 < decay <= 1):
            raise ValueError(
                f"`decay` must be above 0 and at most 1, got {self.decay}; 0.999 is usual, 1 weighs all alike."
            )

    def weight(self, before: Scalar) -> Scalar:
        return 1 + self.decay * before
