"""`Linearised`: a Flax NNX module that trains by its linearisation, in a loop of one's own."""

from typing import Any

import jax
import jax.numpy as jnp

from relin._common.extra import needs_extra
from relin._core.check import params as check_params
from relin._core.expansion import expanded
from relin._loop.in_loops import When
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

    A loop calls `model.step()` after each step of its optimiser, inside `nnx.jit` or outside. Running statistics and
    counters of random numbers move in the forward passes, which are at the anchor; f and J v share one mask. In
    evaluation too a call gives f̄; `network` is the module with θ.

    **Arguments:**

    - `module`: an `nnx.Module`, which is shared, not copied: as it is trained, so is the module.
    - `schedule`: when to re-linearise, by the step alone, such as `relin.Every(64)`; `None` leaves it to
      `relinearise()`.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no callable module, is one already, or an
    `nnx.Param` is not floating-point; `ValueError` if there is none, and for a schedule that looks at the network; and,
    where it is called, for `custom_vjp` rules that have no transpose. One that adds to
    the cotangent or rounds it is refused only in a call outside of transformations such as `jax.jit`, where numbers are
    known: make one.
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

    def step(self) -> None:
        """Counts a step of the optimiser. Where the schedule is due, the anchor moves to θ."""
        self.steps[...] = self.steps[...] + 1
        before = [part[...] for part in self.anchor]
        self._put(self.when.anchor(self.steps[...], jax.tree.leaves(nnx.state(self.network, nnx.Param)), before))

    def relinearise(self) -> None:
        """Linearises at θ: θ_s ← θ."""
        self._put([jnp.array(leaf) for leaf in jax.tree.leaves(nnx.state(self.network, nnx.Param))])

    def merged(self) -> Any:
        """The ordinary module with θ."""
        return self.network

    def _put(self, arrays: list[Any]) -> None:
        for part, array in zip(self.anchor, arrays, strict=True):
            part[...] = array
