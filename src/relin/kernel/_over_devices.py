"""The kernel in memory, its pairs of blocks spread over devices."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxtyping import Array

from relin._core import mesh as _mesh
from relin._core.types import Inputs, Params
from relin.kernel._blocks import Request, Result, kernel_in_blocks

_AXIS = "examples"


def mesh_of(mesh: Any, arrays: Any) -> Mesh | None:
    """One axis over the devices of `mesh`; without it, over those on which one of the arrays lies, if they are several,
    or of the mesh that `jax.set_mesh` set; `None` for one device, where it is the usual one.

    **Raises:** `TypeError` for anything but a mesh, `ValueError` for devices of several processes, and for tracers.
    """
    _mesh.check(mesh)
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        if mesh is not None:
            raise ValueError("`mesh` spreads a kernel of numbers, got tracers; call ntk with it outside jax.jit.")
        return None
    if mesh is None:
        places = [leaf.sharding for leaf in leaves]
        mesh = next(
            (s.mesh for s in places if isinstance(s, NamedSharding) and len(s.device_set) > 1), _mesh.of_context()
        )
    if mesh is None or _mesh.is_usual(mesh):
        return None
    if mesh.is_multi_process:
        raise ValueError(
            "A kernel is spread over the devices of one process, got a mesh over several; pass one of "
            "jax.local_devices(), and other examples as x1 in each process."
        )
    return Mesh(mesh.devices.reshape(-1), (_AXIS,))


def on_all(mesh: Mesh, arrays: Any) -> Any:
    """The arrays, each on every device."""
    place = NamedSharding(mesh, P())
    return jax.tree.map(lambda a: jax.device_put(a, place) if isinstance(a, jax.Array | np.ndarray) else a, arrays)


def kernel_over_devices(
    mesh: Mesh, request: Request, params: Params, x1: Inputs, x2: Inputs, batch_size: int | None, working_set: int
) -> Result:
    """The kernel by tensor, as `kernel_in_blocks` makes it, each device having some of its rows; `working_set` is each
    device's. Some examples are made twice where the devices do not divide their number."""
    rows, columns = (jax.tree.leaves(x)[0].shape[0] for x in (x1, x2))
    more = np.minimum(np.arange(rows + -rows % mesh.size), rows - 1)
    x1 = jax.tree.map(lambda a: jnp.asarray(a)[more], x1) if len(more) > rows else x1
    whole = _spread(mesh, request, params, x1, x1 if request.symmetric else x2, batch_size, working_set)
    return whole if len(more) == rows else jax.tree.map(lambda part: part[:rows, :columns], whole)


@eqx.filter_jit
def _spread(
    mesh: Mesh, request: Request, params: Params, x1: Inputs, x2: Inputs, batch_size: int | None, working_set: int
) -> Result:
    arrays, rest = eqx.partition((request, params), eqx.is_array)

    def here(arrays: Any, x1: Inputs, x2: Inputs) -> Result:
        request, params = eqx.combine(arrays, rest)
        if request.symmetric:
            return _rows_of_symmetric(mesh.size, request, params, x1, batch_size, working_set)
        return kernel_in_blocks(request, params, x1, x2, batch_size, working_set)

    specs = P(), P(_AXIS), P()
    return jax.shard_map(here, mesh=mesh, in_specs=specs, out_specs=P(_AXIS), check_vma=False)(arrays, x1, x2)


def _rows_of_symmetric(
    size: int, request: Request, params: Params, x: Inputs, batch_size: int | None, working_set: int
) -> Result:
    """The rows of one device's examples. It makes the blocks with those of itself and of half of the devices after it,
    and is sent the mirror images of the others by those before it."""
    number, own = jax.tree.leaves(x)[0].shape[0], jax.lax.axis_index(_AXIS)
    whole: Result = {}
    for offset in range(size // 2 + 1):
        others = _sent(x, size, -offset)
        pair = replace(request, symmetric=offset == 0)
        made = kernel_in_blocks(pair, params, x, others, batch_size, working_set)
        if not whole:
            whole = {name: jnp.zeros((number, size * number, *a.shape[2:]), a.dtype) for name, a in made.items()}
        whole = _written(whole, made, (own + offset) % size * number)
        if 0 < 2 * offset < size:
            images = _sent(jax.tree.map(_mirrored, made), size, offset)
            whole = _written(whole, images, (own - offset) % size * number)
    return whole


def _sent(tree: Any, size: int, offset: int) -> Any:
    """What each device has, on the one so many after it."""
    ring = [(device, (device + offset) % size) for device in range(size)]
    return tree if offset == 0 else jax.tree.map(lambda a: jax.lax.ppermute(a, _AXIS, ring), tree)


def _mirrored(part: Array) -> Array:
    """Θ(x′, x) from Θ(x, x′)."""
    return jnp.transpose(part, (1, 0, 3, 2)) if part.ndim == 4 else jnp.swapaxes(part, 0, 1)


def _written(whole: Result, parts: Result, column: Array) -> Result:
    return {name: jax.lax.dynamic_update_slice_in_dim(whole[name], part, column, 1) for name, part in parts.items()}
