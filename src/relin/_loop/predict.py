"""Where lazy training ends, in closed form."""

import functools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relin._core import check as _check
from relin._core.loss import SquaredError
from relin._core.problem import Problem
from relin._core.types import Inputs, Params, Targets
from relin._loop import validate as _validate
from relin._loop.placement import given, placement_of
from relin._solver import Descent, GaussNewtonProducts
from relin.kernel import KernelOnDisk, ntk
from relin.kernel._independence import refuse_coupled
from relin.kernel._matrix_function import function_of_matrix

_NUMBERS_AT_ONCE = 2**26
"""Of the kernel between test and training examples."""
_NUMBERS_HELD = 2**27
"""Of vectors of Lanczos' method."""
_EXAMPLES_AT_ONCE = 512
"""In the network, where the kernel is in a file."""


def predict(
    problem: Problem,
    params: Params,
    data: tuple[Inputs, Targets],
    x_test: Inputs,
    *,
    time: float | None = None,
    steps: int | float | None = None,
    learning_rate: float | None = None,
    ridge: float | None = None,
    kernel: KernelOnDisk | None = None,
) -> Float[Array, "test C"]:
    """f̄(x_test) after lazy training from `params`: full-batch descent on squared error, in closed form from the NTK.

    f̄(x) = f(x) − Θ(x, X) p(A) (f(X) − y)/N with A = Θ(X, X)/N and, at an eigenvalue a of A, p(a) as below (method.md,
    "Function space"; Jacot et al. 2018, arXiv:1806.07572). What training with
    `Never()` comes to on `x_test`.

    **Arguments:** at most one of the three ways to stop; with none, NTK regression, p(a) = 1/a, of minimum norm where
    the kernel is singular.

    - `problem`: its loss must be `SquaredError()`; `params`: θ_0; `data`: `(x, y)`, N examples; `x_test`: inputs.
    - `time`: t of gradient flow on the mean loss: p(a) = (1 − e^{−at})/a.
    - `steps` and `learning_rate`: k steps of gradient descent at rate η: p(a) = (1 − (1 − ηa)^k)/a.
    - `ridge`: λ of a term λ/2 ‖δ‖² added to the mean loss: p(a) = 1/(a + λ), kernel ridge regression with Nλ.

    The kernel of N·C rows is decomposed in float64 on the host, or, if it is in a file, multiplied:

    - `kernel`: Θ(X, X), `"full"`, from `relin.kernel.ntk(…, out=…)`. p(A) (f(X) − y) is then found by Lanczos' method
      in float64, with at most 1 GB of vectors, so that the outputs for X are right to 10⁻⁶ of f(X) − y (10⁻¹² of a
      kernel in float64). How many readings of the file that takes grows with the root of λ_max t, or λ_max/λ.

    **Returns:** an array of shape `(test, C)`.

    **Raises:** `TypeError` or `ValueError` for other arguments, and for a network whose outputs for an example depend
    on the others of its batch: what it gives for `x_test` would depend on how that is taken; for a kernel that is not
    that of `params` and x, and one for which 1 GB of vectors does not suffice.
    """
    _check.params(params)
    if not isinstance(problem.loss, SquaredError):
        raise ValueError(
            f"`predict` needs SquaredError, whose lazy training has a closed form, got {type(problem.loss).__name__}; "
            "train with Never() instead."
        )
    if sum(value is not None for value in (time, steps, ridge)) > 1 or (steps is None) != (learning_rate is None):
        raise ValueError(
            "`predict` takes one of `time`, `steps` with `learning_rate`, and `ridge`, got "
            f"time={time}, steps={steps}, learning_rate={learning_rate}, ridge={ridge}; pass one, or none."
        )
    for name, value in (("time", time), ("steps", steps), ("learning_rate", learning_rate), ("ridge", ridge)):
        if value is not None and not value >= 0:
            raise ValueError(f"`{name}` must be at least 0, got {value}; pass a number that is.")
    _validate.arrays(data)
    weights = functools.partial(_weights, time=time, steps=steps, learning_rate=learning_rate, ridge=ridge)
    placement = placement_of(None, params, (data, x_test))
    if placement is None:
        return _predicted(problem, params, data, x_test, weights, kernel)
    with placement.entered():  # explicit axes are taken as automatic ones
        params, data, x_test = placement.placed(jax.tree.map(given, (params, data, x_test)))
        return _predicted(placement.placed(problem), params, data, x_test, weights, kernel)


def _predicted(
    problem: Problem,
    params: Params,
    data: tuple[Inputs, Targets],
    x_test: Inputs,
    weights: Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, " m"]],
    kernel: KernelOnDisk | None,
) -> Float[Array, "test C"]:
    """f̄(x_test), with `weights` for p."""
    params, (x, y), x_test = jax.tree.map(jnp.asarray, (params, data, x_test))
    for inputs in (x, x_test):
        refuse_coupled(problem.apply, params, inputs, "`predict`", "freeze batch statistics, or train with Never()")
    if kernel is None:
        products = GaussNewtonProducts(problem, params, (x, y))
        values, vectors = products.decomposition()
        residual, shape = products.residual(jax.tree.map(jnp.zeros_like, params)), products.shape
        dual = vectors @ (weights(values) * (vectors.T @ residual))
    else:
        outputs = _outputs(problem, params, x)
        residual, shape = np.asarray(problem.loss.gradient(jnp.asarray(outputs), y), np.float64), outputs.shape
        dual = _by_products(problem, params, x, kernel, weights, residual)
    return jnp.concatenate(_evaluated(problem, params, x, x_test, -dual.reshape(shape) / shape[0]))


