"""Trace, norm and spectral density of an operator from products with random vectors, with error bars."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from relin._common.showing import notebook
from relin._core import check as _check
from relin._core.types import Key, Scalar
from relin.kernel._lanczos import begin, ritz, step
from relin.kernel._vectors import FlatOperator, as_operator, finite, flat

Distribution = Literal["rademacher", "gaussian"]
Operator = lx.AbstractLinearOperator | tuple[Any, Any, Any]


class Estimate(NamedTuple):
    """A mean over probes and its standard error, both in the units of the quantity.

    **Attributes:**

    - `value`: the mean.
    - `standard_error`: that of the mean, from the spread of the probes.
    """

    value: Scalar
    standard_error: Scalar


class SpectralDensity(NamedTuple):
    """The density of an operator's eigenvalues over their logarithm, as `log_density` returns it.

    - `grid`: log₁₀ λ.
    - `density`: the share of all n eigenvalues per unit of log₁₀ λ, smoothed; its integral and `zero_fraction` make 1.
    - `standard_error`: of the density, over the probes.
    - `zero_fraction`: the share of eigenvalues at most the floor, those of 0 and negative ones included.
    - `nodes`, `weights`: the quadrature of each probe. The mean over probes of Σ_j w_j g(θ_j) estimates tr g(A)/n.
    """

    grid: Float[Array, " points"]
    density: Float[Array, " points"]
    standard_error: Float[Array, " points"]
    zero_fraction: Estimate
    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]

    def plot(self) -> Any:
        """The density with one standard error on both sides, as a `matplotlib.figure.Figure`."""
        curves = (np.asarray(column, float) for column in (self.grid, self.density, self.standard_error))
        return notebook().density_figure(*curves, float(self.zero_fraction.value))

    def _repr_html_(self) -> str | None:
        """In a notebook: the figure."""
        if np.ndim(self.grid) != 1:
            return None
        probes, steps = self.nodes.shape
        return notebook().figure_html(f"Density of eigenvalues, of {probes} probes with {steps} products", self.plot())


def trace(operator: Operator, *, key: Key, num_probes: int = 32, distribution: Distribution = "rademacher") -> Estimate:
    """tr A as the mean of vᵀAv over random v (Hutchinson 1990), with its standard error.

    **Arguments:**

    - `operator`: a square lineax operator such as `NTKOperator`, or a tuple `(apply, params, x)` that stands for one.
    - `key`: of the probes.
    - `num_probes`: at least 2, each one product. The standard error falls with its root.
    - `distribution`: of the probes' entries: `"rademacher"` (±1), which has the smaller variance, or `"gaussian"`.

    **Raises:** `TypeError` or `ValueError` if the operator is none or not square, or an argument is out of its range.
    """
    operator = as_operator(operator, symmetric=False)
    return finite(_trace(operator, key, _num_probes(num_probes), _distribution(distribution)), operator)


def frobenius_norm(
    operator: Operator, *, key: Key, num_probes: int = 32, distribution: Distribution = "rademacher"
) -> Estimate:
    """‖A‖_F as the root of the mean of ‖Av‖² over random v (Hutchinson 1990, for AᵀA), with its standard error.

    The standard error is that of the mean, carried through the root to first order; the root of an unbiased estimate is
    too small by about standard_error²/(2 ‖A‖).

    **Arguments, raises:** as `trace`.
    """
    operator = as_operator(operator, symmetric=False)
    return finite(_frobenius_norm(operator, key, _num_probes(num_probes), _distribution(distribution)), operator)


def log_density(
    operator: Operator,
    *,
    key: Key,
    num_probes: int = 10,
    num_steps: int = 64,
    width: float = 0.1,
    floor: float | None = None,
    grid: Float[Array, " points"] | None = None,
    distribution: Distribution = "rademacher",
) -> SpectralDensity:
    """The spectral density over log₁₀ λ, by stochastic Lanczos quadrature.

    Ubaru, Chen & Saad 2017 (SIAM J. Matrix Anal. Appl. 38); Ghorbani et al. 2019, arXiv:1901.10159. Each probe v gives
    a Gauss quadrature of its spectral measure from `num_steps` steps of Lanczos with full reorthogonalisation, exact
    for polynomials in λ of degree 2 · num_steps − 1; a normal density replaces each of its nodes.

    **Arguments:**

    - `operator`: a lineax operator tagged symmetric, such as `NTKOperator`, or a tuple `(apply, params, x)`.
    - `key`: of the probes.
    - `num_probes`, `num_steps`: at least 2 probes, each of `num_steps` products, or as many as the operator's size n if
      that is smaller. The memory is `num_steps` vectors of n numbers.
    - `width`: the normal density's standard deviation, in units of log₁₀ λ.
    - `floor`: eigenvalues of at most this part of the largest count as 0; by default 64 rounding errors.
    - `grid`: points of log₁₀ λ, to compare densities; by default 256 from the floor to the largest eigenvalue, and
      six widths beyond both. The density integrates to 1 − `zero_fraction` if the grid covers all, at a spacing of at
      most about `width`.
    - `distribution`: of the probes' entries, before they are scaled to unit length.

    **Raises:** `TypeError` or `ValueError` if the operator is none, or not square or symmetric, or an argument is out
    of its range.
    """
    operator = as_operator(operator, symmetric=True)
    num_steps = min(_check.count(num_steps, "num_steps", "64 is usual"), operator.in_size())
    for value, name in ((width, "width"), (floor, "floor")):
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` must be above 0, got {value}; leave it out for the usual one.")
    if grid is not None and jnp.ndim(grid) != 1:
        raise ValueError(f"`grid` must have shape (points,), got {jnp.shape(grid)}; pass points of log10 of λ.")
    found = _log_density(
        operator, key, _num_probes(num_probes), num_steps, width, floor, grid, _distribution(distribution)
    )
    return finite(found, operator)


@eqx.filter_jit
def _trace(operator: lx.AbstractLinearOperator, key: Key, num_probes: int, distribution: Distribution) -> Estimate:
    product = flat(operator)
    probes = _probes(product, key, num_probes, distribution)
    return _estimate(jnp.sum(probes * product.rows(probes), axis=1))


@eqx.filter_jit
def _frobenius_norm(
    operator: lx.AbstractLinearOperator, key: Key, num_probes: int, distribution: Distribution
) -> Estimate:
    product = flat(operator)
    products = product.rows(_probes(product, key, num_probes, distribution))
    squares = _estimate(jnp.sum(jnp.square(products), axis=1))
    value = jnp.sqrt(squares.value)
    return Estimate(value, squares.standard_error / jnp.where(value > 0, 2 * value, 1.0))


@eqx.filter_jit
def _log_density(
    operator: lx.AbstractLinearOperator,
    key: Key,
    num_probes: int,
    num_steps: int,
    width: float,
    floor: float | None,
    grid: Float[Array, " points"] | None,
    distribution: Distribution,
) -> SpectralDensity:
    product = flat(operator)
    probe_key, noise_key = jax.random.split(key)
    probes = _probes(product, probe_key, num_probes, distribution)

    def quadrature(arguments: tuple[Array, Key]) -> tuple[Array, Array]:
        probe, key = arguments
        state = begin(probe[None], num_steps)
        state = jax.lax.fori_loop(0, num_steps, lambda _, state: step(product, state, key), state)
        values, coordinates = ritz(state)
        return values[:num_steps], jnp.square(coordinates[0, :num_steps])

    nodes, weights = jax.lax.map(quadrature, (probes, jax.random.split(noise_key, num_probes)))
    relative = 64 * float(jnp.finfo(nodes.dtype).eps) if floor is None else floor
    largest = jnp.maximum(jnp.max(jnp.abs(nodes)), jnp.finfo(nodes.dtype).tiny)
    counted = nodes > relative * largest
    centres = jnp.log10(jnp.where(counted, nodes, largest))
    if grid is None:
        bottom, top = jnp.log10(largest) + math.log10(relative) - 6 * width, jnp.log10(largest) + 6 * width
        grid = jnp.linspace(bottom, top, 256, dtype=nodes.dtype)
    heights = jnp.where(counted, weights, 0.0) / (width * math.sqrt(2 * math.pi))

    def density(point: Array) -> Estimate:
        return _estimate(jnp.sum(heights * jnp.exp(-0.5 * jnp.square((point - centres) / width)), axis=1))

    smooth = jax.lax.map(density, grid)
    zero = _estimate(jnp.sum(jnp.where(counted, 0.0, weights), axis=1))
    return SpectralDensity(grid, smooth.value, smooth.standard_error, zero, nodes, weights)


def _probes(product: FlatOperator, key: Key, num_probes: int, distribution: Distribution) -> Float[Array, "probes n"]:
    draw = jax.random.rademacher if distribution == "rademacher" else jax.random.normal
    return draw(key, (num_probes, product.size), dtype=product.dtype)


def _estimate(samples: Float[Array, " probes"]) -> Estimate:
    return Estimate(jnp.mean(samples), jnp.std(samples, ddof=1) / math.sqrt(len(samples)))


def _num_probes(value: Any) -> int:
    return _check.count(value, "num_probes", "an error bar needs two probes", least=2)


def _distribution(value: Any) -> Distribution:
    if value not in ("rademacher", "gaussian"):
        raise ValueError(f'`distribution` must be "rademacher" or "gaussian", got {value!r}; the first is usual.')
    return value
