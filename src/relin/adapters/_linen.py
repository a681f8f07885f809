"""Flax Linen modules as `(apply, params)`."""

from collections.abc import Hashable, Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Shaped

from relin._extra import needs_extra
from relin._types import Inputs, Outputs, Params
from relin.adapters._closed import AbstractApply, Output, called, check_output, chosen
from relin.adapters._trainable import PartialApply, Trainable, restricted


class LinenApply(AbstractApply):
    """`apply(params, x)`: a Flax Linen module with its collections of variables but `"params"`; see `AbstractApply`."""

    constants: tuple[Shaped[Array, "..."], ...]
    _module: Any = eqx.field(static=True)
    _structure: Any = eqx.field(static=True)
    _arguments: tuple[tuple[str, Hashable], ...] = eqx.field(static=True)
    _method: Any = eqx.field(static=True)
    _output: Output = eqx.field(static=True)

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        from flax import errors

        def call(*inputs: Any, **named: Any) -> Any:
            return self._module.apply(
                self.combine(params), *inputs, method=self._method, **named, **dict(self._arguments)
            )

        try:
            return chosen(called(call, x), self._output)
        except errors.InvalidRngError as error:
            raise ValueError(
                f"The module must be deterministic, got {type(self._module).__name__}, which asks for random numbers; "
                "pass from_linen the argument that turns them off, such as train=False or deterministic=True."
            ) from error
        except errors.ModifyScopeVariableError as error:
            raise ValueError(
                f"The module must leave its variables as they are, got {type(self._module).__name__}, which changes "
                "some; pass from_linen the argument that freezes BatchNorm's statistics, such as train=False or "
                "use_running_average=True."
            ) from error

    def combine(self, params: Params) -> dict[str, Any]:
        """The variables with these parameters, as `module.apply` takes them."""
        return {**jax.tree.unflatten(self._structure, list(self.constants)), "params": params}

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._module, self._structure, self._arguments, self._method, self._output


def from_linen(
    module: Any,
    variables: Mapping[str, Any],
    *,
    method: Any = None,
    output: Output = None,
    trainable: Trainable | None = None,
    **arguments: Hashable,
) -> tuple[LinenApply | PartialApply, Params]:
    """Separates a Flax Linen module's variables into a function and its parameters.

    **Arguments:**

    - `module`: a `flax.linen.Module` that is called with a batch of inputs. A tuple of inputs is spread over its
      arguments, a dictionary over its keywords.
    - `variables`: what `module.init` made. The collection `"params"` is trained; the others, such as `"batch_stats"`,
      are closed over and stay as they are.
    - `method`: of the module, instead of `__call__`.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.
    - `arguments`: passed to every call, such as `train=False`: BatchNorm must use its running statistics and dropout do
      nothing.

    **Returns:** `apply` and `params`, the collection `"params"`; `apply.combine(params)` is all variables, as
    `module.apply` and `TrainState.create` take them.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no Linen module, an argument has no hash, or a
    trained parameter is not floating-point;
    `ValueError` if `variables` have no `"params"`; and, where `apply` is called, for a module that asks for random
    numbers or changes its variables.
    """
    with needs_extra("from_linen", "flax"):
        from flax import linen
    if not isinstance(module, linen.Module):
        raise TypeError(
            f"`module` must be a flax.linen.Module, got {type(module).__name__}; use from_nnx for flax.nnx and "
            "from_equinox for Equinox modules."
        )
    check_output(output)
    if not isinstance(variables, Mapping) or not jax.tree.leaves(variables.get("params")):
        found = ", ".join(map(str, variables)) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            f'`variables` must have parameters in a collection "params", got {found or "none"}; pass what module.init '
            "returned."
        )
    for name, value in arguments.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"Arguments of every call must be hashable, got {name} of type {type(value).__name__}; pass arrays "
                "with the inputs."
            ) from None
    others = {name: collection for name, collection in variables.items() if name != "params"}
    constants, structure = jax.tree.flatten(others)
    apply = LinenApply(tuple(constants), module, structure, tuple(sorted(arguments.items())), method, output)
    return restricted(apply, variables["params"], trainable)
