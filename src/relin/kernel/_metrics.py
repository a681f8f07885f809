"""Metrics of feature learning on the kernel of a probe set: how far it moved, what it is aligned with."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree, Shaped

from relin._core.compiler import check_sums
from relin._core.types import Scalar, Step
from relin.kernel import _by_rows
from relin.kernel._on_disk import KernelOnDisk

Kernels = PyTree[Float[Array, "..."] | KernelOnDisk]
"""A kernel, full (N, N, C, C), diagonal (N, N, C) or mean (N, N), or a dict of kernels by the path of their tensor. One
in a file is read some rows at a time, in double precision."""

Measures = PyTree[Float[Array, "..."]]
"""The value of a metric, or a dict of values if the kernel was a dict."""

_HIGHEST = jax.lax.Precision.HIGHEST  # TF32 would lose the small changes that are measured
_SHAPES = "(N, N), (N, N, C) or (N, N, C, C)"


def distance(k1: Kernels, k2: Kernels) -> Measures:
    """Kernel distance S = 1 − ⟨K, K′⟩/(‖K‖‖K′‖) (Fort et al. 2020, arXiv:2010.15110).

    It is 0 for multiples of each other, at most 1 for positive semidefinite kernels, and computed as
    ½‖K/‖K‖ − K′/‖K′‖‖², which has no cancellation: distances far below the rounding error of 1 are right, and that of
    equal kernels is exactly 0.

    **Arguments:**

    - `k1`, `k2`: kernels of one shape, full, diagonal or mean, which may be between two different sets; ⟨·,·⟩ is the
      sum over all entries, so of the NC × NC matrix (full), of its blocks with c = c′ (diagonal), or N × N. Or two
      dicts of kernels with the same paths, as `ntk(..., per_layer=True)` gives.

    **Returns:** a scalar, `nan` if either kernel is zero; or a dict of scalars.

    **Raises:** `ValueError` if the shapes are not those of kernels or differ; so do the metrics below.
    """
    return _each(_distance, k1, k2)


def velocity(k1: Kernels, k2: Kernels, steps: Step | Scalar | float) -> Measures:
    """Kernel velocity S(K_t, K_{t+Δ})/Δ, per step (Fort et al. 2020, arXiv:2010.15110).

    **Arguments:** `k1`, `k2` as for `distance`; `steps`: Δ, the number of steps between them, above 0.

    **Returns:** as `distance`.
    """
    if not isinstance(steps, Tracer) and not np.asarray(steps) > 0:
        raise ValueError(f"`steps` must be above 0, got {steps}; pass the number of steps between the kernels.")
    return _each(lambda a, b: _distance(a, b) / steps, k1, k2)


def relative_change(k: Kernels, k0: Kernels) -> Measures:
    """‖K − K₀‖/‖K₀‖ in the Frobenius norm (Geiger et al. 2020, arXiv:1906.08034).

    **Arguments:** `k` and `k0`, the kernel now and at first, as for `distance`.

    **Returns:** a scalar, `nan` if K₀ is zero; or a dict of scalars.
    """
    return _each(_relative_change, k, k0)


def cka(k1: Kernels, k2: Kernels) -> Measures:
    """Centred kernel alignment ⟨HKH, HK′H⟩/(‖HKH‖‖HK′H‖).

    Cortes et al. 2012; Kornblith et al. 2019, arXiv:1905.00414. Centring is over examples: a full kernel is the
    NC × NC matrix and H ⊗ I_C centres it; a diagonal kernel is block-diagonal by outputs and each block is centred; a
    mean kernel is N × N.

    **Arguments:** `k1`, `k2`: kernels of one shape on one probe set, or two dicts with the same paths.

    **Returns:** a scalar, at least 0 for positive semidefinite kernels and at most 1, or a dict; `nan` where a centred
    kernel is zero to rounding, as the part of a bias in the last layer is.
    """
    return _each(_cka, k1, k2)


def target_alignment(
    k: Kernels, y: Shaped[Array, "N ..."], *, num_classes: int | None = None, per_class: bool = False
) -> Measures:
    """Centred alignment of the kernel with the targets', CKA(K, yyᵀ) (Baratin et al. 2021, arXiv:2008.00938).

    What yyᵀ is depends on the kernel's shape. Full: y is the vector of N·C targets and yyᵀ is NC × NC. Diagonal: the
    blocks y_c y_cᵀ of each output c. Mean: Y Yᵀ, N × N, of the (N, C) matrix of targets.

    **Arguments:**

    - `k`: a kernel on one probe set, or a dict of them.
    - `y`: integer classes `(N,)`, which stand for their one-hot vectors, or targets `(N, C)`.
    - `num_classes`: C, needed for `per_class` of a mean kernel with integer classes only; it makes their alignment
      with a large mean kernel cheaper under `jax.jit`.
    - `per_class`: one alignment for each class instead. Full and diagonal: output c's block K_cc with y_c y_cᵀ. Mean: K
      with y_c y_cᵀ.

    **Returns:** a scalar, `(C,)` if `per_class`, or a dict of these; `nan` where the centred kernel or the centred
    targets are zero to rounding, as for a class that no example or every example has.

    **Raises:** `ValueError` also if `y` does not fit the kernel, or if the number of classes is not known.
    """
    return _each(partial(_target_alignment, y=y, num_classes=num_classes, per_class=per_class), k)


def energy_alignment(k: Kernels, y: Shaped[Array, "N ..."], *, num_classes: int | None = None) -> Measures:
    """‖Jᵀy‖²/‖y‖² = yᵀΘy/‖y‖² (Ortiz-Jimenez et al. 2021, arXiv:2106.06770); nothing is centred.

    Full: y is the vector of N·C targets. Diagonal: Σ_c y_cᵀ K_c y_c/‖y‖². Mean: tr(YᵀKY)/‖Y‖², in which K stands for
    every output's kernel. It is at most the largest eigenvalue and has the kernel's units.

    **Arguments:** `k`, `y`, `num_classes` as for `target_alignment`.

    **Returns:** a scalar, 0 for a zero kernel and `nan` for zero targets; or a dict of scalars.
    """
    return _each(partial(_energy_alignment, y=y, num_classes=num_classes), k)


def effective_rank(k: Kernels) -> Measures:
    """exp(−Σ p ln p) with p = eigenvalues/trace (Roy & Vetterli 2007): how many eigenvalues carry the trace.

    The eigenvalues are those of the NC × NC matrix (full), of all its blocks with c = c′ together (diagonal), or of the
    N × N matrix (mean); those below 0, by rounding, count as 0. It takes a dense eigendecomposition.

    **Arguments:** `k`: a kernel on one probe set, or a dict of them; not one in a file.

    **Returns:** a scalar between 1 and the number of eigenvalues, 0 for a zero kernel; or a dict of scalars.
    """
    return _each(_effective_rank, k)


def _each(metric: Callable[..., Array], *kernels: Any) -> Any:
    """The metric of the kernels, part by part where they are dicts."""
    if not any(isinstance(kernel, Mapping) for kernel in kernels):
        return metric(*map(_as_kernel, kernels))
    paths = [list(kernel) if isinstance(kernel, Mapping) else None for kernel in kernels]
    if any(path is None or set(path) != set(kernels[0]) for path in paths):
        raise ValueError(
            f"Both kernels must be dicts with the same paths, got {paths[0]} and {paths[-1]}; "
            "compute both with per_layer=True on one network."
        )
    return {path: metric(*(_as_kernel(kernel[path]) for kernel in kernels)) for path in kernels[0]}


def _as_kernel(kernel: Any) -> Any:
    """The kernel in single precision at least, or in its file; raises `ValueError` if its shape is not a kernel's."""
    if isinstance(kernel, KernelOnDisk):
        return kernel
    check_sums()
    kernel = jnp.asarray(kernel)
    if kernel.ndim not in (2, 3, 4) or (kernel.ndim == 4 and kernel.shape[2] != kernel.shape[3]) or 0 in kernel.shape:
        raise ValueError(f"A kernel must have shape {_SHAPES}, got {kernel.shape}; pass what relin.kernel.ntk returns.")
    return kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))