def _outputs(problem: Problem, params: Params, x: Inputs) -> Float[np.ndarray, "N C"]:
    """f(x), for some examples at a time."""
    number = jax.tree.leaves(x)[0].shape[0]
    pieces = (jax.tree.map(lambda a, i=i: a[i : i + _EXAMPLES_AT_ONCE], x) for i in range(0, number, _EXAMPLES_AT_ONCE))
    return np.concatenate([np.asarray(problem.apply(params, piece)) for piece in pieces])


def _by_products(
    problem: Problem,
    params: Params,
    x: Inputs,
    kernel: KernelOnDisk,
    weights: Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, " m"]],
    residual: Float[np.ndarray, "N ..."],
) -> Float[np.ndarray, " NC"]:
    """p(A) r from products with a kernel in a file."""
    if not isinstance(kernel, KernelOnDisk):
        raise TypeError(f"`kernel` must be a relin.kernel.KernelOnDisk, got {type(kernel).__name__}; leave it out.")
    num_outputs = residual.size // len(residual)
    if math.prod(kernel.shape[2:]) != num_outputs**2:
        raise ValueError(
            f'`kernel` must be the "full" one of {num_outputs} outputs, got shape {kernel.shape}; make it by '
            "relin.kernel.ntk, without `outputs`."
        )
    kernel.check_is_of(problem.apply, params, x)
    size, eps = residual.size, float(np.finfo(kernel.dtype).eps)
    shape = kernel.in_structure().shape

    def product(vector: Float[np.ndarray, " NC"]) -> Float[np.ndarray, " NC"]:
        return kernel.products(vector.reshape(1, *shape)).reshape(-1) / len(residual)

    def function(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        return weights(np.where(values > size * eps * max(values.max(), 0.0), values, 0.0))

    most = min(size, max(50, _NUMBERS_HELD // size))
    tolerance = max(1e-12, 10 * eps)
    found = function_of_matrix(product, function, residual.reshape(-1), tolerance=tolerance, max_products=most)
    if found is None:
        raise ValueError(
            f"{most:,} products with the kernel of {size:,} rows do not suffice, and more would take over 1 GB; pass a "
            f"smaller `time`, fewer `steps` or a larger `ridge`, or leave `kernel` out if there are "
            f"{24 * size**2 / 1e9:.3g} GB of memory to decompose it."
        )
    return found


def _weights(
    values: Float[np.ndarray, " NC"],
    time: float | None,
    steps: int | float | None,
    learning_rate: float | None,
    ridge: float | None,
) -> Float[np.ndarray, " NC"]:
    """p(a)."""
    if ridge is not None and ridge > 0:
        return 1 / (values + ridge)
    if time is not None:
        return -Descent(time, flow=True).filters(values, 1)[0, 0] if math.isfinite(time) else _limit(values)
    if steps is None or learning_rate is None:
        return _limit(values)
    descent = Descent(learning_rate)
    if math.isinf(steps) and descent.growth(values.max()) >= 0:
        raise ValueError(
            f"Descent diverges at `learning_rate` {learning_rate}, above 2/λ = {2 / values.max():.3g}; lower it, or "
            "leave `steps` out for the limit."
        )
    return -descent.filters(values, steps)[0, 0]


def _limit(values: Float[np.ndarray, " NC"]) -> Float[np.ndarray, " NC"]:
    return -Descent(1.0).filters(values, math.inf)[0, 0]


def _evaluated(
    problem: Problem, params: Params, x: Inputs, x_test: Inputs, dual: Float[np.ndarray, "N C"]
) -> list[Float[Array, "part C"]]:
    """f + Θ(x_test, x) a, for as many test examples at once as memory allows."""
    num_test = jax.tree.leaves(x_test)[0].shape[0]
    if not num_test:
        raise ValueError("`x_test` must hold at least one example, got none; check how it was selected.")
    at_once = max(1, _NUMBERS_AT_ONCE * len(dual) // dual.size**2)
    parts = []
    for start in range(0, num_test, at_once):
        piece = jax.tree.map(lambda a, start=start: a[start : start + at_once], x_test)
        outputs = problem.apply(params, piece)
        kernel = cast(Array, ntk(problem.apply, params, piece, x, outputs="full"))
        flat = jnp.asarray(dual, kernel.dtype).reshape(len(dual), -1)
        change = jnp.einsum("mncd,nd->mc", kernel, flat, precision="highest")
        parts.append(outputs + change.reshape(outputs.shape))
    return parts
