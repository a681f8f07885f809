"""The kernel in a file, block by block, in memory bounded by the working set."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from relin._core.fingerprint import environment, fingerprint
from relin._core.types import Inputs, Params
from relin.kernel._blocks import Request, kernel_in_blocks, structure
from relin.kernel._file_blocks import Block, Sizes, list_blocks
from relin.kernel._independence import may_be_coupled
from relin.kernel._kernel_file import Description, KernelFile, origin
from relin.kernel._not_finite import reason
from relin.kernel._on_disk import KernelOnDisk
from relin.kernel._sizes import even

_SHARE = 4
"""Of the working set, what a block of the kernel may take: as much again is its mirror image or what is read of it."""
_LEAST = 4
"""Blocks on each side at least, so that something is kept of a kernel that is stopped."""
_LARGEST = 2**28
"""Bytes of the largest block: the host holds it too, and does not know how large the device's working set may be."""


class Asked(NamedTuple):
    """A kernel's arguments as they are used."""

    request: Request
    params: Params
    x1: Inputs
    x2: Inputs | None
    batch_size: int | None
    working_set: int


def kernel_to_disk(
    asked: Asked, coupled: bool, out: str | Path | None, progress: Callable[[int, int], None] | None
) -> KernelOnDisk:
    """The kernel in the file `out`; see `ntk`, also for what is raised."""
    path = _checked(asked, coupled, out)
    rows = jax.tree.leaves(asked.x1)[0].shape[0]
    columns = rows if asked.x2 is None else jax.tree.leaves(asked.x2)[0].shape[0]
    expected = structure(asked.request, asked.params, asked.x1, rows, columns)[""]
    dtype = np.dtype(expected.dtype)
    if dtype.kind != "f":
        raise ValueError(f"`out` holds float16, float32 or float64, got a kernel of {dtype}; convert the parameters.")
    entry = math.prod(expected.shape[2:]) * dtype.itemsize
    sizes = block_sizes(rows, columns, entry, asked.working_set)
    blocks = list_blocks(sizes, asked.request.symmetric)
    identity = _identity(asked, expected.shape, dtype, sizes)
    description = Description(identity, asked.request.symmetric, environment(), len(blocks), {})
    file = KernelFile(path, description, expected.shape, dtype)
    with file.opened(blocks):
        _report(progress, file, blocks)
        for block in blocks:
            if block.name not in file.done:
                file.write(block, _made(asked, sizes, block))
                _report(progress, file, blocks)
    return KernelOnDisk(path, verify=False)  # what is written is known, and was compared


def _checked(asked: Asked, coupled: bool, out: str | Path | None) -> Path:
    """The path; raises for what no file is made of."""
    if out is None:
        raise ValueError("`progress` tells of the blocks of a kernel in a file, got no `out`; pass both, or neither.")
    if not isinstance(out, str | Path):
        raise TypeError(f"`out` must be the path of a file, got {type(out).__name__}; pass 'kernel.npy', for example.")
    path = Path(out)
    if path.suffix != ".npy":
        raise ValueError(f"`out` must be a file that ends in .npy, got {str(path)!r}; name it so.")
    if asked.request.per_layer:
        raise ValueError("`out` holds one kernel, got per_layer=True; make the parts in memory, or leave it out.")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(asked)):
        raise ValueError("A kernel in a file is made of numbers, got tracers; call ntk with `out` outside jax.jit.")
    sides = [x for x in (asked.x1, asked.x2) if x is not None]
    if coupled and any(may_be_coupled(asked.request.apply, asked.params, x) for x in sides):
        raise ValueError(
            "The kernel of a batch whose examples depend on each other is made as a whole, and not in a file; leave "
            "`out` out, or freeze batch statistics."
        )
    return path.absolute()  # the folder may be changed on the way


def _identity(asked: Asked, shape: tuple[int, ...], dtype: np.dtype, sizes: Sizes) -> dict[str, Any]:
    """What tells a kernel from another one, and its last bits."""
    return {
        **origin(asked.request.apply, asked.params, asked.x1),
        "x2": "x1" if asked.x2 is None else fingerprint(asked.x2),
        "outputs": asked.request.outputs,
        "shape": list(shape),
        "dtype": str(dtype),
        "batch_size": asked.batch_size,
        "working_set": asked.working_set,
        "block size": [sizes.high, sizes.wide],
    }


def block_sizes(rows: int, columns: int, entry: int, working_set: int) -> Sizes:
    """Of a kernel whose entries, for a pair of examples, have so many bytes."""
    largest = max(1, math.isqrt(min(working_set // _SHARE, _LARGEST) // entry))
    high, wide = (even(number, min(largest, math.ceil(number / _LEAST))) for number in (rows, columns))
    return Sizes(rows, columns, high, wide)


def _made(asked: Asked, sizes: Sizes, block: Block) -> np.ndarray:
    """A block. One at an end is made with examples before it, so that all are made by the same programs."""
    request, params = asked.request, asked.params
    i, j = min(block.row, sizes.rows - sizes.high), min(block.column, sizes.columns - sizes.wide)
    alone = request.symmetric and block.row == block.column
    left = _some(asked.x1, i, sizes.high)
    right = None if alone else _some(asked.x1 if asked.x2 is None else asked.x2, j, sizes.wide)
    part = Request(request.apply, request.outputs, per_layer=False, symmetric=alone)
    left_over = asked.working_set - asked.working_set // _SHARE
    made = kernel_in_blocks(part, params, left, left if right is None else right, asked.batch_size, left_over)[""]
    values = np.asarray(made)[block.row - i :, block.column - j :]
    if not np.isfinite(values).all():
        names = ("", "") if request.symmetric else (" of x1", " of x2")
        why = reason(np.asarray(made), request.apply, params, left, right, first=(i, j), sides=names)
        raise ValueError(f"The kernel must be finite, got one that is not: {why}.")
    return values


def _some(x: Inputs, start: int, size: int) -> Inputs:
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), x)


def _report(progress: Callable[[int, int], None] | None, file: KernelFile, blocks: list[Block]) -> None:
    if progress is not None:
        progress(len(file.done), len(blocks))