def _on_disk(*arrays: Any) -> bool:
    """Whether one is a kernel in a file; raises `ValueError` for tracers beside it."""
    found = any(isinstance(array, KernelOnDisk) for array in arrays)
    if found and any(isinstance(array, Tracer) for array in arrays):
        raise ValueError("A kernel in a file is compared with numbers, got tracers; call the metric outside jax.jit.")
    return found


def _number(value: Any, *kernels: Any) -> Array:
    """What was found in double precision in the kernels' own, single at least."""
    return jnp.asarray(value, jnp.result_type(jnp.float32, *(kernel.dtype for kernel in kernels)))


def _same(k1: Array, k2: Array) -> None:
    if k1.shape != k2.shape:
        raise ValueError(
            f"Both kernels must have one shape, got {k1.shape} and {k2.shape}; compute both on one probe set with the "
            "same `outputs`."
        )


def _square(kernel: Array) -> None:
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(
            f"The kernel must be that of one probe set with itself, of shape {_SHAPES}, got {kernel.shape}; "
            "compute it with x2=None."
        )


def _norm(a: Array) -> Array:
    """The Frobenius norm, also where squares of the entries would overflow or vanish."""
    largest = jnp.max(jnp.abs(a))
    scale = jnp.where(largest > 0, largest, 1.0)
    return scale * jnp.sqrt(jnp.sum(jnp.square(a / scale)))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """numerator/denominator, `nan` where the denominator is 0, with derivatives that are finite elsewhere."""
    defined = denominator > 0
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), jnp.nan)


