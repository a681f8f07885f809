"""Flax Linen modules as `(apply, params)`."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from relin._common.extra import needs_extra
from relin._core import check as _check
from relin._core.names import some
from relin._core.network import Variables, described
from relin._core.types import Inputs, Key, Outputs, Params
from relin.adapters._closed import AbstractApply, Output, called, check_output, chosen
from relin.adapters._trainable import PartialApply, Trainable, restricted

Arguments = tuple[tuple[str, Hashable], ...]


class LinenApply(AbstractApply):
    """`apply(params, x)`: a Flax Linen module with its collections of variables but `"params"`; see `AbstractApply`.

    Its constants are these collections, and where it is trained with random numbers their keys and how many forward
    passes there were.
    """

    constants: tuple[Shaped[Array, "..."], ...]
    _module: Any = eqx.field(static=True)
    _structure: Any = eqx.field(static=True)
    """Of the constants: the collections, the keys and the number of forward passes."""
    _arguments: Arguments = eqx.field(static=True)
    _training: Arguments | None = eqx.field(static=True)
    """The arguments of forward passes in training, where these differ."""
    _mutable: tuple[str, ...] = eqx.field(static=True)
    """The collections that training changes."""
    _method: Any = eqx.field(static=True)
    _output: Output = eqx.field(static=True)

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        return chosen(self._called(params, x, self._arguments), self._output)

    @property
    def mode(self) -> str:
        return described(bool(self._mutable), bool(self._parts()[1]))

    @property
    def variables(self) -> Variables | None:
        return None if self._training is None else self.constants

    def forward(self, params: Params, x: Inputs) -> tuple[Outputs, Variables | None]:
        if self._training is None:
            return self(params, x), None
        collections, keys, passes = self._parts()
        rngs = {name: jax.random.fold_in(key, passes) for name, key in keys.items()}
        options = {"mutable": list(self._mutable), "rngs": rngs}
        outputs, changed = self._called(params, x, self._training, **options)
        after = jax.tree.leaves(({**collections, **changed}, keys, passes + 1))
        return chosen(outputs, self._output), tuple(after)

    def with_variables(self, variables: Variables) -> "LinenApply":
        return replace(self, constants=tuple(variables))

    def _called(self, params: Params, x: Inputs, arguments: Arguments, **options: Any) -> Any:
        from flax import errors

        def call(*inputs: Any, **named: Any) -> Any:
            variables = self.combine(params)
            return self._module.apply(variables, *inputs, method=self._method, **named, **dict(arguments), **options)

        try:
            return called(call, x)
        except errors.InvalidRngError as error:
            raise ValueError(
                f"The module must be deterministic, got {type(self._module).__name__}, which asks for random numbers; "
                "pass from_linen the argument that turns them off, such as train=False or deterministic=True, or the "
                "keys of training's as `rngs`."
            ) from error
        except errors.ModifyScopeVariableError as error:
            raise ValueError(
                f"The module must leave its variables as they are, got {type(self._module).__name__}, which changes "
                "some; pass from_linen the argument that freezes BatchNorm's statistics, such as train=False or "
                "use_running_average=True, and those of training as `training`."
            ) from error

    def combine(self, params: Params) -> dict[str, Any]:
        """The variables with these parameters, as `module.apply` takes them."""
        return {**self._parts()[0], "params": params}

    def _parts(self) -> tuple[dict[str, Any], dict[str, Key], Any]:
        return jax.tree.unflatten(self._structure, list(self.constants))

    def _wrapped(self) -> str:
        return type(self._module).__name__

    def _architecture(self) -> tuple[Hashable, ...]:
        own = self._module, self._structure, self._method, self._output
        return *own, self._arguments, self._training, self._mutable


def from_linen(
    module: Any,
    variables: Mapping[str, Any],
    *,
    training: Mapping[str, Hashable] | None = None,
    mutable: Iterable[str] | None = None,
    rngs: Mapping[str, Key] | None = None,
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
      are closed over; they stay as they are without `training`.
    - `training`: arguments of the forward passes in training, such as `{"train": True}`: BatchNorm then uses the
      batch's statistics and is differentiated through them.
    - `mutable`: the collections which these forward passes, at the anchor, update: all but `"params"` if not given,
      none for BatchNorm that stays frozen.
    - `rngs`: the keys of random numbers in training by name, such as `{"dropout": key}`; forward pass t uses
      `jax.random.fold_in(key, t)`, as a loop that folds in `TrainState.step` does.
    - `method`: of the module, instead of `__call__`.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.
    - `arguments`: of every other call, such as `train=False`: BatchNorm must use its running statistics and dropout do
      nothing.

    **Returns:** `apply` and `params`, the collection `"params"`; `apply.combine(params)` is all variables, as
    `module.apply` and `TrainState.create` take them; `apply.with_variables(solution.variables)` has the collections
    that training left.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no Linen module, an argument has no hash, a key
    is none, or a trained parameter is not floating-point; `ValueError` if `variables` have no `"params"`, or no
    collection that is `mutable`; and, where `apply` is called, for a module that asks for random numbers or changes its
    variables.
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
        found = some([str(name) for name in variables]) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(
            f'`variables` must have parameters in a collection "params", got {found or "none"}; pass what module.init '
            "returned."
        )
    others = {name: collection for name, collection in variables.items() if name != "params"}
    keys, changing = {}, ()
    if training is not None or rngs or mutable is not None:
        training = {**arguments, **(training or {})}
        keys = {name: _check.key(key) for name, key in (rngs or {}).items()}
        changing = tuple(sorted(others if mutable is None else mutable))
        if unknown := set(changing) - set(others):
            raise ValueError(
                f"`mutable` must name collections of `variables`, got {sorted(unknown)[0]!r}; there "
                f"{'are ' + some(list(others)) if others else 'is none'}."
            )
    constants, structure = jax.tree.flatten((others, keys, jnp.zeros((), jnp.int32)))
    own, in_training = _arguments(arguments), None if training is None else _arguments(training)
    apply = LinenApply(tuple(constants), module, structure, own, in_training, changing, method, output)
    return restricted(apply, variables["params"], trainable)


def _arguments(values: Mapping[str, Hashable]) -> Arguments:
    """As a tuple; raises `TypeError` for one without a hash."""
    for name, value in values.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"Arguments of every call must be hashable, got {name} of type {type(value).__name__}; pass arrays "
                "with the inputs."
            ) from None
    return tuple(sorted(values.items()))
