"""`linearised`: a Flax `TrainState` that trains a network by its linearisation, in a loop of one's own."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from relin._common.extra import needs_extra
from relin._core.check import params as check_params
from relin._core.expansion import expanded, predictions
from relin._core.types import Scalar
from relin._loop.in_loops import When, linearisation_error
from relin._schedule import AbstractSchedule

with needs_extra("linen", "flax"):
    from flax import serialization
    from flax.training.train_state import TrainState


_Forward = Callable[[Callable[..., Any], Any], Any]


def linearised(state: TrainState, schedule: AbstractSchedule | None = None) -> Any:
    """A `TrainState` whose network is trained by its linearisation f̄(x) = f(x; θ_s) + J_s(x) (θ − θ_s).

    `state.params` are θ, so that an optimiser with weight decay, clipping and moving averages sees those and nothing
    else; `state.anchor` is θ_s. `state.apply_fn({"params": params, …}, x, …)` gives f̄ for these θ; with `mutable=` also
    the collections after the forward pass, which is at the anchor. `state.apply_gradients(grads=…)` counts the step and
    moves the anchor where the schedule is due. With `relin.Every(1)` `apply_fn` is the network's own.

    An adaptive schedule is asked by `state.apply_gradients(grads=…, forward=forward)`. `forward(apply_fn, params)`
    calls the network on a probe and gives its outputs alone, such as `lambda apply_fn, params: apply_fn({"params":
    params}, x)` of the coming batch or of data held out. It runs at due steps only. In `jax.pmap` and `jax.shard_map`
    it must give the same on every device: gather the outputs.

    **Arguments:**

    - `state`: a `TrainState`, or of a class of one's own that is one.
    - `schedule`: when to re-linearise: by the step alone, such as `relin.Every(64)`, or `WhenError` and
      `WhenFunctionMoves` without a probe; `None` leaves it to `relinearise()`. Steps are those of `state.step`, counted
      from where the state is.

    **Returns:** a state of a class that is the given one's, with `relinearise()`, the state linearised at θ,
    `linearisation_error(forward)`, `feature_updates`, and `merged()`, the ordinary state with θ.

    **Raises:** `ImportError` without Flax; `TypeError` if `state` is no `TrainState` or is one already, or a parameter
    is not floating-point; `ValueError` if there is none, and for a schedule that needs more than outputs; and, where
    `apply_fn` is called, for `custom_vjp` rules that have no transpose. One that adds to the cotangent or rounds it is
    refused only in a call outside of transformations such as `jax.jit`, where numbers are known: make one.
    """
    if not isinstance(state, TrainState) or isinstance(state, _Linearised):
        raise TypeError(
            f"`state` must be a flax.training.train_state.TrainState that is not linearised yet, got "
            f"{type(state).__name__}; pass that of TrainState.create."
        )
    check_params(state.params)
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    anchor, when = jax.tree.map(jnp.array, state.params), When(schedule)
    return _class_of(type(state))(**values, anchor=anchor, when=when, counts=when.start())


class _ApplyFn:
    """The network as a loop calls it: the linearised one; the state's own dictionary keeps the ordinary one."""

    def __get__(self, state: Any, owner: type) -> Any:
        if state is None:
            raise AttributeError("apply_fn")  # a field without a default
        return state.__dict__["apply_fn"] if state.when.every_step else state._expanded

    def __set__(self, state: Any, value: Any) -> None:
        state.__dict__["apply_fn"] = value


class _Linearised:
    """What `linearised` adds to a `TrainState`."""

    def __init_subclass__(cls) -> None:
        """Flax would make a PyTree of the class whose static part is the linearised network, with the anchor in it."""

    def _expanded(self: Any, variables: Any, *args: Any, **kwargs: Any) -> Any:
        network, mutable = self.__dict__["apply_fn"], kwargs.get("mutable", False)
        others = {name: collection for name, collection in variables.items() if name != "params"}

        def function(params: Any) -> tuple[Any, Any]:
            result = network({**others, "params": params}, *args, **kwargs)
            return result if mutable is not False else (result, None)

        outputs, after = expanded(function, self.anchor, variables["params"])
        return outputs if mutable is False else (outputs, after)

    def apply_gradients(self: Any, *, grads: Any, forward: _Forward | None = None, **kwargs: Any) -> Any:
        """An optimiser's step. Where the schedule is due, the anchor moves to θ; `forward` runs at due steps alone."""
        after = super().apply_gradients(grads=grads, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        asked = None if forward is None else lambda: after._predictions(forward)
        anchor, counts = self.when.after_step(after.step, after.params, self.anchor, self.counts, asked)
        return after.replace(anchor=anchor, counts=counts)

    def relinearise(self: Any) -> Any:
        """The state linearised at θ: θ_s ← θ."""
        return self.replace(anchor=jax.tree.map(jnp.array, self.params), counts=[self.counts[0] + 1, *self.counts[1:]])

    def linearisation_error(self: Any, forward: _Forward) -> Scalar:
        """‖f(θ) − f̄‖ / ‖f(θ) − f(θ_s)‖ of what `forward(apply_fn, params)` gives, losses left out; 0 at an anchor."""
        return linearisation_error(self.params, self.anchor, lambda: self._predictions(forward))

    @property
    def feature_updates(self: Any) -> Int[Array, ""]:
        """How often the anchor moved: re-linearisations after the first."""
        return self.counts[0]

    def _predictions(self: Any, forward: _Forward) -> Any:
        network = self.__dict__["apply_fn"]
        return predictions(lambda params: forward(network, params), self.anchor, self.params)

    def merged(self: Any) -> Any:
        """The ordinary state with θ."""
        ordinary = type(self)._ordinary
        return ordinary(**{field.name: self.__dict__[field.name] for field in dataclasses.fields(ordinary)})

    def replace(self: Any, **updates: Any) -> Any:
        return type(self)(**{**self.__dict__, **updates})


@cache
def _class_of(ordinary: type) -> Any:
    """The class of linearised states of a class of states."""
    fields = {"anchor": Any, "when": Any, "counts": Any}
    kind: Any = dataclasses.make_dataclass(
        f"Linearised{ordinary.__name__}",
        [(name, annotation, dataclasses.field(kw_only=True)) for name, annotation in fields.items()],
        bases=(_Linearised, ordinary),
        namespace={"_ordinary": ordinary},
        frozen=True,
    )
    kind.apply_fn = _ApplyFn()
    static = {f.name for f in dataclasses.fields(ordinary) if not f.metadata.get("pytree_node", True)} | {"when"}
    names = [field.name for field in dataclasses.fields(kind)]
    data, rest = [n for n in names if n not in static], [n for n in names if n in static]

    def flatten(state: Any) -> tuple[list[Any], tuple[Any, ...]]:
        keyed = [(jax.tree_util.GetAttrKey(name), state.__dict__[name]) for name in data]
        return keyed, tuple(state.__dict__[name] for name in rest)

    def unflatten(statics: tuple[Any, ...], values: Any) -> Any:
        return kind(**dict(zip(data, values, strict=True)), **dict(zip(rest, statics, strict=True)))

    jax.tree_util.register_pytree_with_keys(kind, flatten, unflatten)
    serialization.register_serialization_state(
        kind,
        lambda state: {name: serialization.to_state_dict(state.__dict__[name]) for name in data},
        lambda state, given: state.replace(
            **{name: serialization.from_state_dict(state.__dict__[name], given[name], name=name) for name in data}
        ),
    )
    return kind
