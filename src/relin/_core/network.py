"""Networks with variables: what is not trained, and changes with the forward passes of training."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree, Shaped

from relin._core.repr import one_line
from relin._core.types import Inputs, Outputs, Params

Variables = PyTree[Shaped[Array, "..."]]
"""Running statistics, and what random masks are drawn from."""

FROZEN = "frozen"


class AbstractNetwork(eqx.Module):
    """`apply(params, x)` that may have variables.

    Called, it is the network as it is evaluated: with running statistics, without random masks. `forward` is the
    network as it is trained, a function of the parameters, the inputs and the variables alone: primal and tangent of a
    step share one mask and one mode.
    """

    @abc.abstractmethod
    def __call__(self, params: Params, x: Inputs) -> Outputs:
        """The outputs, `(batch, …)`, of the network as it is evaluated."""

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def mode(self) -> str:
        """How the network is trained: `"frozen"`, or `"batch statistics"`, `"dropout"` or both."""
        return FROZEN

    @property
    def variables(self) -> Variables | None:
        """What forward passes in training change; `None` where they change nothing."""
        return None

    def forward(self, params: Params, x: Inputs) -> tuple[Outputs, Variables | None]:
        """The outputs of the network as it is trained, and the variables after this forward pass."""
        return self(params, x), self.variables

    def with_variables(self, variables: Variables) -> "AbstractNetwork":
        """The same network with other variables."""
        return self


class InTraining(AbstractNetwork):
    """`apply(params, x)`: a network as it is trained."""

    network: AbstractNetwork

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        return self.network.forward(params, x)[0]

    @property
    def mode(self) -> str:
        return self.network.mode

    @property
    def variables(self) -> Variables | None:
        return self.network.variables

    def with_variables(self, variables: Variables) -> "InTraining":
        return InTraining(self.network.with_variables(variables))

    def forward(self, params: Params, x: Inputs) -> tuple[Outputs, Variables]:
        """The outputs, and the variables after this forward pass, of the types they had."""
        outputs, after = self.network.forward(params, x)

        def as_before(now: Array, before: Array) -> Array:
            return now if now.dtype == before.dtype else now.astype(before.dtype)

        return outputs, jax.tree.map(as_before, after, self.network.variables)


def mode_of(network: Any) -> str:
    """The mode of any `apply`; a plain function has but one."""
    return network.mode if isinstance(network, AbstractNetwork) else FROZEN


def described(batch_statistics: bool, dropout: bool) -> str:
    """A mode in words."""
    words = ["batch statistics"] * batch_statistics + ["dropout"] * dropout
    return " and ".join(words) or FROZEN
