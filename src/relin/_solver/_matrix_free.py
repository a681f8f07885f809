"""Products with J, Jᵀ and G = JᵀJ/N at one anchor, from the host, and what is made of them."""

import functools
import math
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import eigh

from relin._core import tree as _tree
from relin._core.linearise import LinearisedOutputs
from relin._core.primitives import slow_in_loops
from relin._core.problem import Problem
from relin._core.types import Inputs, Outputs, Params, Scalar, Targets
from relin._solver._conjugate_gradients import Iterate, first_iterate, next_iterate
from relin.kernel._largest import largest_eigenpair
from relin.kernel._ntk import unchecked_ntk

Totals = tuple[Params, Params]

_CHECK_EVERY = 10  # steps of conjugate gradients, after which the host reads how far they are


class GaussNewtonProducts:
    """The linearised squared error at an anchor; `made` counts the products with G or Θ."""

    def __init__(self, problem: Problem, anchor: Params, data: tuple[Inputs, Targets]):
        self.problem, self.anchor, (self.x, self.y) = problem, anchor, data
        self.linearised: LinearisedOutputs = _linearised(problem, anchor, self.x)
        self.made = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the outputs, `(N, C)`."""
        return self.linearised.at_anchor.shape

    def loss(self, displacement: Params) -> Scalar:
        return _loss(self.problem, self.linearised, displacement, self.y)

    def gradient(self, displacement: Params) -> Params:
        """∇L at a displacement."""
        self.made += 1
        return _gradient(self.problem, self.linearised, displacement, self.y)

    def residual(self, displacement: Params) -> Float[np.ndarray, " NC"]:
        """f̄ − y in float64."""
        return np.asarray(_residual(self.problem, self.linearised, displacement, self.y), np.float64).reshape(-1)

    def outputs(self, vector: Params) -> Float[np.ndarray, " NC"]:
        """J v in float64."""
        return np.asarray(_pushed(self.linearised, vector), np.float64).reshape(-1)

    def pulled_back(self, dual: Float[np.ndarray, " NC"]) -> Params:
        """Jᵀ a / N."""
        at_anchor = self.linearised.at_anchor
        return _pulled(self.linearised, jnp.asarray(dual.reshape(self.shape), at_anchor.dtype), self.anchor)

    def decomposition(self) -> tuple[Float[np.ndarray, " NC"], Float[np.ndarray, "NC NC"]]:
        """Eigenvalues and eigenvectors of Θ/N, in float64; what rounding leaves of zeros is zero."""
        kernel = dense_kernel(self.problem, self.anchor, self.x)
        if not np.isfinite(kernel).all():
            return np.full(len(kernel), np.nan), np.full(kernel.shape, np.nan)
        values, vectors = eigh(np.asarray(kernel, np.float64) / self.shape[0], check_finite=False)
        smallest = len(kernel) * float(jnp.finfo(kernel.dtype).eps) * max(values[-1], 0.0)
        return np.where(values > smallest, values, 0.0), vectors

    def filtered(
        self, coefficients: Float[np.ndarray, "2 inputs degree"], bound: float, inputs: tuple[Params, ...]
    ) -> tuple[Params, Params]:
        """Σ_i Σ_j c_oij T_j(2G/bound − 1) v_i for both outputs o."""
        degree = coefficients.shape[-1]
        self.made += (degree - 1) * len(inputs)
        totals = (_tree.zeros_like(self.anchor), _tree.zeros_like(self.anchor))
        for i, vector in enumerate(inputs):
            c = coefficients[:, i].astype(_tree.dtype_of(self.anchor))
            if self._slow_in_loops:
                totals = self._summed_from_host(c, bound, vector, totals)
            else:
                padded = np.zeros((2, 2 ** math.ceil(math.log2(max(2, degree)))), c.dtype)
                padded[:, :degree] = c
                totals = _summed(self.linearised, padded, degree, bound, vector, totals)
        return totals

    def _summed_from_host(self, c: np.ndarray, bound: float, vector: Params, totals: tuple) -> tuple[Params, Params]:
        before, now = vector, vector
        totals = _weighed(totals, c[:, 0], vector)
        for j in range(1, c.shape[-1]):
            before, now, totals = _compiled_next(self.linearised, before, now, totals, c[:, j], bound, j == 1)
        return totals

    @functools.cached_property
    def _slow_in_loops(self) -> bool:
        """Whether the network has convolutions that a CPU runs slowly inside a loop."""
        return slow_in_loops(_product, self.linearised, self.anchor)


def dense_kernel(problem: Problem, anchor: Params, x: Inputs) -> Float[Array, "NC NC"]:
    """Θ on examples that are one batch."""
    kernel = cast(Array, unchecked_ntk(problem.apply, anchor, x, outputs="full", coupled=True))
    size = kernel.shape[0] * kernel.shape[2]
    return jnp.swapaxes(kernel, 1, 2).reshape(size, size)


def largest_eigenvalue_of(products: GaussNewtonProducts) -> float:
    """Of G, as of Θ/N; not a number where a derivative is not finite."""

    def product(dual: Outputs) -> Outputs:
        products.made += 1
        return _pushed(products.linearised, _pulled(products.linearised, dual, products.anchor))

    start = np.random.default_rng(0).normal(size=products.shape)
    found = largest_eigenpair(product, jnp.asarray(start, products.linearised.at_anchor.dtype)).value
    return max(float(found), 0.0) if np.isfinite(found) else math.nan


def minimum_norm(
    products: GaussNewtonProducts, displacement: Params, tolerance: float, vector: Params | None = None
) -> tuple[Params, float]:
    """The smallest solution of G u = −∇L, or of G u = G v, by conjugate gradients; and the residual left, relative.

    Started at zero they stay in the row space of J, where G may be singular.
    """
    if vector is None:
        wanted = _tree.scale(-1.0, products.gradient(displacement))
    else:
        wanted = _compiled_product(products.linearised, vector)
    now, norm = first_iterate(wanted), float(_tree.norm(wanted))
    for iteration in range(10 * math.prod(products.shape)):
        if iteration % _CHECK_EVERY == 0 and not (now.curves and float(jnp.sqrt(now.square)) > tolerance * norm):
            break
        now = _next_iterate(products.linearised, now)
        products.made += 1
    return now.solution, float(jnp.sqrt(now.square)) / norm if norm else 0.0


@eqx.filter_jit
def _linearised(problem: Problem, anchor: Params, x: Inputs) -> LinearisedOutputs:
    with jax.default_matmul_precision("highest"):
        return problem.linearise(anchor).on(x)


@eqx.filter_jit
def _loss(problem: Problem, linearised: LinearisedOutputs, displacement: Params, y: Targets) -> Scalar:
    return problem.loss.mean(linearised.value(displacement), y)


@eqx.filter_jit
def _residual(problem: Problem, linearised: LinearisedOutputs, displacement: Params, y: Targets) -> Outputs:
    return problem.loss.gradient(linearised.value(displacement), y)


@eqx.filter_jit
def _gradient(problem: Problem, linearised: LinearisedOutputs, displacement: Params, y: Targets) -> Params:
    return problem.value_and_grad_on(linearised, displacement, y)[1]


@jax.jit
def _pushed(linearised: LinearisedOutputs, vector: Params) -> Outputs:
    return linearised.pushforward(vector)


@jax.jit
def _pulled(linearised: LinearisedOutputs, dual: Outputs, like: Params) -> Params:
    return linearised.pullback(dual / dual.shape[0], like)


def _product(linearised: LinearisedOutputs, vector: Params) -> Params:
    """G v."""
    outputs = linearised.pushforward(vector)
    return linearised.pullback(outputs / outputs.shape[0], vector)


_compiled_product = jax.jit(_product)


@jax.jit
def _summed(
    linearised: LinearisedOutputs, c: Array, degree: Array, bound: Array, vector: Params, totals: Totals
) -> Totals:
    def following(j: Array, carry: tuple[Params, Params, Totals]) -> tuple[Params, Params, Totals]:
        return _next(linearised, *carry, c[:, j], bound, j == 1)

    carry = vector, vector, _weighed(totals, c[:, 0], vector)
    return jax.lax.fori_loop(1, degree, following, carry)[2]


def _next(
    linearised: LinearisedOutputs,
    before: Params,
    now: Params,
    totals: Totals,
    c: Float[Array, " 2"],
    bound: Array,
    first: Array,
) -> tuple[Params, Params, Totals]:
    """T_j v from T_{j−1} v and T_{j−2} v, added to both sums: T_j = 2 x T_{j−1} − T_{j−2}, x = 2G/bound − 1."""
    double = jnp.where(first, 1.0, 2.0)

    def polynomial(product: Array, now: Array, before: Array) -> Array:
        value = double * (2 / bound * product - now) - jnp.where(first, 0.0, before)
        return value.astype(now.dtype)

    after = jax.tree.map(polynomial, _product(linearised, now), now, before)
    return now, after, _weighed(totals, c, after)


_compiled_next = jax.jit(_next)


def _weighed(totals: Totals, c: Any, vector: Params) -> Totals:
    first, second = (_tree.add(total, _tree.scale(c[o], vector)) for o, total in enumerate(totals))
    return first, second


@jax.jit
def _next_iterate(linearised: LinearisedOutputs, now: Iterate) -> Iterate:
    return next_iterate(functools.partial(_product, linearised), now)
