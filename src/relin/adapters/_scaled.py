"""The output scale, which makes training lazy."""

import math
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from relin._core import check as _check
from relin._core.network import AbstractNetwork, mode_of
from relin._core.repr import short
from relin._core.types import Inputs, Outputs, Params, Scalar
from relin.adapters._closed import AbstractApply


class ScaledApply(AbstractApply):
    """`apply(params, x)`: α (f(x; θ) − f(x; θ_0)) of a network f."""

    constants: tuple[Shaped[Array, "..."], ...]
    """α, and the arrays of θ_0."""
    apply: Callable[[Params, Inputs], Outputs]
    _structure: Any = eqx.field(static=True)

    def __init__(self, apply: Callable[[Params, Inputs], Outputs], params: Params, alpha: Scalar | float):
        leaves, self._structure = jax.tree.flatten(params)
        self.apply, self.constants = apply, tuple(map(jnp.array, (alpha, *leaves)))

    @property
    def alpha(self) -> Scalar:
        return self.constants[0]

    @property
    def initial(self) -> Params:
        """θ_0."""
        return jax.tree.unflatten(self._structure, self.constants[1:])

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        now, before = self.apply(params, x), self.apply(self.initial, x)
        return jax.tree.map(lambda f, f_0: (self.alpha * (f - f_0)).astype(f.dtype), now, before)

    @property
    def mode(self) -> str:
        return mode_of(self.apply)

    def combine(self, params: Params) -> Any:
        """What the network's adapter makes of these parameters, which is f, neither scaled nor shifted; of a plain
        function, these themselves."""
        return self.apply.combine(params) if isinstance(self.apply, AbstractApply) else params

    def _wrapped(self) -> str:
        return f"{short(self.alpha)} times what {short(self.apply)} moved"

    def _architecture(self) -> tuple[Hashable, ...]:
        return self.apply, self._structure


def scaled(apply: Callable[[Params, Inputs], Outputs], params: Params, alpha: Float[Array, ""] | float) -> ScaledApply:
    """The network whose outputs are α (f(x; θ) − f(x; θ_0)), with θ_0 = `params`: the output scale of Chizat et al.
    (arXiv:1812.07956), the other dial between feature learning and lazy training.

    Its outputs are 0 at θ_0, and its NTK is α² times that of f. A step of gradient descent at rate η/α² therefore
    changes the outputs as one at rate η changes those of f − f(·; θ_0), while the parameters move by 1/α of it. As
    α → ∞, ordinary training, K = 1, becomes that of the linearised network at α = 1, K = ∞; the difference falls as
    1/α. So with α divide the rate by α², or the loss, which is the same for SGD and momentum:

        il.WeightSpace(optax.chain(optax.scale(1 / alpha**2), optax.sgd(rate, momentum=0.9)))

    Adam, Lion and Muon take steps of a size that hardly depends on the gradient's: divide their rate by α. At α = 1 the
    network is f − f(·; θ_0), not f.

    In single precision α is good for up to about 10³: parameters that move by 1/α of their size keep 7 digits of their
    own, not of the movement, and rounding of the outputs counts α-fold. K = ∞ keeps the movement apart and has no such
    limit.

    **Arguments:**

    - `apply`, `params`: from an adapter, from `trainable`, or any function and its parameters.
    - `alpha`: α, above 0; an array, such as a lane's, is not checked.

    **Returns:** `apply` of the scaled network, to be trained from `params`. A forward pass costs two of f.
    `apply.combine(params)` is f at these parameters, neither scaled nor shifted.

    **Raises:** `ValueError` unless α is above 0 and finite, and for a network that forward passes in training change:
    its batch statistics and random masks would not be those of θ_0.
    """
    _check.params(params)
    known = not isinstance(alpha, jax.Array)
    if jnp.shape(alpha) != () or (known and not 0 < alpha < math.inf):
        raise ValueError(
            f"`alpha` must be one finite number above 0, got {short(alpha)}; pass 1 for outputs of the network's scale."
        )
    if isinstance(apply, AbstractNetwork) and apply.variables is not None:
        raise ValueError(
            f"`scaled` needs a network that is the same at every step, got one trained with {apply.mode}; freeze its "
            'statistics, and leave dropout off: statistics="frozen", dropout=False.'
        )
    return ScaledApply(apply, params, alpha)
