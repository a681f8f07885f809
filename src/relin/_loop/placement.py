"""Where the arrays of one run lie on several devices."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P, Sharding

from relin._core import mesh as _mesh, tree as _tree
from relin._core.types import Inputs, Params, Targets

BATCH_AXES = ("data", "fsdp")
"""Axes of a mesh over which the examples of a batch are split."""
PARAMS_AXIS = "fsdp"
"""The axis over which parameters are split."""

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class Placement:
    """Which axis of each array is split over which axes of a mesh; hashable, fixed when a program is compiled.

    The compiler splits what is computed. All that is said here is where a program's batches lie, and the states that it
    gives: what has the parameters' form, such as anchor, displacement and moments, lies as they do.
    """

    mesh: Mesh
    """With automatic axes, whatever those of the user's mesh are."""
    batch_axes: tuple[str, ...]
    """Over which examples are split; empty where nothing says so."""
    structure: Any = None
    """Of the parameters."""
    params: tuple[tuple[tuple[int, ...], Sharding], ...] = ()
    """Shape and place of each."""

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Meanwhile new arrays are made on the mesh, and their types hold no axes of a mesh that the user set."""
        with jax.set_mesh(self.mesh):
            yield

    def with_params(self, params: Params) -> tuple[Params, "Placement"]:
        """The parameters on the mesh, and the placement that knows them. If one of them came split, each lies as it
        came; else the largest axis is split that the mesh's axis divides, if there is one."""
        params = jax.tree.map(given, params)
        came_split = any(map(_is_split, jax.tree.leaves(params)))
        params = jax.tree.map(lambda leaf: _put(leaf, self._of_param(leaf, came_split)), params)
        leaves, structure = jax.tree.flatten(params)
        return params, replace(self, structure=structure, params=tuple((leaf.shape, leaf.sharding) for leaf in leaves))

    def placed(self, tree: _Tree, split: bool = False) -> _Tree:
        """A tree with its arrays on the mesh: as they came if they came split; else with `split` by their leading axis,
        where that can be done evenly; else on every device."""
        arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
        return eqx.combine(jax.tree.map(lambda leaf: _put(leaf, self._of_array(leaf, split)), arrays), rest)

    def readable(self, batch: tuple[Inputs, Targets]) -> tuple[Inputs, Targets]:
        """The batch with targets that the host can read: of several processes each holds a part alone."""
        if not self.mesh.is_multi_process:
            return batch
        from jax.experimental import multihost_utils

        return batch[0], multihost_utils.process_allgather(batch[1], tiled=True)

    def split(self, batch: _Tree) -> _Tree:
        """In a program: a batch of which each device holds some examples."""
        if not self.batch_axes:
            return batch
        place = NamedSharding(self.mesh, P(self.batch_axes))
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, place), batch)

    def kept(self, tree: _Tree) -> _Tree:
        """In a program: the tree, in which all that has the parameters' form lies as they do."""
        shapes, places = zip(*self.params, strict=True)

        def alike(part: Any) -> bool:
            same = jax.tree.structure(part) == self.structure
            return same and tuple(map(jnp.shape, jax.tree.leaves(part))) == shapes

        def placed(part: Any) -> Any:
            if not alike(part):
                return part
            return jax.lax.with_sharding_constraint(part, jax.tree.unflatten(self.structure, places))

        return jax.tree.map(placed, tree, is_leaf=alike)

    def _of_param(self, leaf: Any, came_split: bool) -> Sharding:
        size = self.mesh.shape.get(PARAMS_AXIS, 1)
        divided = [axis for axis, length in enumerate(leaf.shape) if length and length % size == 0]
        if came_split or size == 1 or not divided:
            return self._own(leaf) or NamedSharding(self.mesh, P())
        largest = max(divided, key=lambda axis: leaf.shape[axis])
        return NamedSharding(self.mesh, P(*[None] * largest, PARAMS_AXIS))

    def _of_array(self, leaf: Any, split: bool) -> Sharding:
        own, pieces = self._own(leaf), math.prod(self.mesh.shape[axis] for axis in self.batch_axes)
        if own is not None and _is_split(leaf):
            return own
        even = np.ndim(leaf) > 0 and np.shape(leaf)[0] % pieces == 0
        return NamedSharding(self.mesh, P(self.batch_axes) if split and self.batch_axes and even else P())

    def _own(self, leaf: Any) -> Sharding | None:
        """The place of an array that lies on several devices; `None` of any other, and of one that each device holds
        whole in another order of the devices.

        **Raises:** `ValueError` if these are not the mesh's devices, or it is split in another order of them.
        """
        sharding = getattr(leaf, "sharding", None)
        if sharding is None or len(sharding.device_set) == 1:
            return None
        if sharding.device_set != set(self.mesh.devices.flat):
            raise ValueError(
                f"All arrays of a run must lie on the devices of one mesh, got one on {len(sharding.device_set)} "
                f"devices and a mesh of {self.mesh.size}; place them with jax.device_put, or pass NumPy arrays."
            )
        if not isinstance(sharding, NamedSharding):
            return sharding
        if _order(sharding.mesh) == _order(self.mesh):
            return NamedSharding(_mesh.automatic(sharding.mesh), sharding.spec)
        if not sharding.is_fully_replicated:
            raise ValueError(
                "All arrays of a run must be split over devices in one order, got one split over those of "
                f"{sharding.mesh} and the mesh {self.mesh}; pass a mesh of the array's devices in their order."
            )
        return None


