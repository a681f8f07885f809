"""Functions of a run, compiled once for all runs whose static parts are equal, and for all their lanes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from jaxtyping import PyTree

from relin._core.randomness import RandomnessError, not_drawn
from relin._core.types import Inputs, Params, Scalar, Targets
from relin._loop.program import Run, Sampling, Setup
from relin._loop.same import identity
from relin._observer import AbstractObserver


class Recombine:
    """A PyTree's static part: called with the arrays it was separated from, it gives the PyTree back.

    Equal static parts are equal, so that a second run of the same kind finds the compiled program; Optax's functions
    are compared by what they close over, see `_same`.
    """

    def __init__(self, static: PyTree):
        self.static = static
        leaves, structure = jax.tree.flatten(static)
        self.identity = (tuple(map(identity, leaves)), structure)

    def __call__(self, arrays: PyTree) -> Any:
        return eqx.combine(arrays, self.static)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recombine) and self.identity == other.identity

    def __hash__(self) -> int:
        try:
            return hash(self.identity)
        except TypeError:  # a static leaf without a hash: equal parts still compare equal
            return hash(self.identity[1])


def separate(tree: PyTree) -> tuple[PyTree, Recombine]:
    """The arrays of a PyTree, and the function that puts them back."""
    arrays, static = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return arrays, Recombine(static)


@partial(jax.jit, static_argnums=0)
def derivative(make: Recombine, problem: PyTree, params: Params, x: Inputs, y: Targets) -> tuple[Scalar, Params]:
    """A linearised step's loss and gradient: a program to look at, traced once for all runs on the same problem."""
    return make(problem).linearised_value_and_grad(params, params, x, y)


@partial(jax.jit, static_argnums=0)
def watched_outputs(make: Recombine, problem: PyTree, params: Params, x: Inputs) -> Any:
    """The network's outputs: a program whose shapes are looked at, traced once for all runs on the same problem. Raises
    `RandomnessError`, at every attempt, where random numbers are drawn."""
    apply = make(problem).apply
    with not_drawn(apply, _raise):
        return apply(params, x)


def _raise(generator: str) -> None:
    raise RandomnessError(generator)


class Static(eqx.Module):
    """What is fixed when a program is compiled, hashable: how arrays become a run, and what its lanes and observers
    share; and how lanes are gone through, where there are many."""

    make: Callable[[PyTree], Run]
    shared: Recombine
    over: Literal["one", "map", "vmap"]

    def __call__(self, lane: PyTree, shared: PyTree) -> Setup:
        return Setup(self.make(lane), *self.shared(shared), nested=self.over != "vmap")


class Programs:
    """The programs of a run, or of the lanes of many, on the arrays that they are given besides.

    `call(function, each, *others, count=None)` is `function(setup, *each, *others, count)` as one program; where there
    are many lanes, for each of them, with a leading axis of lanes in each of `each`, spread over the devices there are.
    """

    def __init__(
        self,
        make: Callable[[PyTree], Run],
        lane: PyTree,
        sampling: Sampling,
        observers: tuple[AbstractObserver, ...],
        over: Literal["one", "map", "vmap"] = "one",
    ):
        shared, recombine = separate((sampling, observers))
        self.sampling, self.observers = sampling, observers
        self.static, self.lane, self.shared = Static(make, recombine, over), lane, shared
        self.call = partial(_call, self.static, lane, shared)

    @property
    def setup(self) -> Setup:
        """Of one run."""
        return self.static(self.lane, self.shared)


@partial(jax.jit, static_argnums=(0, 3), static_argnames="count")
def _call(
    static: Static,
    lanes: PyTree,
    shared: PyTree,
    function: Callable,
    each: tuple,
    *others: Any,
    count: int | None = None,
) -> Any:
    options = {} if count is None else {"count": count}
    if static.over == "one":
        return function(static(lanes, shared), *each, *others, **options)

    def one(shared: PyTree, others: Any, lane: Any) -> Any:
        return function(static(lane[0], shared), *lane[1], *others, **options)

    def all_here(shared: PyTree, others: Any, lanes: Any) -> Any:
        if static.over == "vmap":
            return jax.vmap(one, in_axes=(None, None, 0))(shared, others, lanes)
        return jax.lax.map(partial(one, shared, others), lanes)

    if jax.device_count() == 1:
        return all_here(shared, others, (lanes, each))
    mesh, specs = Mesh(np.array(jax.devices()), ("lanes",)), (P(), P(), P("lanes"))
    spread = jax.shard_map(all_here, mesh=mesh, in_specs=specs, out_specs=P("lanes"), check_vma=False)
    return spread(shared, others, (lanes, each))
