"""The network linearised at an anchor: f̄(x) = f(x; θ_s) + J_s(x) δ."""

from collections.abc import Callable

import equinox as eqx
import jax

from relin._core import forward_mode as _forward, tree as _tree
from relin._core.compiler import check_sums
from relin._core.repr import one_line
from relin._core.types import Inputs, Outputs, Params


class Taylor(eqx.Module):
    """The order of the expansion that is trained between two re-linearisations.

    **Arguments:**

    - `order`: 1, f̄ = f + J_s δ, the linearised network; or 2, f̄ = f + J_s δ + ½ ∂²f[δ, δ], whose features move with δ.


    **Raises:** `ValueError` for another order.
    """

    order: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.order not in (1, 2):
            raise ValueError(f"`order` must be 1 or 2, got {self.order!r}; 1 is the linearised network.")


class Linearisation(eqx.Module):
    """The Taylor expansion of a network around an anchor, of first order, as a function of the displacement.

    **Arguments:**

    - `apply`: `apply(params, x) -> outputs`, any function JAX can differentiate; `outputs` of shape `(batch, C)`.
    - `anchor`: θ_s, a PyTree of floating-point arrays.

    - `taylor`: the order of the expansion: `Taylor(2)` adds ½ ∂²f[δ, δ], which is no longer linear.

    The pair (anchor, displacement) is the state: θ_t = anchor + displacement is formed only where the full parameters
    are needed, since subtracting two nearly equal vectors loses what is measured. Inside one `jax.jit` the forward pass
    is shared between the methods.

    **Raises:** `WrongSumsError` where XLA would compile wrong sums, see known problems.
    """

    apply: Callable[[Params, Inputs], Outputs]
    anchor: Params
    taylor: Taylor = Taylor()

    def __check_init__(self):
        check_sums()

    def __repr__(self) -> str:
        return one_line(self)

    def at_anchor(self, x: Inputs) -> Outputs:
        """f(x; θ_s), shape `(batch, C)`."""
        return self.apply(self.anchor, x)

    def value(self, displacement: Params, x: Inputs) -> Outputs:
        """f̄(x) = f(x; θ_s) + J_s(x) δ, shape `(batch, C)`: one Jacobian–vector product; of order 2 two, nested."""
        if self.taylor.order == 2:
            return self._of_second_order(displacement, x)
        outputs, tangent = self._outputs_and_jvp(displacement, x)
        return outputs + tangent

    def _of_second_order(self, displacement: Params, x: Inputs) -> Outputs:
        if _forward.are_loops(rules := self._rules(x)):
            raise _forward.RuleError(
                "An expansion of second order must be differentiated backward, got a network with a loop of Equinox; "
                "take relin.Taylor(1), or pass Diffrax' adjoint=diffrax.DirectAdjoint()."
            )

        def first(p: Params) -> tuple[Outputs, Outputs]:
            return _forward.jvp(lambda q: self.apply(q, x), p, displacement, rules)

        (outputs, tangent), (_, second) = jax.jvp(first, (self.anchor,), (displacement,))
        return outputs + tangent + 0.5 * second

    def jvp(self, displacement: Params, x: Inputs) -> Outputs:
        """J_s(x) δ, shape `(batch, C)`."""
        return self._outputs_and_jvp(displacement, x)[1]

    def _outputs_and_jvp(self, displacement: Params, x: Inputs) -> tuple[Outputs, Outputs]:
        return _forward.jvp(lambda p: self.apply(p, x), self.anchor, displacement, self._rules(x))

    def _rules(self, x: Inputs) -> _forward.Rules:
        return _forward.rules_in_the_way(self.apply, self.anchor, x)

    def vjp(self, x: Inputs, cotangent: Outputs) -> Params:
        """J_s(x)ᵀ c summed over the batch, a PyTree like `anchor`; `cotangent` has shape `(batch, C)`."""
        return jax.vjp(lambda p: self.apply(p, x), self.anchor)[1](cotangent)[0]

    def on(self, x: Inputs) -> "LinearisedOutputs":
        """f̄ of first order on one batch, for many displacements: what depends on the anchor and the batch alone is
        computed once."""
        return LinearisedOutputs(*_forward.linearize(lambda p: self.apply(p, x), self.anchor, self._rules(x)))

    def network(self, displacement: Params, x: Inputs) -> Outputs:
        """f(x; θ_s + δ), shape `(batch, C)`: the network itself, not its linearisation."""
        return self.apply(_tree.add(self.anchor, displacement), x)

    def moved(self, displacement: Params) -> "Linearisation":
        """The linearisation at anchor + displacement: a re-linearisation, after which the displacement is zero."""
        return Linearisation(self.apply, _tree.add(self.anchor, displacement), self.taylor)


class LinearisedOutputs(eqx.Module):
    """f̄ on one batch as a function of the displacement, with the network's intermediate values kept."""

    at_anchor: Outputs
    pushforward: Callable[[Params], Outputs]
    """δ ↦ J_s(x) δ, shape `(batch, C)`."""

    def value(self, displacement: Params) -> Outputs:
        """f(x; θ_s) + J_s(x) δ, shape `(batch, C)`."""
        return self.at_anchor + self.pushforward(displacement)

    def pullback(self, cotangent: Outputs, like: Params) -> Params:
        """J_s(x)ᵀ c summed over the batch, a PyTree as `like`."""
        return _forward.pullback(self.pushforward, like)(cotangent)[0]
