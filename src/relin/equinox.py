"""`Linearised`: an Equinox module that trains by its linearisation, in a loop of one's own."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from relin._core.expansion import expanded, predictions
from relin._core.types import Scalar
from relin._loop.in_loops import Counts, When, linearisation_error
from relin._schedule import AbstractSchedule


class _Bits(eqx.Module):
    """A floating-point array as unsigned integers of the same size, which no filter takes for parameters."""

    bits: UInt[Array, "..."]
    dtype: np.dtype = eqx.field(static=True)

    def __init__(self, array: Any):
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"Parameters must be real, got {array.dtype}; keep real and imaginary parts apart.")
        self.dtype = np.dtype(array.dtype)
        self.bits = jax.lax.bitcast_convert_type(jnp.asarray(array), f"uint{8 * self.dtype.itemsize}")

    def like(self, array: Array) -> Array:
        """The array, cast as another one was."""
        return jax.lax.bitcast_convert_type(self.bits, self.dtype).astype(array.dtype)


class Linearised(eqx.Module):
    """A module that is trained by its linearisation f̄(x) = f(x; θ_s) + J_s(x) (θ − θ_s), and called as the module is.

    Its floating-point arrays are the module's parameters θ, so that gradients, an optimiser with weight decay, clipping
    and moving averages see those of the module and nothing else. The anchor θ_s and the count of steps are integer
    arrays, the anchor's by its bits: make the optimiser's state of `eqx.filter(model, eqx.is_inexact_array)`, which
    leaves them out, unlike `eqx.is_array`; `eqx.filter_jit` and `eqx.tree_serialise_leaves` take them along. Parameters
    that are cast take the anchor with them. With `relin.Every(1)` a call is the module's own.

    A loop calls `model = model.step()` after each step of its optimiser; with an adaptive schedule
    `model.step(forward)`, where `forward(module)` calls the module on a probe, such as
    `lambda module: jax.vmap(module)(x)` of the coming batch or of data held out. An `eqx.nn.State` that a call returns
    is of the forward pass at the anchor. In evaluation too a call gives f̄; `network` is the module with θ.

    **Arguments:**

    - `module`: any callable `eqx.Module`, for one example or a batch.
    - `schedule`: when to re-linearise: by the step alone, such as `relin.Every(64)`, or `WhenError` and
      `WhenFunctionMoves` without a probe; `None` leaves it to `relinearise()`.

    **Raises:** `TypeError` if `module` is no callable module, is one already or has no floating-point array;
    `ValueError` for a schedule that needs more than outputs; and, where it is called, for `custom_vjp` rules that have
    no transpose. One that adds to the cotangent or rounds it is refused only in a call outside of transformations such
    as `jax.jit`, where numbers are known: make one.
    """

    network: Any
    """The module with θ."""
    _anchor: list[_Bits]
    _step: Int[Array, ""]
    _counts: Counts
    _when: When = eqx.field(static=True)

    def __init__(self, module: Callable[..., Any], schedule: AbstractSchedule | None = None):
        if not isinstance(module, eqx.Module) or not callable(module) or isinstance(module, Linearised):
            raise TypeError(
                f"`module` must be a callable equinox.Module that is not linearised yet, got {type(module).__name__}; "
                "pass the module itself."
            )
        if not _arrays(module):
            raise TypeError(
                f"`module` must have floating-point arrays to train, got {type(module).__name__} with none; cast its "
                "weights to a floating-point dtype."
            )
        self._when, self.network = When(schedule), module
        self._anchor, self._step = [_Bits(leaf) for leaf in _arrays(module)], jnp.zeros((), jnp.int32)
        self._counts = self._when.start()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The linearised outputs f̄, in the form of the module's own."""
        if self._when.every_step:
            return self.network(*args, **kwargs)
        params, static = eqx.partition(self.network, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(params)
        anchor = self._anchor_of(leaves)
        form, (given, of_given) = list[Any](), jax.tree.flatten((args, kwargs))

        def function(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
            args, kwargs = of_given.unflatten(given)  # an eqx.nn.State serves one call only
            outputs = eqx.combine(structure.unflatten(leaves), static)(*args, **kwargs)
            parts, whole = jax.tree.flatten(outputs, is_leaf=_is_state)
            form[:] = whole, [_is_state(part) for part in parts]
            return [p for p in parts if not _is_state(p)], [p for p in parts if _is_state(p)]

        values, states = map(iter, expanded(function, anchor, leaves))
        whole, is_state = form
        return whole.unflatten([next(states if state else values) for state in is_state])

    def step(self, forward: Callable[[Any], Any] | None = None) -> "Linearised":
        """The model after a step of the optimiser: where the schedule is due, linearised at θ.

        `forward`, which an adaptive schedule needs, gives the outputs of a module on a probe, the examples on their
        first axis. It runs at due steps only; an `eqx.nn.State` among the outputs is left out. In `jax.pmap` and
        `jax.shard_map` it must give the same on every device: gather the outputs.

        **Raises:** `ValueError` for an adaptive schedule without it, and if it gives nothing but losses.
        """
        step, leaves = self._step + 1, _arrays(self.network)
        asked = None if forward is None else lambda: self._predictions(forward)
        anchor, counts = self._when.after_step(step, leaves, self._anchor_of(leaves), self._counts, asked)
        return self._with([_Bits(leaf) for leaf in anchor], step, counts)

    def relinearise(self) -> "Linearised":
        """The model linearised at θ: θ_s ← θ."""
        counts = [self._counts[0] + 1, *self._counts[1:]]
        return self._with([_Bits(leaf) for leaf in _arrays(self.network)], self._step, counts)

    def linearisation_error(self, forward: Callable[[Any], Any]) -> Scalar:
        """‖f(θ) − f̄‖ / ‖f(θ) − f(θ_s)‖ of what `forward(module)` gives, losses left out; 0 at an anchor."""
        leaves = _arrays(self.network)
        return linearisation_error(leaves, self._anchor_of(leaves), lambda: self._predictions(forward))

    @property
    def feature_updates(self) -> Int[Array, ""]:
        """How often the anchor moved: re-linearisations after the first."""
        return self._counts[0]

    def merged(self) -> Any:
        """The ordinary module with θ."""
        return self.network

    def _with(self, anchor: list[_Bits], step: Array, counts: Counts) -> "Linearised":
        return eqx.tree_at(lambda model: (model._anchor, model._step, model._counts), self, (anchor, step, counts))

    def _predictions(self, forward: Callable[[Any], Any]) -> Any:
        params, static = eqx.partition(self.network, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(params)

        def outputs(leaves: list[Array]) -> list[Any]:
            found = forward(eqx.combine(structure.unflatten(leaves), static))
            return [leaf for leaf in jax.tree.leaves(found, is_leaf=_is_state) if not _is_state(leaf)]

        return predictions(outputs, self._anchor_of(leaves), leaves)

    def _anchor_of(self, leaves: list[Array]) -> list[Array]:
        return [bits.like(leaf) for bits, leaf in zip(self._anchor, leaves, strict=True)]


def _arrays(module: Any) -> list[Array]:
    return jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))


def _is_state(node: Any) -> bool:
    return isinstance(node, eqx.nn.State)
