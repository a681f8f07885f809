"""The devices that share a computation."""

from typing import Any

import jax
from jax.sharding import Mesh


def check(mesh: Any) -> None:
    """Raises `TypeError` for anything but a mesh or `None`."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"`mesh` must be a jax.sharding.Mesh, got {type(mesh).__name__}; pass for example "
            'jax.make_mesh((jax.device_count(),), ("data",)).'
        )


def of_context() -> Mesh | None:
    """The mesh that `jax.set_mesh` set; `None` if none is, and under `jax.jit`, where it cannot be asked for."""
    try:
        mesh = jax.sharding.get_mesh()
    except ValueError:
        return None
    return None if mesh.empty else mesh
