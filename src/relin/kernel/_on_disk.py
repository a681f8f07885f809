"""A kernel in a file, as an operator."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from relin._common.words import listed
from relin._core.types import Inputs, Outputs, Params
from relin.kernel._file_blocks import Sizes, as_written, list_blocks, pieces
from relin.kernel._kernel_file import Description, OtherKernelError, beside, described, differing, origin, partial
from relin.kernel._operator import has_no_other_structure


class KernelOnDisk(lx.AbstractLinearOperator):
    """A kernel in a file that `ntk` wrote, as a lineax operator that reads it some rows at a time.

    `spectrum`, `trace`, `frobenius_norm`, `log_density`, `lineax.linear_solve` with an iterative solver, the metrics
    and `relin.predict` take it, and hold at most 32 MB of it, or a row. It multiplies `(N2, C)` to `(N1, C)`, or, if it
    is a mean over outputs or of one of them, `(N2,)` to `(N1,)`; a diagonal one multiplies each output by its own
    block. `numpy.load(path, mmap_mode="r")` gives the array.

    **Arguments:**

    - `path`: of the `.npy` file; the `.json` file beside it says what it is of.
    - `verify`: whether all of it is compared with the digests of its blocks first, which reads it once.

    **Raises:** `ValueError` for a file that is not finished, is no kernel's or another one's, was damaged, or has no
    description beside it; and when it is read, for one that has changed since it was opened.
    """

    path: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    """Whether it is of one set of examples with itself."""
    offset: int = eqx.field(static=True)
    """Of its first number in the file, in bytes."""
    written: tuple[int, int] = eqx.field(static=True)
    """The file's size and time when it was opened."""

    def __init__(self, path: str | Path, *, verify: bool = True):
        path = Path(path).absolute()
        description = described(path)
        if description is None:
            raise OtherKernelError(
                f"{path} has no {beside(path).name} beside it, which says what it is of; name a file that "
                "relin.kernel.ntk wrote, with its description."
            )
        if not path.exists() or len(description.blocks) < description.total:
            raise OtherKernelError(
                f"{path} is not finished: {partial(path).name} has {len(description.blocks)} of {description.total} "
                "blocks; call ntk again as it was called, and it goes on."
            )
        self.path, self.written = str(path), _written(path)
        kernel = _array_of(path, description)
        self.shape, self.dtype, self.offset = kernel.shape, kernel.dtype, kernel.offset
        self.symmetric = description.symmetric
        if verify:
            sizes = Sizes(*self.shape[:2], *description.kernel["block size"])
            blocks = list_blocks(sizes, self.symmetric)
            if len(as_written(path, blocks, description.blocks)) < len(blocks):
                raise _damaged(path)

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"KernelOnDisk({self.path}, {self.shape}, {self.dtype})"

    def check_is_of(self, apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> None:
        """Raises `ValueError` unless it is the kernel of these examples with themselves, with what differs."""
        found = described(Path(self.path))
        expected = {**origin(apply, params, x), "x2": "x1"}
        other = differing(expected, {} if found is None else {name: found.kernel.get(name) for name in expected})
        if other:
            raise ValueError(
                f"{self.path} is of a kernel that differs in {listed(other)}; make the one that is asked "
                "for with relin.kernel.ntk."
            )

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "rows N2 ..."]:
        """Those of some examples, read and not mapped, which would count twice."""
        if _written(Path(self.path)) != self.written:
            raise OtherKernelError(f"{self.path} has changed since it was opened; open it anew.")
        row = math.prod(self.shape[1:])
        offset = self.offset + start * row * self.dtype.itemsize
        read = np.fromfile(self.path, self.dtype, (stop - start) * row, offset=offset)
        return read.reshape(stop - start, *self.shape[1:])

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Where the rows begin and end that are in memory at once."""
        return pieces(self.shape, self.dtype)

    def products(self, vectors: Float[np.ndarray, "k ..."]) -> Float[np.ndarray, "k ..."]:
        """Θ v of each of k vectors, from one reading of the file."""
        return np.concatenate([_multiplied(self.rows(*piece), vectors) for piece in self.pieces()], axis=1)

    def mv(self, vector: Float[Array, "N2 ..."]) -> Float[Array, "N1 ..."]:
        """Θ v."""
        shape, result = self.in_structure().shape, self.out_structure()
        if jnp.shape(vector) != shape:
            raise ValueError(f"{self.path} multiplies vectors of shape {shape}, got {jnp.shape(vector)}; reshape it.")

        def read(vector: Any) -> np.ndarray:
            vector = np.asarray(vector)
            batch = vector.shape[: vector.ndim - len(shape)]
            made = self.products(vector.reshape(-1, *shape)).reshape(*batch, *result.shape)
            return made.astype(result.dtype, copy=False)

        if not isinstance(vector, Tracer):  # errors of reading are then told as they are
            return jnp.asarray(read(vector))
        return jax.pure_callback(read, result, vector, vmap_method="broadcast_all")

    def as_matrix(self) -> Float[Array, "a b"]:
        """All of it in memory."""
        kernel = self.rows(0, self.shape[0])
        if self.ndim == 3:  # each output's block on the diagonal
            kernel = kernel[..., None] * np.eye(self.shape[2], dtype=self.dtype)
        if self.ndim > 2:
            kernel = kernel.swapaxes(1, 2).reshape(self.out_size(), self.in_size())
        return jnp.asarray(kernel)

    def transpose(self) -> "KernelOnDisk":
        if not self.symmetric:
            raise ValueError(
                f"{self.path} is between two sets of examples, and only a symmetric kernel has its transpose in its "
                "file; make that by relin.kernel.ntk with x1 and x2 exchanged."
            )
        return self

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return self._structure(self.shape[1])

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self._structure(self.shape[0])

    def _structure(self, num_examples: int) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(jnp.promote_types(self.dtype, jnp.float32))
        return jax.ShapeDtypeStruct((num_examples, *(self.shape[3:] or self.shape[2:])), dtype)


def _array_of(path: Path, description: Description) -> np.memmap:
    """The file as an array; raises `OtherKernelError` unless it is one as it is described."""
    try:
        kernel = np.lib.format.open_memmap(path, mode="r")
    except ValueError:
        raise _damaged(path) from None
    said = tuple(description.kernel["shape"]), description.kernel["dtype"]
    if (kernel.shape, str(kernel.dtype)) != said or not kernel.flags.c_contiguous:
        raise OtherKernelError(
            f"{path} is not the kernel that {beside(path).name} describes; restore it, or remove both and call ntk."
        )
    return kernel


def _damaged(path: Path) -> OtherKernelError:
    return OtherKernelError(f"{path} is damaged; call ntk again as it was called, and it is mended.")


def _written(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _multiplied(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Some rows of a kernel times k vectors, `(k, rows, …)`."""
    if rows.ndim == 2:
        return vectors @ rows.T
    if rows.ndim == 3:
        return np.einsum("ijc,kjc->kic", rows, vectors, optimize=True)
    r, n, c, d = rows.shape
    matrix = rows.swapaxes(1, 2).reshape(r * c, n * d)
    return (vectors.reshape(len(vectors), -1) @ matrix.T).reshape(-1, r, c)


def _itself(operator: KernelOnDisk) -> KernelOnDisk:
    return operator


@lx.materialise.register(KernelOnDisk)
def _(operator: KernelOnDisk) -> lx.AbstractLinearOperator:
    tags = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag}) if operator.symmetric else frozenset()
    return lx.MatrixLinearOperator(operator.as_matrix(), tags)


@lx.diagonal.register(KernelOnDisk)
def _(operator: KernelOnDisk) -> Array:
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(f"{operator.path} has no diagonal: it is of shape {operator.shape}; pass a square one.")
    pieces = [operator.rows(a, b)[np.arange(b - a), np.arange(a, b)] for a, b in operator.pieces()]
    found = np.concatenate(pieces)
    return jnp.asarray(np.diagonal(found, axis1=1, axis2=2) if operator.ndim == 4 else found).reshape(-1)


def _is_symmetric(operator: KernelOnDisk) -> bool:
    return operator.symmetric


for _query in (lx.linearise, lx.conj):  # real, and linear
    _query.register(KernelOnDisk)(_itself)
for _query in (lx.is_symmetric, lx.is_positive_semidefinite):
    _query.register(KernelOnDisk)(_is_symmetric)
has_no_other_structure(KernelOnDisk)