def _distance(k1: Array, k2: Array) -> Array:
    _same(k1, k2)
    if _on_disk(k1, k2):
        return _number(_by_rows.distance(k1, k2), k1, k2)
    return _distance_of(k1, k2)


@jax.jit
def _distance_of(k1: Array, k2: Array) -> Array:
    value = 0.5 * jnp.sum(jnp.square(_ratio(k1, _norm(k1)) - _ratio(k2, _norm(k2))))
    # A compiler may round the norms of equal kernels differently, and a constant kernel must be told from a moving one.
    return jnp.where(jnp.all(k1 == k2) & ~jnp.isnan(value), 0.0, value)


def _relative_change(k: Array, k0: Array) -> Array:
    _same(k, k0)
    if _on_disk(k, k0):
        return _number(_by_rows.relative_change(k, k0), k, k0)
    return _change_of(k, k0)


@jax.jit
def _change_of(k: Array, k0: Array) -> Array:
    return _ratio(_norm(k - k0), _norm(k0))


def _over_examples(a: Array, axes: tuple[int, ...]) -> Array:
    """`a` centred over axes of examples; exactly 0 if it is constant, whatever the rounding of its mean."""
    a = a - a[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(a.ndim))]
    for axis in axes:
        a = a - jnp.mean(a, axis, keepdims=True)
    return a


def _direction(centred: Array, a: Array) -> Array:
    """The centred array over its norm; `nan` where nothing but rounding errors of `a` is left of it."""
    norm = _norm(centred)
    return _ratio(centred, jnp.where(norm > 4 * jnp.finfo(a.dtype).eps * _norm(a), norm, 0.0))


def _cka(k1: Array, k2: Array) -> Array:
    _same(k1, k2)
    _square(k1)
    if _on_disk(k1, k2):
        return _number(_by_rows.cka(k1, k2), k1, k2)
    return _cka_of(k1, k2)


@jax.jit
def _cka_of(k1: Array, k2: Array) -> Array:
    first, second = (_direction(_over_examples(k, (0, 1)), k) for k in (k1, k2))
    return jnp.sum(first * second)


def _targets(k: Array, y: Any, num_classes: int | None, named: bool = False) -> Array:
    """The targets as `(N, C)`; raises `ValueError` if they do not fit the kernel.

    Classes become one-hot vectors. Where the number of classes is not known and need not be, because the columns are
    not `named`, each class that is there gets a column, of traced ones that of its first example: Y Yᵀ is the same.
    """
    _square(k)
    y, dtype = jnp.asarray(y), jnp.result_type(jnp.float32, k.dtype)
    num_examples, num_outputs = k.shape[0], k.shape[2] if k.ndim > 2 else num_classes
    if y.ndim not in (1, 2) or y.shape[0] != num_examples:
        raise ValueError(
            f"`y` must have shape ({num_examples},) (integer classes) or ({num_examples}, C) to fit the kernel of "
            f"shape {k.shape}, got {y.shape}; pass the targets of the probe set."
        )
    if num_classes is not None and num_classes != num_outputs:
        raise ValueError(
            f"`num_classes` must be the kernel's number of outputs {num_outputs}, got {num_classes}; leave it out."
        )
    if y.ndim == 2:
        if num_outputs is not None and y.shape[1] != num_outputs:
            raise ValueError(
                f"`y` must have shape ({num_examples}, {num_outputs}), got {y.shape}; pass one target per output."
            )
        return y.astype(dtype)
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"`y` of shape {y.shape} must be integer classes, got {y.dtype}; reshape it to ({num_examples}, 1) for one "
            "regression value per example."
        )
    if num_outputs is None and not named and not isinstance(y, Tracer):
        found, y = np.unique(np.asarray(y), return_inverse=True)
        return jax.nn.one_hot(jnp.asarray(y), len(found), dtype=dtype)
    if num_outputs is None and not named:
        first = jnp.argmax(y[:, None] == y[None, :], axis=1)
        return jax.nn.one_hot(first, num_examples, dtype=dtype)
    return _one_hot(y, num_outputs, dtype)


def _one_hot(y: Array, num_outputs: int | None, dtype: Any) -> Array:
    if num_outputs is None or num_outputs < 2:
        raise ValueError(
            f"The number of classes of integer `y` must be at least 2, got {num_outputs}; pass `num_classes` with a "
            "mean kernel, or targets of shape (N, C)."
        )
    if not isinstance(y, Tracer) and not (np.min(y) >= 0 and np.max(y) < num_outputs):
        raise ValueError(
            f"Integer `y` must be classes from 0 to {num_outputs - 1}, got classes from {np.min(y)} to {np.max(y)}; "
            "relabel them."
        )
    return jax.nn.one_hot(y, num_outputs, dtype=dtype)


