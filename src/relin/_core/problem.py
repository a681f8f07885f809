"""What is minimised: a network and a loss."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from relin._core import check as _check, forward_mode as _forward
from relin._core.compiler import check_sums
from relin._core.linearise import Linearisation, LinearisedOutputs, Taylor
from relin._core.loss import AbstractLoss
from relin._core.network import AbstractNetwork, InTraining, Variables, mode_of
from relin._core.repr import one_line
from relin._core.types import Inputs, Outputs, Params, Scalar, Targets


def _as_jax(leaf: Any) -> Any:
    """NumPy's arrays as JAX's, which programs take as arguments."""
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


class Problem(eqx.Module):
    """A network `apply(params, x) -> outputs` of shape `(batch, C)` or `(batch, …)`, and the loss of its outputs.

    **Arguments:**

    - `apply`: a function of a PyTree of arrays and a batch of inputs.
    - `loss`: `CrossEntropy()`, `SquaredError()` or another `AbstractLoss`.
    - `taylor`: the order of the expansion that is trained; `Taylor(2)` with `WeightSpace` only. Ordinary training is
      the same at every order.

    **Raises:** `TypeError` for a module in the place of `apply`, and for another `loss`.
    """

    apply: Callable[[Params, Inputs], Outputs]
    loss: AbstractLoss = eqx.field(converter=lambda loss: jax.tree.map(_as_jax, loss))
    taylor: Taylor = Taylor()

    def __check_init__(self):
        adapter = None if isinstance(self.apply, AbstractNetwork) else _check.adapter(self.apply)
        if adapter is not None and not (adapter == "from_equinox" and _is_a_function(self.apply)):
            name = self.apply.__name__ if isinstance(self.apply, type) else type(self.apply).__name__
            raise TypeError(
                f"`apply` must be a function apply(params, x) -> outputs, got the module {name}; write apply, params = "
                f"relin.{adapter}(module) first, and relin.Problem(apply, loss)."
            )
        if not callable(self.apply):
            raise TypeError(
                f"`apply` must be a function apply(params, x) -> outputs, got {type(self.apply).__name__}; "
                "use an adapter such as relin.from_equinox for a module."
            )
        if not isinstance(self.loss, AbstractLoss):
            raise TypeError(
                f"`loss` must be an instance of a relin loss, got {self.loss!r}; pass relin.CrossEntropy() or "
                "relin.SquaredError(), or subclass relin.AbstractLoss."
            )

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def mode(self) -> str:
        """How the network is trained: `"frozen"`, or with `"batch statistics"`, `"dropout"` or both."""
        return mode_of(self.apply)

    @property
    def variables(self) -> Variables | None:
        """What forward passes in training change, such as running statistics; `None` for most networks."""
        return self.apply.variables if isinstance(self.apply, AbstractNetwork) else None

    def evaluated(self, variables: Variables | None) -> "Problem":
        """The problem with the network as it is evaluated, with these variables."""
        if variables is None or not isinstance(self.apply, AbstractNetwork):
            return self
        return replace(self, apply=self.apply.with_variables(variables))

    def trained(self, variables: Variables | None) -> "Problem":
        """The problem with the network as it is trained: with these statistics and the masks drawn from them."""
        if variables is None or not isinstance(self.apply, AbstractNetwork):
            return self
        return replace(self, apply=InTraining(self.apply.with_variables(variables)))

    def forward(self, params: Params, x: Inputs) -> tuple[Outputs, Variables | None]:
        """The outputs, and the variables after this forward pass of a problem that is `trained`."""
        return self.apply.forward(params, x) if isinstance(self.apply, InTraining) else (self.apply(params, x), None)

    def linearise(self, anchor: Params) -> Linearisation:
        """The network linearised at an anchor, as a `Linearisation`."""
        return Linearisation(self.apply, anchor, self.taylor)

    def value_and_grad(self, params: Params, x: Inputs, y: Targets) -> tuple[Scalar, Params]:
        """L of the network and its gradient: an ordinary training step's."""
        (loss, _), gradient = self.value_grad_and_variables(params, x, y)
        return loss, gradient

    def value_grad_and_variables(
        self, params: Params, x: Inputs, y: Targets
    ) -> tuple[tuple[Scalar, Variables | None], Params]:
        """The same, and the variables after the forward pass."""
        check_sums()

        def loss(p: Params) -> tuple[Scalar, Variables | None]:
            outputs, variables = self.forward(p, x)
            return self.loss.mean(outputs, y), variables

        return jax.value_and_grad(loss, has_aux=True)(params)

    def linearised_value_and_grad(
        self, anchor: Params, displacement: Params, x: Inputs, y: Targets
    ) -> tuple[Scalar, Params]:
        """L of the linearised network f̄, and its gradient with respect to the displacement, J_sᵀ ∂L/∂f."""
        (loss, _), gradient = self.linearised_value_grad_and_variables(anchor, displacement, x, y)
        return loss, gradient

    def linearised_value_grad_and_variables(
        self, anchor: Params, displacement: Params, x: Inputs, y: Targets
    ) -> tuple[tuple[Scalar, Variables | None], Params]:
        """The same, and the variables after the forward pass at the anchor."""
        check_sums()
        if self.taylor.order == 2:
            model = self.linearise(anchor)
            loss, gradient = jax.value_and_grad(lambda d: self.loss.mean(model.value(d, x), y))(displacement)
            return (loss, self.forward(anchor, x)[1]), gradient
        outputs, pullback, variables = jax.vjp(lambda p: self.forward(p, x), anchor, has_aux=True)
        if rules := _forward.rules_in_the_way(self.apply, anchor, x):
            tangent = _forward.pushed(lambda p: self.apply(p, x), anchor, pullback, outputs, displacement, rules)
        else:
            tangent = jax.jvp(lambda p: self.apply(p, x), (anchor,), (displacement,))[1]
        loss, cotangent = jax.value_and_grad(self.loss.mean)(outputs + tangent, y)
        return (loss, variables), pullback(cotangent)[0]

    def value_and_grad_on(
        self, linearised: LinearisedOutputs, displacement: Params, y: Targets
    ) -> tuple[Scalar, Params]:
        """The same of a batch that was linearised before."""
        loss, cotangent = jax.value_and_grad(self.loss.mean)(linearised.value(displacement), y)
        return loss, linearised.pullback(cotangent, displacement)


def _is_a_function(module: Any) -> bool:
    """Whether an Equinox module is meant as a function of parameters and inputs: it takes two, and has no state."""
    stateful = any(isinstance(leaf, eqx.nn.StateIndex) for leaf in jax.tree.leaves(module, is_leaf=_is_state))
    return not isinstance(module, type) and _check.takes(module, None, None) and not stateful


def _is_state(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)
