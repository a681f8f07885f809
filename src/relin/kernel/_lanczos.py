"""The largest eigenvalues of a symmetric operator from its products: block Lanczos with full reorthogonalisation."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from relin._common.showing import notebook
from relin._core import check as _check
from relin._core.types import Key
from relin.kernel._vectors import FlatOperator, as_operator, finite, flat

_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)  # orthogonality is lost in TF32


class Spectrum(NamedTuple):
    """The k largest eigenvalues of an operator, as `spectrum` returns them.

    - `eigenvalues`: in descending order.
    - `bounds`: ‖A v − λ v‖ of each, by a product of its own: an eigenvalue of A is at most so far from λ, up to the
      rounding of the product.
    - `converged`: whether every bound met the tolerance. If not, the eigenvalues are lower estimates.
    - `steps`: how many block steps were made, each of `block_size` products.
    - `vectors`: unit eigenvectors, a PyTree like the operator's input with a leading axis k, or `None`.
    """

    eigenvalues: Float[Array, " k"]
    bounds: Float[Array, " k"]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    vectors: PyTree[Float[Array, "k ..."]] | None

    def plot(self) -> Any:
        """The eigenvalues against their rank, with their bounds, as a `matplotlib.figure.Figure`. Its title says how
        many are not drawn, and why: too small beside the largest, or not finite."""
        return notebook().spectrum_figure(np.asarray(self.eigenvalues), np.asarray(self.bounds))

    def _repr_html_(self) -> str | None:
        """In a notebook: whether it converged, and the figure."""
        if np.ndim(self.eigenvalues) != 1:
            return None
        ended = "converged" if self.converged else "not converged: lower estimates"
        largest = ", ".join(f"{value:.4g}" for value in np.asarray(self.eigenvalues[:5], float))
        sentence = f"The {len(self.eigenvalues)} largest eigenvalues, {ended}; the first are {largest}"
        return notebook().figure_html(sentence, self.plot())


class Krylov(NamedTuple):
    """A block Krylov space being built.

    `basis` holds orthonormal rows, b for each block: those of the `steps` blocks that were multiplied by the operator,
    then the next block, then zeros. `projected` is the operator in the basis, its lower triangle, and `coupling` what
    of the last block's products lies in the next one.
    """

    basis: Float[Array, "m n"]
    projected: Float[Array, "m m"]
    coupling: Float[Array, "b b"]
    steps: Int[Array, ""]


def spectrum(
    operator: lx.AbstractLinearOperator | tuple[Any, Any, Any],
    k: int,
    *,
    key: Key,
    tolerance: float = 1e-4,
    block_size: int | None = None,
    max_vectors: int | None = None,
    vectors: bool = False,
) -> Spectrum:
    """The k largest eigenvalues of a symmetric operator, by block Lanczos with full reorthogonalisation.

    The eigenvalues are Ritz values in a block Krylov space of a random start (Golub & Van Loan 2013, section 10.3.6;
    Musco & Musco 2015, arXiv:1504.05477), which approach those of the operator from below. Where a space is invariant,
    as for a kernel of low rank, it is continued with random directions.

    **Arguments:**

    - `operator`: a lineax operator tagged symmetric, such as `NTKOperator(apply, params, x)`, or a tuple
      `(apply, params, x)` that stands for one.
    - `k`: how many eigenvalues, at most the operator's size n.
    - `key`: of the random start.
    - `tolerance`: on each bound relative to its eigenvalue; or, for small ones, 64 rounding errors of the largest. An
      eigenvalue that is apart from others is far closer than its bound, by about the bound squared over the gap.
    - `block_size`: products made at once. An eigenvalue is found as often as it occurs up to so many times, oftener
      by rounding errors only. By default k, and 16 at most.
    - `max_vectors`: the largest basis, whose memory is as many vectors of n numbers; by default 10 k + 100.
    - `vectors`: whether to return the eigenvectors as well.

    **Returns:** a `Spectrum`; `converged` is false where `max_vectors` did not suffice.

    **Raises:** `TypeError` or `ValueError` if the operator is none, or not square or symmetric, or a number is out of
    its range; `ValueError`, with the example and the parameter of an NTK, if its products are not finite.
    """
    operator = as_operator(operator, symmetric=True)
    size = operator.in_size()
    if _check.count(k, "k", "ask for one eigenvalue or more") > size:
        raise ValueError(f"`k` must be at most the operator's size {size}, got {k}; ask for fewer eigenvalues.")
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be above 0, got {tolerance}; 1e-4 is usual.")
    wanted = min(k, 16) if block_size is None else block_size
    block = min(_check.count(wanted, "block_size", "leave it out for the usual one"), size)
    wanted = 10 * k + 100 if max_vectors is None else max_vectors
    largest = min(_check.count(wanted, "max_vectors", "it must hold k of them", least=k), size)
    max_steps = -(-largest // block)
    return finite(_spectrum(operator, int(k), key, tolerance, block, max_steps, vectors), operator)


@eqx.filter_jit
def _spectrum(
    operator: lx.AbstractLinearOperator, k: int, key: Key, tolerance: float, block: int, max_steps: int, vectors: bool
) -> Spectrum:
    product = flat(operator)
    key, start_key = jax.random.split(key)
    start = jax.random.normal(start_key, (block, product.size), product.dtype)
    state = begin(start, max_steps)

    def unfinished(carry: tuple[Krylov, Array]) -> Array:
        return ~carry[1] & (carry[0].steps < max_steps)

    def continued(carry: tuple[Krylov, Array]) -> tuple[Krylov, Array]:
        state = step(product, carry[0], key)
        values, coordinates = ritz(state)
        last = jax.lax.dynamic_slice_in_dim(coordinates, (state.steps - 1) * block, block)[:, :k]
        residuals = _norms(_matmul(last.T, state.coupling))
        enough = state.steps * block >= k
        return state, enough & jnp.all(residuals <= 0.5 * _allowed(values[:k], tolerance))

    state, _ = jax.lax.while_loop(unfinished, continued, (state, jnp.asarray(False)))
    values, coordinates = ritz(state)
    found = _matmul(coordinates[:, :k].T, state.basis)
    values, bounds = values[:k], _norms(product.rows(found) - values[:k, None] * found)
    converged = jnp.all(bounds <= _allowed(values, tolerance))
    return Spectrum(values, bounds, converged, state.steps, product.unflatten(found) if vectors else None)


def begin(start: Float[Array, "b n"], max_steps: int) -> Krylov:
    """The Krylov space of the rows of `start` before its first step, with room for `max_steps`."""
    block, size = start.shape
    capacity = (max_steps + 1) * block  # the block after the last step's has its place too
    basis = jnp.zeros((capacity, size), start.dtype).at[:block].set(_orthonormal(start))
    empty = jnp.zeros((capacity, capacity), start.dtype)
    return Krylov(basis, empty, jnp.zeros((block, block), start.dtype), jnp.zeros((), jnp.int32))


def step(product: FlatOperator, state: Krylov, key: Key) -> Krylov:
    """One block more: its products, orthogonalised against the whole basis twice, give the block after it."""
    block, first = state.coupling.shape[0], state.steps * state.coupling.shape[0]
    products = product.rows(jax.lax.dynamic_slice_in_dim(state.basis, first, block))
    coefficients = _matmul(products, state.basis.T)
    remainder = products - _matmul(coefficients, state.basis)
    correction = _matmul(remainder, state.basis.T)
    remainder = remainder - _matmul(correction, state.basis)
    projected = jax.lax.dynamic_update_slice_in_dim(state.projected, coefficients + correction, first, 0)
    following, coupling = _next(remainder, state, projected, jax.random.fold_in(key, state.steps))
    basis = jax.lax.dynamic_update_slice_in_dim(state.basis, following, first + block, 0)
    return Krylov(basis, projected, coupling, state.steps + 1)


def ritz(state: Krylov) -> tuple[Float[Array, " m"], Float[Array, "m m"]]:
    """Ritz values in descending order, and the Ritz vectors' coordinates in the basis as columns.

    Rows of the basis that were not multiplied by the operator, or for which its space had no direction left, are last,
    with a value below all others.
    """
    lower = jnp.tril(state.projected)
    symmetric = lower + jnp.tril(lower, -1).T
    rows = jnp.arange(len(symmetric))
    used = rows < jnp.minimum(state.steps * state.coupling.shape[0], state.basis.shape[1])
    symmetric = jnp.where(used[:, None] & used[None, :], symmetric, 0.0)
    bound = jnp.max(jnp.sum(jnp.abs(symmetric), axis=1))  # no eigenvalue is larger
    below = jnp.where(bound > 0, 2 * bound, 1.0)
    values, coordinates = jnp.linalg.eigh(symmetric - jnp.diag(jnp.where(used, 0.0, below)))
    return values[::-1], coordinates[:, ::-1]


def _next(
    remainder: Float[Array, "b n"], state: Krylov, projected: Float[Array, "m m"], key: Key
) -> tuple[Float[Array, "b n"], Float[Array, "b b"]]:
    """Orthonormal rows that span the remainder's, and the remainder in terms of them.

    Directions in which nothing but rounding errors is left are replaced by random ones, until the space is exhausted;
    rows after that are zero.
    """
    block, size = remainder.shape
    columns, triangle = jnp.linalg.qr(remainder.T)
    left, singular, right = jnp.linalg.svd(triangle.T, full_matrices=False)
    eps = jnp.finfo(remainder.dtype).eps
    empty = singular <= 10 * eps * jnp.max(jnp.abs(projected))
    noise = jax.random.normal(key, remainder.shape, remainder.dtype) / jnp.sqrt(size)
    rows = jnp.where(empty[:, None], noise, _matmul(right, columns.T))
    for _ in range(3):  # what is nearly empty, or in the last few directions of the space, needs it more than twice
        rows = _orthonormal(rows - _matmul(_matmul(rows, state.basis.T), state.basis))
    exists = (state.steps + 1) * block + jnp.arange(block) < size
    return jnp.where(exists[:, None], rows, 0.0), left * singular[None, :]


def _orthonormal(rows: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """The rows made orthonormal one after another, each with its own sign."""
    columns, triangle = jnp.linalg.qr(rows.T)
    return (columns * jnp.where(jnp.diag(triangle) < 0, -1.0, 1.0)[None, :].astype(rows.dtype)).T


def _norms(rows: Float[Array, "k n"]) -> Float[Array, " k"]:
    """The Euclidean norm of each row, also where squares would overflow or vanish."""
    largest = jnp.max(jnp.abs(rows))
    scale = jnp.where(largest > 0, largest, 1.0)
    return scale * jnp.linalg.norm(rows / scale, axis=1)


def _allowed(values: Float[Array, " k"], tolerance: float) -> Float[Array, " k"]:
    rounding = 64 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    return jnp.maximum(tolerance * jnp.abs(values), rounding)
