"""`ntk`: the empirical neural tangent kernel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, Float

from relin._core import check as _check
from relin._core.types import Inputs, Outputs, Params
from relin.kernel._arguments import check_inputs, check_outputs, check_pair, check_size
from relin.kernel._batches import kernel_of_batches
from relin.kernel._blocks import Request, kernel_in_blocks
from relin.kernel._independence import may_be_coupled, refuse_coupled
from relin.kernel._not_finite import all_finite, reason
from relin.kernel._on_disk import KernelOnDisk
from relin.kernel._over_devices import kernel_over_devices, mesh_of, on_all
from relin.kernel._to_disk import Asked, kernel_to_disk

REMEDY = (
    "freeze batch statistics or normalise within each example, or pass `coupled=True` for the kernel of the "
    "batch as a whole"
)


def ntk(
    apply: Callable[[Params, Inputs], Outputs],
    params: Params,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Literal["full", "mean", "diagonal"] | int = "full",
    batch_size: int | None = None,
    per_layer: bool = False,
    working_set: int | None = None,
    coupled: bool = False,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    mesh: Mesh | None = None,
) -> Float[Array, "N1 N2 ..."] | dict[str, Float[Array, "N1 N2 ..."]] | KernelOnDisk:
    """The empirical neural tangent kernel Θ(x1, x2) = J(x1) J(x2)ᵀ (Jacot et al. 2018, arXiv:1806.07572).

    Θ is a sum over parameter tensors. The part of a tensor that enters through one dense product, convolution or
    embedding is made of the layer's inputs a and the cotangents b of its outputs, (a·a′)(b·b′) for a dense layer, as
    in the structured derivatives of Novak et al. 2022 (arXiv:2206.08720); for several positions, from whichever of
    gradients and pairs of positions takes fewer operations. Any other tensor is differentiated directly. Values do
    not depend on the route, nor on the blocks, beyond rounding. Matrix products are of full precision on every device.

    **Arguments:**

    - `apply`: `apply(params, x) -> outputs` of shape `(batch, C)`, each example's outputs those of that example alone,
      which is checked, unless `coupled`. Further axes are flattened: of `(batch, length, V)` C is length · V, one
      position after the other. Compiled once for each function object: pass the same one again, not a new `lambda`.
    - `params`: θ, a PyTree of floating-point arrays.
    - `x1`, `x2`: PyTrees of arrays with leading axes N1 and N2; without `x2` it is `x1`, and each pair of blocks is
      computed once.
    - `outputs`: `"full"`; `"mean"`, the trace over outputs divided by C; `"diagonal"`; or the number of one output.
    - `batch_size`: how many examples of each side have their features made at once; by default as many as
      `working_set` allows.
    - `per_layer`: whether to return the parts by parameter tensor, which sum to the whole.
    - `working_set`: bytes to use beside the result and what compiling takes, by estimate; one example's features need
      what they need. By default 5 MB for every example, but at least 160 and at most 320 MB.
    - `mesh`: a `jax.sharding.Mesh` over whose devices, whatever its axes are, the pairs of blocks are spread; each then
      has some rows of the kernel, and a working set of its own. Without it these are the devices on which an argument
      lies, if they are several, or of the mesh that `jax.set_mesh` set. Not with `out` or `coupled`.

    **Returns:** an array of shape `(N1, N2, C, C)`, `(N1, N2)`, `(N1, N2, C)` or `(N1, N2)`, by `outputs`; with
    `per_layer` a dict of such arrays by path, as `jax.tree_util.keystr` writes it. It may be called under `jax.jit`,
    `jax.vmap` and `jax.grad`.

    **Raises:** `TypeError` or `ValueError` for arguments or outputs that are not as described, and for examples that
    depend on each other, with the operation where they meet. Under `jax.jit`, where only values would tell, the program
    raises when it runs. `ValueError`, with the example and the parameter, for a kernel that is not finite, but not
    under such a transformation; and where `out` holds another kernel, with what differs. `OSError` for a disk that
    refuses.
    """
    sizes = {"batch_size": batch_size, "working_set": working_set}
    spread = mesh_of(mesh, (params, x1, x2))
    if spread is not None and spread.size == 1:
        params, x1, x2 = on_all(spread, (params, x1, x2))
    elif spread is not None:
        if out is not None or progress is not None or coupled:
            raise ValueError(
                "Over several devices a kernel is made in memory, of examples that do not depend on each other, got "
                "`out`, `progress` or `coupled`; leave them out, or pass arrays on one device and no `mesh`, outside "
                "jax.set_mesh."
            )
        with jax.set_mesh(spread):
            arrays = on_all(spread, (params, x1, x2))
            asked = _asked(apply, *arrays, outputs=outputs, per_layer=per_layer, coupled=False, **sizes)
            second = asked.x1 if asked.x2 is None else asked.x2
            result = kernel_over_devices(spread, *asked._replace(x2=second))
            return _finite(result if per_layer else result[""], apply, asked.params, asked.x1, asked.x2)
    if out is not None or progress is not None:
        asked = _asked(apply, params, x1, x2, outputs=outputs, per_layer=per_layer, coupled=coupled, **sizes)
        return kernel_to_disk(asked, bool(coupled), out, progress)
    kernel = unchecked_ntk(apply, params, x1, x2, outputs=outputs, per_layer=per_layer, coupled=coupled, **sizes)
    return _finite(kernel, apply, params, x1, x2)


def _finite(kernel: Any, apply: Callable, params: Params, x1: Inputs, x2: Inputs | None) -> Any:
    """The kernel; raises `ValueError` for one that is not finite, unless it is traced."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(kernel))
    if not traced and not all_finite(kernel, x2 is None):
        raise ValueError(f"The kernel must be finite, got one that is not: {reason(kernel, apply, params, x1, x2)}.")
    return kernel


