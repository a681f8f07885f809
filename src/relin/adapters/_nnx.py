"""Flax NNX modules as `(apply, params)`."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Shaped

from relin._extra import needs_extra
from relin._names import parameter_names
from relin._types import Inputs, Outputs, Params
from relin.adapters._closed import AbstractApply, Output, called, check_output, chosen
from relin.adapters._trainable import PartialApply, Trainable, restricted


class NNXApply(AbstractApply):
    """`apply(params, x)`: a Flax NNX module that was separated from its `nnx.Param`s; see `AbstractApply`."""

    constants: tuple[Shaped[Array, "..."], ...]
    _graph: Any = eqx.field(static=True)
    _structures: tuple[Any, Any] = eqx.field(static=True)
    """Of the parameters, as Flax has them, and of the other variables."""
    _names: tuple[str, ...] = eqx.field(static=True)
    """Of the constants."""
    _output: Output = eqx.field(static=True)

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        from flax import nnx

        module = self.combine(params)
        outputs = chosen(called(module, x), self._output)
        after = _named(nnx.state(module, nnx.Not(nnx.Param)))
        for name, before in zip(self._names, self.constants, strict=True):
            if after[name] is not before:
                raise ValueError(
                    f"The module must leave its variables as they are, got one that changes {name}; put it into "
                    "evaluation mode with module.eval() (BatchNorm then uses its running statistics, and dropout does "
                    "nothing)."
                )
        return outputs

    def combine(self, params: Params) -> Any:
        """A Flax module with these parameters."""
        from flax import nnx

        of_params, of_others = self._structures
        trained = jax.tree.unflatten(of_params, jax.tree.leaves(params))
        return nnx.merge(self._graph, trained, jax.tree.unflatten(of_others, list(self.constants)))

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._graph, self._structures, self._output


def from_nnx(
    module: Any, *, output: Output = None, trainable: Trainable | None = None
) -> tuple[NNXApply | PartialApply, Params]:
    """Separates a Flax NNX module into a function and its parameters.

    **Arguments:**

    - `module`: an `nnx.Module` that is called with a batch of inputs. A tuple of inputs is spread over its arguments, a
      dictionary over its keywords.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.

    BatchNorm is *frozen*, it uses its running statistics, and dropout does nothing: pass a module in evaluation mode,
    `nnx.view(module, deterministic=True, use_running_average=True)` or after `module.eval()`.

    **Returns:** `apply` and `params`: nested dictionaries of arrays, those of the module's `nnx.Param`s. Weights that
    are tied, the same `nnx.Param` in two places, are one array. `nnx.update(module, params)` puts trained ones into the
    module, and `apply.combine(params)` makes another module of them. All other variables are closed over.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no callable `nnx.Module` or a trained parameter
    is not floating-point; `ValueError` if there is none; and, where `apply` is called, for a module that changes its
    variables: batch statistics or the counter of its random numbers.
    """
    with needs_extra("from_nnx", "flax"):
        from flax import nnx
    if not isinstance(module, nnx.Module) or not callable(module):
        raise TypeError(
            f"`module` must be a callable flax.nnx.Module, got {type(module).__name__}; use from_linen for "
            "flax.linen and from_equinox for Equinox modules."
        )
    check_output(output)
    graph, trained, others = nnx.split(module, nnx.Param, ...)
    constants = _named(others)
    structures = jax.tree.structure(trained), jax.tree.structure(others)
    apply = NNXApply(tuple(constants.values()), graph, structures, tuple(constants), output)
    params = nnx.to_pure_dict(trained)
    return restricted(apply, params, trainable)


def _named(state: Any) -> dict[str, Any]:
    """The arrays of a Flax state by their names, in order."""
    from flax import nnx

    arrays = nnx.to_pure_dict(state)
    return dict(zip(parameter_names(arrays), jax.tree.leaves(arrays), strict=True))
