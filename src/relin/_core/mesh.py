"""The devices that share a computation."""

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding


def check(mesh: Any) -> None:
    """Raises `TypeError` for anything but a mesh or `None`."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"`mesh` must be a jax.sharding.Mesh, got {type(mesh).__name__}; pass for example "
            'jax.make_mesh((jax.device_count(),), ("data",)).'
        )


def is_usual(mesh: Mesh) -> bool:
    """Whether it is of one device, on which new arrays are anyhow."""
    if mesh.size > 1:
        return False
    usual = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return mesh.devices.item() == (usual if isinstance(usual, jax.Device) else jax.local_devices(backend=usual)[0])


def automatic(mesh: Any) -> Mesh:
    """The same devices, of which the compiler decides what each does."""
    return Mesh(mesh.devices, mesh.axis_names)


def on_automatic_axes(tree: Any) -> Any:
    """The arrays, with those on explicit axes on the same axes as automatic ones; unless a mesh is set, by whose axes
    they are then computed with."""
    return tree if of_context() else jax.tree.map(_on_automatic_axes, tree)


def _on_automatic_axes(leaf: Any) -> Any:
    place = None if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)
    if not isinstance(place, NamedSharding) or AxisType.Explicit not in place.mesh.axis_types:
        return leaf
    return jax.device_put(leaf, NamedSharding(automatic(place.mesh), place.spec))


def of_context() -> Mesh | None:
    """The mesh that `jax.set_mesh` set; `None` if none is, and under `jax.jit`, where it cannot be asked for."""
    try:
        mesh = jax.sharding.get_mesh()
    except ValueError:
        return None
    return None if mesh.empty else mesh
