"""The metrics of kernels of which one at least is in a file: from passes over some rows at a time, in float64."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from relin.kernel._file_blocks import pieces
from relin.kernel._on_disk import KernelOnDisk

Kernel = KernelOnDisk | Array
Rows = Float[np.ndarray, "rows N2 ..."]

_COPIES = 4
"""Of each kernel's rows: as they are read, in double precision, and what is computed of them."""


def distance(k1: Kernel, k2: Kernel) -> float:
    """½‖K/‖K‖ − K′/‖K′‖‖²."""
    norms = np.sqrt(np.sum([[_square(rows) for rows in pair] for _, pair in _pairs(k1, k2)], axis=0))
    if not norms.all():
        return math.nan
    return sum(0.5 * _square(one / norms[0] - other / norms[1]) for _, (one, other) in _pairs(k1, k2))


def relative_change(k: Kernel, k0: Kernel) -> float:
    """‖K − K₀‖/‖K₀‖."""
    change, first = np.sum([[_square(now - then), _square(then)] for _, (now, then) in _pairs(k, k0)], axis=0)
    return math.sqrt(change / first) if first > 0 else math.nan


def cka(k1: Kernel, k2: Kernel) -> float:
    """⟨HKH, HK′H⟩/(‖HKH‖‖HK′H‖)."""
    one, other = Centred(k1), Centred(k2)
    products = [
        [(a * b).sum(), _square(a), _square(b)]
        for start, (rows, others) in _pairs(k1, k2)
        for a, b in [(one.rows(start, rows), other.rows(start, others))]
    ]
    product, *squares = np.sum(products, axis=0)
    lengths = [centred.norm(square, centred.square) for centred, square in zip((one, other), squares, strict=True)]
    return float(product / np.prod(lengths)) if all(lengths) else math.nan


def alignment(k: Kernel, directions: Float[np.ndarray, "N C"], norm: float) -> float:
    """Of the centred kernel with the matrix of these columns, whose norm is `norm`."""
    centred = Centred(k)
    parts = [
        (_square(rows), _form(rows, directions, start))
        for start, (whole,) in _pairs(k)
        for rows in [centred.rows(start, whole)]
    ]
    square, form = np.sum(parts, axis=0)
    length = float(centred.norm(square, centred.square)) * norm
    return form / length if length > 0 else math.nan


def alignments(k: Kernel, directions: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " C"]:
    """The same of each class: of K_cc with y_c y_cᵀ, where a mean kernel is every class's."""
    centred = Centred(k)
    squares, forms = np.zeros(directions.shape[1]), np.zeros(directions.shape[1])
    for start, (whole,) in _pairs(k):
        rows = _of_outputs(centred.rows(start, whole))
        squares += np.square(rows).sum(axis=(0, 1))
        forms += _forms(rows, directions, start)
    lengths = centred.norm(squares, centred.squares)
    return np.divide(forms, lengths, out=np.full_like(forms, np.nan), where=lengths > 0)


def energy(k: Kernel, targets: Float[np.ndarray, "N C"]) -> float:
    """yᵀKy/‖y‖²."""
    scale = np.sqrt(_square(targets))
    if not scale > 0:
        return math.nan
    return sum(_form(rows, targets / scale, start) for start, (rows,) in _pairs(k))


class Centred:
    """HKH, some rows at a time. One pass over the kernel finds its means."""

    def __init__(self, kernel: Kernel):
        num_rows = kernel.shape[0]
        means: list[Rows] = []
        columns: Any = 0.0
        self.square: Any = 0.0
        self.squares: Any = 0.0
        """‖K‖², and those of outputs."""
        for start, (rows,) in _pairs(kernel):
            self.square += _square(rows)
            self.squares = self.squares + np.square(_of_outputs(rows)).sum(axis=(0, 1))
            if start == 0:  # taken off: what is constant is then 0 whatever the means' rounding
                self.first = rows[:1, :1].copy()
            rows = rows - self.first
            means.append(rows.mean(axis=1, keepdims=True))
            columns = columns + rows.sum(axis=0, keepdims=True) / num_rows
        self.of_rows, self.of_columns = np.concatenate(means), columns
        self.mean = self.of_rows.mean(axis=0, keepdims=True)
        self.eps = float(np.finfo(np.promote_types(kernel.dtype, np.float32)).eps)  # as of kernels in memory

    def rows(self, start: int, rows: Rows) -> Rows:
        return rows - self.first - self.of_rows[start : start + len(rows)] - self.of_columns + self.mean

    def norm(self, square: Any, before: Any) -> Any:
        """The norm, from its square and that before it was centred; 0 where nothing but rounding errors are left."""
        return np.where(square > (4 * self.eps) ** 2 * before, np.sqrt(square), 0.0)


def _pairs(*kernels: Kernel) -> Iterator[tuple[int, tuple[Rows, ...]]]:
    """Rows of all kernels, in double precision, and the number of their first example."""
    for start, stop in pieces(kernels[0].shape, np.float64, _COPIES * len(kernels)):
        some = [k.rows(start, stop) if isinstance(k, KernelOnDisk) else np.asarray(k[start:stop]) for k in kernels]
        yield start, tuple(rows.astype(np.float64) for rows in some)


def _square(rows: Any) -> float:
    """‖·‖²."""
    return float(np.vdot(rows, rows))


def _of_outputs(rows: Rows) -> Rows:
    """The blocks with c = c′ of a full kernel."""
    return np.diagonal(rows, axis1=2, axis2=3) if rows.ndim == 4 else rows


def _form(rows: Rows, y: Float[np.ndarray, "N C"], start: int) -> float:
    """What these rows add to yᵀKy."""
    if rows.ndim != 4:
        return float(np.sum(_forms(rows, y, start)))
    return float(np.einsum("ic,ijcd,jd->", y[start : start + len(rows)], rows, y, optimize=True))


def _forms(rows: Rows, y: Float[np.ndarray, "N C"], start: int) -> Float[np.ndarray, " C"]:
    pattern = "ic,ij,jc->c" if rows.ndim == 2 else "ic,ijc,jc->c"
    return np.einsum(pattern, y[start : start + len(rows)], rows, y, optimize=True)