def unchecked_ntk(
    apply: Callable[[Params, Inputs], Outputs],
    params: Params,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    outputs: Literal["full", "mean", "diagonal"] | int = "full",
    batch_size: int | None = None,
    per_layer: bool = False,
    working_set: int | None = None,
    coupled: bool = False,
) -> Any:
    """The same, also where it is not finite: for runs, of which a divergence is an outcome."""
    sizes = {"batch_size": batch_size, "working_set": working_set}
    asked = _asked(apply, params, x1, x2, outputs=outputs, per_layer=per_layer, coupled=coupled, **sizes)
    request, params, x1, x2, batch_size, working_set = asked
    if coupled and any(may_be_coupled(apply, params, x) for x in (x1, x2) if x is not None):
        result = kernel_of_batches(apply, request.outputs, request.per_layer, params, x1, x2)
    else:
        result = kernel_in_blocks(request, params, x1, x1 if x2 is None else x2, batch_size, working_set)
    return result if per_layer else result[""]


def _asked(
    apply: Callable[[Params, Inputs], Outputs],
    params: Params,
    x1: Inputs,
    x2: Inputs | None,
    *,
    outputs: Any,
    batch_size: int | None,
    per_layer: bool,
    working_set: int | None,
    coupled: bool,
) -> Asked:
    """The arguments as they are used; raises for those that are not as described, and for examples that depend on each
    other unless they may, `coupled`."""
    _check.params(params)
    kind = check_outputs(outputs)
    batch_size = check_size(batch_size, "batch_size", "one chosen from `working_set`")
    working_set = check_size(working_set, "working_set", "one that grows with the examples up to 320 MB")
    check_inputs(x1, "x1")
    params, x1, x2 = jax.tree.map(jnp.asarray, (params, x1, x2))
    if x2 is not None:
        check_inputs(x2, "x2")
        check_pair(x1, x2)
    sides = (x1,) if x2 is None else (x1, x2)
    if working_set is None:
        num_examples = max(jax.tree.leaves(x)[0].shape[0] for x in sides)
        working_set = min(max(160, 5 * num_examples), 320) * 2**20
    for x in () if coupled else sides:
        params = refuse_coupled(apply, params, x, "The kernel", REMEDY)
    request = Request(apply, kind, bool(per_layer), symmetric=x2 is None)
    return Asked(request, params, x1, x2, batch_size, working_set)
