"""`Linearised`: a Flax NNX module that trains by its linearisation, in a loop of one's own."""

from collections.abc import Callable
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

with needs_extra("nnx", "flax"):
    from flax import nnx


class Anchor(nnx.Variable):
    """An array of θ_s, or the count of steps: no `nnx.Param`, so that it is not trained."""


class Linearised(nnx.Module):
    """A module that is trained by its linearisation f̄(x) = f(x; θ_s) + J_s(x) (θ − θ_s), and called as the module is.

    Its `nnx.Param`s are the module's own, θ, so that `nnx.Optimizer(model, …, wrt=nnx.Param)` with weight decay,
    clipping and moving averages sees those of the module and nothing else; the anchor θ_s is kept beside them in
    variables of the kind `Anchor`. With `relin.Every(1)` a call is the module's own.

    A loop calls `model.step()` after each step of its optimiser, inside `nnx.jit` or outside; with an adaptive schedule
    `model.step(forward)`, where `forward(module)` calls the module on a probe, such as `lambda module: module(x)` of
    the coming batch or of data held out. Running statistics and counters of random numbers move in the forward passes,
    which are at the anchor; f and J v share one mask. In evaluation too a call gives f̄; `network` is the module with θ.

    **Arguments:**

    - `module`: an `nnx.Module`, which is shared, not copied: as it is trained, so is the module.
    - `schedule`: when to re-linearise: by the step alone, such as `relin.Every(64)`, or `WhenError` and
      `WhenFunctionMoves` without a probe; `None` leaves it to `relinearise()`.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no callable module, is one already, or an
    `nnx.Param` is not floating-point; `ValueError` if there is none, and for a schedule that needs more than outputs;
    and, where it is called, for `custom_vjp` rules that have no transpose. One that adds to the cotangent or rounds it
    is refused only in a call outside of transformations such as `jax.jit`, where numbers are known: make one.
    """

    network: Any
    """The module with θ."""

    def __init__(self, module: Any, schedule: AbstractSchedule | None = None):
        if not isinstance(module, nnx.Module) or not callable(module) or isinstance(module, Linearised):
            raise TypeError(
                f"`module` must be a callable flax.nnx.Module that is not linearised yet, got {type(module).__name__}; "
                "pass the module itself."
            )
        state = nnx.state(module, nnx.Param)
        check_params(nnx.to_pure_dict(state))
        self.network, self.when = module, nnx.static(When(schedule))
        self.anchor = nnx.List([Anchor(jnp.array(leaf)) for leaf in jax.tree.leaves(state)])
        self.steps = Anchor(jnp.zeros((), jnp.int32))
        self.counts = nnx.List([Anchor(count) for count in self.when.start()])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The linearised outputs f̄, in the form of the module's own."""
        if self.when.every_step:
            return self.network(*args, **kwargs)
        graph, params, others = nnx.split(self.network, nnx.Param, ...)
        (leaves, structure), (rest, of_rest) = jax.tree.flatten(params), jax.tree.flatten(others)

        def function(leaves: list[Any]) -> tuple[Any, Any]:
            module = nnx.merge(graph, structure.unflatten(leaves), of_rest.unflatten(rest))
            outputs = module(*args, **kwargs)
            return outputs, nnx.state(module, nnx.Not(nnx.Param))

        outputs, after = expanded(function, [part[...] for part in self.anchor], leaves)
        nnx.update(self.network, after)
        return outputs

    def step(self, forward: Callable[[Any], Any] | None = None) -> None:
        """Counts a step of the optimiser. Where the schedule is due, the anchor moves to θ.

        `forward`, which an adaptive schedule needs, gives the outputs of a module on a probe, the examples on their
        first axis. It runs at due steps only, in the module's mode, on copies: statistics and counters of random
        numbers do not move. In `jax.pmap` and `jax.shard_map` it must give the same on every device: gather the
        outputs.

        **Raises:** `ValueError` for an adaptive schedule without it, and if it gives nothing but losses.
        """
        self.steps[...] = self.steps[...] + 1
        params, anchor = self._params(), [part[...] for part in self.anchor]
        asked = None if forward is None else lambda: self._predictions(forward, params, anchor)
        counts = [count[...] for count in self.counts]
        _put(self.anchor, self.counts, *self.when.after_step(self.steps[...], params, anchor, counts, asked))

    def relinearise(self) -> None:
        """Linearises at θ: θ_s ← θ."""
        counts = [self.counts[0][...] + 1, *(count[...] for count in self.counts[1:])]
        _put(self.anchor, self.counts, [jnp.array(leaf) for leaf in self._params()], counts)

    def linearisation_error(self, forward: Callable[[Any], Any]) -> Scalar:
        """‖f(θ) − f̄‖ / ‖f(θ) − f(θ_s)‖ of what `forward(module)` gives, losses left out; 0 at an anchor."""
        params, anchor = self._params(), [part[...] for part in self.anchor]
        return linearisation_error(params, anchor, lambda: self._predictions(forward, params, anchor))

    @property
    def feature_updates(self) -> Int[Array, ""]:
        """How often the anchor moved: re-linearisations after the first."""
        return self.counts[0][...]

    def merged(self) -> Any:
        """The ordinary module with θ."""
        return self.network

    def _params(self) -> list[Any]:
        return jax.tree.leaves(nnx.state(self.network, nnx.Param))

    def _predictions(self, forward: Callable[[Any], Any], params: list[Any], anchor: list[Any]) -> Any:
        graph, own, others = nnx.split(self.network, nnx.Param, ...)
        structure = jax.tree.structure(own)
        return predictions(
            lambda leaves: forward(nnx.merge(graph, structure.unflatten(leaves), others, copy=True)), anchor, params
        )


def _put(anchor: Any, counts: Any, arrays: list[Any], numbers: list[Any]) -> None:
    for part, array in zip([*anchor, *counts], [*arrays, *numbers], strict=True):
        part[...] = array
