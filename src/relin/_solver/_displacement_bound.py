"""A bound on how far a window goes, relative to the weights at its anchor."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from relin._core import check as _check, tree as _tree
from relin._core.names import parameter_names
from relin._core.types import Params, Scalar


class DisplacementBound(eqx.Module):
    """Bounds the displacement of each layer by a part of its weights' norm, after every step.

    With g the parameters of a layer, of which there are n_g, and r the root mean square of all weights at the anchor,

        δ_g ← δ_g · min(1, c max(‖θ_{s,g}‖, f r √n_g) / ‖δ_g‖).

    The linear model is trusted where the weights change by a part of themselves, and a window whose loss would grow
    without end stays in a ball. `TrustRegion` differs: it judges one displacement of all parameters, when the window is
    over and on the network's own loss, and adapts its radius by that; this bound acts at every step, layer by layer,
    evaluates nothing, and its size is fixed. They go together. The optimiser is not told: its state is that of its own
    steps, whose sum is shortened.

    The floor f r is for weights that are zero or close to it at the anchor, such as biases and a last layer that begins
    at zero, which a bound relative to their own norm would hold there for ever. Taken per layer, a bias goes as far as
    the weights that it belongs to.

    The bound acts at every period: with `Every(1)` and where it binds, the run is *not* ordinary training, but
    one whose steps are bounded relative to the weights (You et al., arXiv:1708.03888, scale all to such a bound). A run
    with a bound costs at `Every(1)` what it does at other periods. The norms take a pass over weights and displacement
    at every step, which is little beside the gradient.

    **Arguments:**

    - `ratio`: c, above 0.
    - `per`: what is bounded together: each `"parameter"`, a PyTree's leaf; the parameters of a `"layer"`, whose names
      differ in their last part only, as `encoder.0.kernel` and `encoder.0.bias` do; or the whole `"network"`. Names are
      those of `PerParameter`. Parameters whose names have one part are one layer.
    - `floor`: f, at least 0; 0 leaves a layer of zeros where it is.

    **Raises:** `ValueError` for numbers out of range, and another `per`.
    """

    ratio: Scalar | float
    per: Literal["parameter", "layer", "network"] = eqx.field(static=True, default="layer")
    floor: Scalar | float = 0.1

    def __check_init__(self):
        if not _check.is_number(self.ratio, lambda ratio: 0 < ratio < math.inf):
            raise ValueError(
                f"`ratio` must be above 0 and finite, got {self.ratio}; 0.1 lets weights change by a tenth; "
                "for no bound leave `bound` out."
            )
        if not _check.is_number(self.floor, lambda floor: 0 <= floor < math.inf):
            raise ValueError(f"`floor` must be at least 0 and finite, got {self.floor}; 0.1 is the default.")
        _check.choice(self.per, "per", ("parameter", "layer", "network"))

    def check(self, params: Params) -> None:
        """Raises `ValueError` where the bound is zero at the start, or parameters' names are ambiguous."""
        self._groups(params)
        if not any(jnp.any(leaf) for leaf in jax.tree.leaves(params)):
            raise ValueError(
                "A bound relative to the weights needs some that are not zero, got parameters that all are; initialise "
                "them, or leave `bound` out."
            )

    def bounded(self, displacement: Params, anchor: Params) -> Params:
        """The displacement within the bound; not a number where its norm overflows, so that the run diverges."""
        leaves, structure = jax.tree.flatten(displacement)
        anchors = jax.tree.leaves(anchor)
        typical = self.floor * _tree.norm(anchors) / math.sqrt(sum(leaf.size for leaf in anchors))
        for group in self._groups(anchor):
            size, own = sum(leaves[i].size for i in group), _tree.norm([anchors[i] for i in group])
            length = _tree.norm([leaves[i] for i in group])
            most = self.ratio * jnp.maximum(own, typical * math.sqrt(size))
            over = length > most
            factor = jnp.where(over, most / jnp.where(over, length, 1), 1)
            factor = jnp.where(jnp.isfinite(length + most), factor, jnp.nan)  # a step too large to measure is told
            for i in group:
                leaves[i] = (factor * leaves[i]).astype(leaves[i].dtype)
        return jax.tree.unflatten(structure, leaves)

    def _groups(self, params: Params) -> list[list[int]]:
        """The places among the leaves of what is bounded together."""
        names = parameter_names(params)
        of = {"parameter": lambda name: name, "layer": lambda name: name.rpartition(".")[0], "network": lambda _: ""}
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            groups.setdefault(of[self.per](name), []).append(place)
        return list(groups.values())
