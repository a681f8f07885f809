"""Equinox modules as `(apply, params)`."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from relin._core import check as _check
from relin._core.network import Variables, described
from relin._core.types import Key
from relin.adapters._closed import AbstractApply, Output, Statistics, called, check_mode, check_output, chosen
from relin.adapters._equinox_module import (
    batch_axis,
    in_training,
    made_state,
    refuse,
    refuse_inputs,
    refuse_moved,
    takes_key,
)
from relin.adapters._trainable import PartialApply, Trainable, restricted

Parameters = PyTree[Float[Array, "..."]]
Batched = PyTree[Shaped[Array, "batch ..."]]


class EquinoxApply(AbstractApply):
    """`apply(params, x)`: an Equinox module that was separated from its parameters, mapped over a batch.

    Everything but the parameters is closed over, see `AbstractApply`: arrays that are no parameters, and then the
    module's state, the key of its random numbers and how many forward passes there were in training.
    """

    constants: tuple[Shaped[Array, "..."], ...]
    _others: tuple[Hashable, ...] = eqx.field(static=True)
    _structure: Any = eqx.field(static=True)
    _num_own: int = eqx.field(static=True)
    """How many of the constants are the module's own, which never change."""
    _output: Output = eqx.field(static=True)
    _mode: tuple[bool, bool] | None = eqx.field(static=True)
    """Whether batch statistics and dropout are on in training; `None` for a module used as it is."""

    def __init__(
        self,
        static: PyTree,
        state: eqx.nn.State | None = None,
        key: Key | None = None,
        output: Output = None,
        mode: tuple[bool, bool] | None = None,
    ):
        leaves, self._structure = jax.tree.flatten((static, (state, key, jnp.zeros((), jnp.int32) if mode else None)))
        self.constants = tuple(leaf for leaf in leaves if _is_array(leaf))
        self._others = tuple(_CONSTANT if _is_array(leaf) else leaf for leaf in leaves)
        self._num_own = sum(map(_is_array, jax.tree.leaves(static)))
        self._output, self._mode = output, mode

    def __call__(self, params: Parameters, x: Batched) -> Batched:
        module, (state, key, _) = self._parts(params)
        return self._mapped(module if self._mode is None else eqx.nn.inference_mode(module), state, key, x)[0]

    @property
    def mode(self) -> str:
        return described(*(self._mode or (False, False)))

    @property
    def variables(self) -> Variables | None:
        return self.constants[self._num_own :] if any(self._mode or ()) else None

    @property
    def state(self) -> eqx.nn.State | None:
        """The module's state, such as its running statistics."""
        return self._parts(None)[1][0]

    def forward(self, params: Parameters, x: Batched) -> tuple[Batched, Variables | None]:
        if self._mode is None or not any(self._mode):
            return self(params, x), None
        module, (state, key, passes) = self._parts(params)
        now = None if key is None else jax.random.fold_in(key, passes)
        outputs, state = self._mapped(in_training(module, *self._mode), state, now, x)
        return outputs, tuple(jax.tree.leaves((state, key, passes + 1)))

    def with_variables(self, variables: Variables) -> "EquinoxApply":
        constants = (*self.constants[: self._num_own], *variables)
        return eqx.tree_at(lambda apply: apply.constants, self, constants)

    def combine(self, params: Parameters) -> Any:
        """The Equinox module with these parameters, for one example."""
        return self._parts(params)[0]

    def _parts(self, params: Parameters | None) -> tuple[Any, tuple[eqx.nn.State | None, Key | None, Any]]:
        constants = iter(self.constants)
        leaves = [next(constants) if leaf is _CONSTANT else leaf for leaf in self._others]
        static, variables = jax.tree.unflatten(self._structure, leaves)
        return static if params is None else eqx.combine(params, static), variables

    def _mapped(
        self, module: Any, state: eqx.nn.State | None, key: Key | None, x: Batched
    ) -> tuple[Batched, eqx.nn.State | None]:
        """The outputs of a batch, a key an example, and the state after it."""
        keys, before = None, jax.tree.leaves(state)
        if key is not None and takes_key(module):
            keys = jax.random.split(key, jax.tree.leaves(x)[0].shape[0])

        def one(x: Any, key: Key | None) -> Any:
            def call(*inputs: Any, **named: Any) -> Any:
                inputs = inputs if state is None else (*inputs, state)
                named = named if keys is None else named | {"key": key}
                refuse_inputs(module, inputs, named)
                return module(*inputs, **named)

            result = called(call, x)
            outputs, after = result if state is not None else (result, None)
            if not (self._mode and self._mode[0]):
                refuse_moved(module, before, after)
            return chosen(outputs, self._output), after

        axes = {"in_axes": (0, None if keys is None else 0), "out_axes": (0, None)}
        return jax.vmap(one, axis_name=batch_axis(module), **axes)(x, keys)

    def _wrapped(self) -> str:
        return type(self._parts(None)[0]).__name__

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._structure, self._others, self._num_own, self._output, self._mode