def _forms(k: Array, y: Array) -> Array:
    """y_cᵀ K_cc y_c of each output c, `(C,)`, where a mean kernel is every output's."""
    blocks = jnp.diagonal(k, axis1=2, axis2=3) if k.ndim == 4 else k
    pattern = "ic,ij,jc->c" if k.ndim == 2 else "ic,ijc,jc->c"
    return jnp.einsum(pattern, y, blocks, y, precision=_HIGHEST)


def _form(k: Array, y: Array) -> Array:
    """yᵀKy, a scalar, as the kernel's shape says."""
    return jnp.einsum("ic,ijcd,jd->", y, k, y, precision=_HIGHEST) if k.ndim == 4 else jnp.sum(_forms(k, y))


def _target_alignment(k: Array, y: Any, num_classes: int | None, per_class: bool) -> Array:
    targets = _targets(k, y, num_classes, per_class)
    if not _on_disk(k, targets):
        return _alignments_of(k, targets) if per_class else _alignment_of(k, targets)
    if per_class:
        return _number(_by_rows.alignments(k, np.asarray(_columns_of(targets), np.float64)), k)
    directions, norm = _directions_of(targets, k.ndim)
    return _number(_by_rows.alignment(k, np.asarray(directions, np.float64), float(norm)), k)


@jax.jit
def _alignments_of(k: Array, targets: Array) -> Array:
    """CKA(K_cc, y_c y_cᵀ) of each class, `(C,)`."""
    if k.ndim == 4:
        k = jnp.diagonal(k, axis1=2, axis2=3)
    centred, columns = _over_examples(k, (0, 1)), _columns_of(targets)
    return _forms(_direction(centred, k) if k.ndim == 2 else jax.vmap(_direction, 2, 2)(centred, k), columns)


@jax.jit
def _alignment_of(k: Array, targets: Array) -> Array:
    a, norm = _directions_of(targets, k.ndim)
    return _ratio(_form(_direction(_over_examples(k, (0, 1)), k), a), norm)


def _columns_of(targets: Array) -> Array:
    """Every class's targets, centred and of unit length."""
    return jax.vmap(lambda y: _direction(_over_examples(y, (0,)), y), 1, 1)(targets)


def _directions_of(targets: Array, ndim: int) -> tuple[Array, Array]:
    """The targets, centred and of unit length together, and the norm of their kernel."""
    a = _direction(_over_examples(targets, (0,)), targets)
    if ndim == 4:
        return a, jnp.ones((), a.dtype)  # ‖aaᵀ‖ of a unit vector
    if ndim == 3:
        return a, _norm(jnp.sum(jnp.square(a), 0))
    return a, _norm(jnp.matmul(a.T, a, precision=_HIGHEST))  # ‖AAᵀ‖ = ‖AᵀA‖, and C × C


def _energy_alignment(k: Array, y: Any, num_classes: int | None) -> Array:
    targets = _targets(k, y, num_classes)
    if _on_disk(k, targets):
        return _number(_by_rows.energy(k, np.asarray(targets, np.float64)), k)
    return _energy_of(k, targets)


@jax.jit
def _energy_of(k: Array, targets: Array) -> Array:
    return _form(k, _ratio(targets, _norm(targets)))


def _effective_rank(k: Array) -> Array:
    _square(k)
    if isinstance(k, KernelOnDisk):
        rows = k.in_size()
        raise ValueError(
            f"`effective_rank` decomposes a dense matrix, which for the {rows:,} rows of {k.path} takes about "
            f"{3 * rows**2 * k.dtype.itemsize / 1e9:.3g} GB; pass numpy.load(path), if memory holds it, or see "
            "relin.kernel.log_density, which needs products alone."
        )
    return _rank_of(k)


@jax.jit
def _rank_of(k: Array) -> Array:
    k = k / jnp.maximum(jnp.max(jnp.abs(k)), jnp.finfo(k.dtype).tiny)
    if k.ndim == 4:
        matrix = jnp.swapaxes(k, 1, 2).reshape(math.prod(k.shape[::2]), -1)
    else:
        matrix = k if k.ndim == 2 else jnp.moveaxis(k, 2, 0)
    eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(matrix), 0.0)
    trace = jnp.sum(eigenvalues)
    shares = eigenvalues / jnp.where(trace > 0, trace, 1.0)
    entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares))
    return jnp.where(trace == 0, 0.0, jnp.exp(entropy))  # a trace of nan stays nan
