"""A function of a symmetric matrix times a vector, from products alone: Lanczos' method in float64 on the host."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal

Vector = Float[np.ndarray, " n"]

_CHECK_AFTER, _GROWTH = 5, 1.1
"""How many products pass between two looks at what is found, or by which factor their number grows."""


def function_of_matrix(
    product: Callable[[Vector], Vector],
    function: Callable[[Float[np.ndarray, " m"]], Float[np.ndarray, " m"]],
    vector: Vector,
    *,
    tolerance: float,
    max_products: int,
) -> Vector | None:
    """p(A) v in the Krylov space of A and v, ‖v‖ V p(T) e₁ (Golub & Van Loan 2013, section 10.2; Saad 1992), with full
    reorthogonalisation; none where `max_products` do not suffice.

    It is found when the residual of the equation that p stands for, A x = v, (A + λI) x = v or x′ = v − A x, which is β
    times the last entry of p(T) e₁, and the last change of A x are at most `tolerance` of v or of A x. `function` is p
    on Ritz values; it may be called with those that are not yet eigenvalues.
    """
    length = np.linalg.norm(vector)
    if not length > 0:
        return np.zeros_like(vector)
    basis = np.empty((max_products, len(vector)))  # memory is taken as rows are written
    basis[0] = vector / length
    alphas, betas = np.zeros(max_products), np.zeros(max_products)
    before, check = np.zeros(0), _CHECK_AFTER
    for made in range(1, max_products + 1):
        remainder = product(basis[made - 1])
        known = basis[:made]
        coefficients = known @ remainder
        remainder = remainder - coefficients @ known
        correction = known @ remainder
        remainder = remainder - correction @ known
        alphas[made - 1], betas[made - 1] = (coefficients + correction)[-1], np.linalg.norm(remainder)
        scale = np.abs(alphas[:made]).max() + betas[:made].max()
        ended = made == len(vector) or betas[made - 1] <= len(vector) * np.finfo(np.float64).eps * scale
        if ended or made >= check:
            values, vectors = eigh_tridiagonal(alphas[:made], betas[: made - 1])
            found = length * (vectors @ (function(values) * vectors[0]))
            image, last = vectors @ (values * (vectors.T @ found)), np.pad(before, (0, made - len(before)))
            change = np.linalg.norm(vectors @ (values * (vectors.T @ (found - last))))
            size = tolerance * max(length, np.linalg.norm(image))
            near = max(change, betas[made - 1] * abs(found[-1])) <= size
            if ended or near or not np.isfinite(found).all():
                return found @ known
            before, check = found, max(made + _CHECK_AFTER, int(_GROWTH * made))
        if made < max_products:
            basis[made] = remainder / betas[made - 1]
    return None