class _Constant:
    """Holds the place of an array among the static leaves."""

    def __repr__(self) -> str:
        return "<array>"


_CONSTANT = _Constant()


def from_equinox(
    module: eqx.Module,
    *,
    state: eqx.nn.State | None = None,
    statistics: Statistics | None = None,
    dropout: bool = False,
    key: Key | None = None,
    output: Output = None,
    trainable: Trainable | None = None,
) -> tuple[EquinoxApply | PartialApply, Parameters]:
    """Separates an Equinox module into a function and its parameters.

    It may be called on a module that is being initialised under `jax.jit` or `jax.vmap`, for example one for
    each seed.

    **Arguments:**

    - `module`: maps one example to its outputs, `module(x)`, with no batch axis; of several inputs, a tuple is spread
      over its arguments and a dictionary over its keywords. With a state it is called as `module(x, state)` and returns
      outputs and the new state; in training with dropout also with `key=`, one an example.
    - `state`: of `eqx.nn.make_with_state`, for a module with `eqx.nn.BatchNorm` or another state. Where `statistics`
      are given and a module has its initial state in it still, that one.
    - `statistics`: of BatchNorm in training. `"frozen"`: the running ones, which stay as they are. `"batch"`: those of
      the batch, differentiated through; the state is updated by the forward passes at the anchor.
    - `dropout`: whether it is on in training. Forward pass t uses the keys
      `jax.random.split(jax.random.fold_in(key, t), batch)`, the same for primal and tangent.
    - `key`: of dropout.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.

    With neither `statistics` nor `dropout` the module is used as it is. With either, `apply` evaluates it in inference
    mode, whatever its mode was.

    **Returns:** `apply` and `params`. `apply(params, x)` takes inputs with a leading batch axis;
    `apply.combine(params)` is a module again, and `apply.with_variables(solution.variables).state` the state that
    training left. `params` is the PyTree of the module's floating-point arrays;
    all else, integer and boolean arrays included, is closed over by `apply`.

    **Raises:** `TypeError` if `module` is not a callable Equinox module; `ValueError` if it has no
    floating-point array, or a state or dropout without the arguments that say how it is trained.
    """
    if not isinstance(module, eqx.Module) or not callable(module):
        raise TypeError(
            f"`module` must be a callable equinox.Module, got {type(module).__name__}; pass functions of "
            "parameters and inputs to relin.Problem as they are."
        )
    check_output(output)
    check_mode(statistics, dropout)
    if state is None and statistics is not None:
        module, state = made_state(module)
    refuse(module, state, statistics, dropout, key)
    params, static = eqx.partition(module, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise ValueError(
            f"`module` must have at least one floating-point array to train, got {type(module).__name__} with "
            "none; cast its weights to a floating-point dtype."
        )
    mode = None if statistics is None and not dropout else (statistics == "batch", dropout)
    apply = EquinoxApply(static, state, None if key is None else _check.key(key), output, mode)
    return restricted(apply, params, trainable)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)
