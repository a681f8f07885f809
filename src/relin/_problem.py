"""What is minimised: a network and a loss."""

from collections.abc import Callable

import equinox as eqx
import jax

from relin._linearise import Linearisation, LinearisedOutputs
from relin._loss import AbstractLoss
from relin._types import Inputs, Outputs, Params, Scalar, Targets


class Problem(eqx.Module):
    """A network `apply(params, x) -> outputs` of shape `(batch, C)`, and the loss of its outputs.

    **Arguments:**

    - `apply`: a function of a PyTree of arrays and a batch of inputs.
    - `loss`: `CrossEntropy()`, `SquaredError()` or another `AbstractLoss`.
    """

    apply: Callable[[Params, Inputs], Outputs]
    loss: AbstractLoss

    def __check_init__(self):
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

    def linearise(self, anchor: Params) -> Linearisation:
        return Linearisation(self.apply, anchor)

    def value_and_grad(self, params: Params, x: Inputs, y: Targets) -> tuple[Scalar, Params]:
        """L of the network and its gradient: an ordinary training step's."""
        return jax.value_and_grad(lambda p: self.loss.mean(self.apply(p, x), y))(params)

    def linearised_value_and_grad(
        self, anchor: Params, displacement: Params, x: Inputs, y: Targets
    ) -> tuple[Scalar, Params]:
        """L of the linearised network f̄, and its gradient with respect to the displacement, J_sᵀ ∂L/∂f."""
        outputs, pullback = jax.vjp(lambda p: self.apply(p, x), anchor)
        tangent = jax.jvp(lambda p: self.apply(p, x), (anchor,), (displacement,))[1]
        loss, cotangent = jax.value_and_grad(self.loss.mean)(outputs + tangent, y)
        return loss, pullback(cotangent)[0]

    def value_and_grad_on(
        self, linearised: LinearisedOutputs, displacement: Params, y: Targets
    ) -> tuple[Scalar, Params]:
        """The same of a batch that was linearised before."""
        loss, cotangent = jax.value_and_grad(self.loss.mean)(linearised.value(displacement), y)
        return loss, linearised.pullback(cotangent, displacement)
