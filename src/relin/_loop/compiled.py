"""Functions of a run, compiled once for all runs whose static parts are equal, and for all their lanes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from relin._core.check import LARGEST_COUNT
from relin._core.randomness import RandomnessError, not_drawn
from relin._core.types import Inputs, Params, Scalar, Targets
from relin._loop.partition import StaticTree, hashable_combine, hashable_partition
from relin._loop.placement import Placement, mesh_of_lanes
from relin._loop.program import Run, Sampling, Setup
from relin._observer import AbstractObserver


@partial(jax.jit, static_argnums=0)
def linearised_step(
    static: StaticTree, problem: PyTree, params: Params, displacement: Params, x: Inputs, y: Targets
) -> tuple[Scalar, Params]:
    """A linearised step's loss and gradient: a program to read, traced once for all runs on the same problem."""
    return hashable_combine(problem, static).linearised_value_and_grad(params, displacement, x, y)


@partial(jax.jit, static_argnums=0)
def watched_outputs(static: StaticTree, problem: PyTree, params: Params, x: Inputs) -> Any:
    """The network's outputs: a program whose shapes are read, traced once for all runs on the same problem. Raises
    `RandomnessError`, at every attempt, where random numbers are drawn."""
    apply = hashable_combine(problem, static).apply
    with not_drawn(apply, _raise):
        return apply(params, x)


def _raise(generator: str) -> None:
    raise RandomnessError(generator)


class Static(eqx.Module):
    """What is fixed when a program is compiled, hashable: how arrays become a run, and what its lanes and observers
    share; and how lanes are gone through, where there are many."""

    make: Callable[[PyTree], Run]
    lane: StaticTree
    shared: StaticTree
    over: Literal["one", "map", "vmap"]
    placement: Placement | None

    def __call__(self, lane: PyTree, shared: PyTree) -> Setup:
        run = self.make(hashable_combine(lane, self.lane))
        return Setup(run, *hashable_combine(shared, self.shared), nested=self.over != "vmap", placement=self.placement)


class Programs:
    """The programs of a run, or of the lanes of many, on the arrays that they are given besides.

    `call(function, each, *others, count=None)` is `function(setup, *each, *others, count)` as one program; where there
    are many lanes, for each of them, with a leading axis of lanes in each of `each`, spread over the devices of this
    process.
    """

    def __init__(
        self,
        make: Callable[[PyTree], Run],
        lane: PyTree,
        sampling: Sampling,
        observers: tuple[AbstractObserver, ...],
        num_steps: int | float,
        over: Literal["one", "map", "vmap"] = "one",
        placement: Placement | None = None,
    ):
        self.sampling = sampling
        self.lane, static = hashable_partition(lane)
        common = sampling, observers, np.asarray(min(num_steps, LARGEST_COUNT), np.int32)
        self.shared, shared = hashable_partition(common if placement is None else placement.placed(common))
        self.static = Static(make, static, shared, over, placement)
        self.call = partial(_call, self.static, self.lane, self.shared)

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
        given = function(static(lanes, shared), *each, *others, **options)
        return given if static.placement is None else static.placement.kept(given)

    def one(shared: PyTree, others: Any, lane: Any) -> Any:
        return function(static(lane[0], shared), *lane[1], *others, **options)

    def all_here(shared: PyTree, others: Any, lanes: Any) -> Any:
        if static.over == "vmap":
            return jax.vmap(one, in_axes=(None, None, 0))(shared, others, lanes)
        return jax.lax.map(partial(one, shared, others), lanes)

    if jax.local_device_count() == 1:
        return all_here(shared, others, (lanes, each))
    mesh, specs = mesh_of_lanes(), (P(), P(), P("lanes"))
    spread = jax.shard_map(all_here, mesh=mesh, in_specs=specs, out_specs=P("lanes"), check_vma=False)
    return spread(shared, others, (lanes, each))
