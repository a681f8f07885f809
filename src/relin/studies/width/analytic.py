"""How far a network's kernel is from that of a network of infinite width."""

from typing import Any

from jaxtyping import Array, Float, Shaped

import relin as il
from relin.kernel._analytic import analytic_cnn, analytic_mlp
from relin.kernel._metrics import relative_change
from relin.kernel._ntk import ntk

_LIMITS = {"mlp": (analytic_mlp, ("depth", "activation")), "cnn": (analytic_cnn, ("kernel_size", "activation"))}
"""The kernel of infinite width of each network that has one in closed form, and the options it depends on."""


class AnalyticDeviation(il.AbstractObserver):
    """‖Θ_0 − Θ_∞‖/‖Θ_∞‖ as `analytic_deviation`, of the kernels averaged over outputs, the same at every record.

    **Arguments:**

    - `inputs`: the probe set, N examples.
    - `limit`: Θ_∞ on it.
    """

    inputs: Float[Array, "N ..."]
    limit: Float[Array, "N N"]

    def init(self, context: il.Context) -> Shaped[Array, ""]:
        kernel = ntk(context.problem.apply, context.anchor, self.inputs, outputs="mean")
        return relative_change(kernel, self.limit)

    def compute(self, context: il.Context, state: Any) -> tuple[dict[str, Shaped[Array, ""]], Any]:
        return {"analytic_deviation": state}, state


def analytic_deviation(model: str, options: dict[str, Any], inputs: Float[Array, "N ..."]) -> AnalyticDeviation | None:
    """The observer of a network in NTK parametrisation; none where the limit has no closed form here."""
    if model not in _LIMITS:
        return None
    limit, known = _LIMITS[model]
    own = {name: options[name] for name in known if name in options}
    if own.get("activation", "relu") not in ("relu", "erf"):
        return None
    return AnalyticDeviation(inputs, limit(inputs, **own).ntk)