def placement_of(mesh: Any, params: Params, data: Any) -> Placement | None:
    """Where a run lies: on `mesh`; without one on that of the first parameter, or array of the data, that lies on
    several devices; else on the one that `jax.set_mesh` set; `None` for one device, where it is the usual one.

    **Raises:** `TypeError` for anything but a mesh, `ValueError` for one with an axis over which nothing is split.
    """
    _mesh.check(mesh)
    data = data if isinstance(data, tuple) else ()
    places = [leaf.sharding for leaf in jax.tree.leaves((params, data)) if _on_several(leaf)]
    known = {*BATCH_AXES, *(axis for place in places for axis in _axes(place.spec))}
    if idle := [name for name, size in (mesh.shape.items() if mesh else ()) if size > 1 and name not in known]:
        raise ValueError(
            f"Each axis of `mesh` must split something, got the axis {idle[0]!r}, which splits nothing; name it "
            '"data" to split the examples, or "fsdp" to split examples and parameters, or pass parameters that are '
            "split over it."
        )
    mesh = mesh or next((place.mesh for place in places), _mesh.of_context())
    if mesh is None or _mesh.is_usual(mesh):
        return None
    given = [leaf.sharding.spec for leaf in jax.tree.leaves(data) if _on_several(leaf) and _is_split(leaf)]
    axes = tuple(_axes(given[0][:1])) if given else BATCH_AXES
    return Placement(_mesh.automatic(mesh), tuple(axis for axis in axes if axis in mesh.axis_names))


def given(leaf: Any) -> Any:
    """An array of any library, on no device if it was on none of JAX's."""
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def mesh_of_lanes() -> Mesh:
    """The devices over which lanes are spread: all of this process."""
    return Mesh(np.asarray(jax.local_devices()), ("lanes",))


def for_lanes(data: _Tree) -> tuple[_Tree, Placement | None]:
    """The data, and where lanes are made: as they are, unless data come on several devices or a mesh is set, whose axes
    are then taken as automatic ones.

    **Raises:** `ValueError` for data on some of the devices over which lanes are spread.
    """
    several = any(map(_on_several, jax.tree.leaves(data)))
    if not several and _mesh.of_context() is None:
        return data, None
    placement = Placement(mesh_of_lanes(), ())
    return placement.placed(data) if several else data, placement


def _put(leaf: Any, place: Sharding) -> jax.Array:
    """The array there; of several processes each gives the whole of one that is on no devices of others."""
    if place.is_fully_addressable or not getattr(leaf, "is_fully_addressable", True):
        return jax.device_put(leaf, place)
    if _tree.is_key(leaf):
        return jax.random.wrap_key_data(_put(_tree.numbers(leaf), place), impl=jax.random.key_impl(leaf))
    return jax.device_put(np.asarray(leaf), place)


def _on_several(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)
    return isinstance(sharding, NamedSharding) and len(sharding.device_set) > 1


def _is_split(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and not sharding.is_fully_replicated


def _order(mesh: Any) -> list[Any]:
    """Of the devices."""
    return list(mesh.devices.flat)


def _axes(parts: Any) -> Iterator[str]:
    """The names in a partition of axes."""
    for part in parts:
        yield from part if isinstance(part, tuple) else (part,) if isinstance(part, str) else ()
