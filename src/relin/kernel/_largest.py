"""The largest eigenvalue of a symmetric operator from its products."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from relin._core.types import Scalar

Vector = PyTree[Array]


class Largest(NamedTuple):
    """The largest eigenvalue, as far as it was found."""

    value: Scalar
    """λ_max; not a number where a product is not finite."""
    vector: Vector
    """Of unit length, with vᵀ A v = λ_max."""
    products: Int[Array, ""]
    """That were made."""


def largest_eigenpair(
    product: Callable[[Vector], Vector],
    start: Vector,
    *,
    tolerance: float = 1e-3,
    max_products: int = 100,
    traced: bool = False,
) -> Largest:
    """λ_max of a symmetric operator, by locally optimal conjugate gradients for Rayleigh's quotient (Knyazev 2001).

    Each iterate is the best in the span of the last one, its residual and the last change, as in LOBPCG with one vector
    and no preconditioner: about as many products as Lanczos' method, and memory for six vectors, however many there
    are. λ_max is approached from below.

    **Arguments:**

    - `product`: v ↦ A v, on PyTrees like `start`.
    - `start`: a vector that is not orthogonal to the eigenvector; random numbers are not.
    - `tolerance`: the iteration ends when ‖A v − λ v‖ is at most this part of |λ|; an eigenvalue is then at most so far
      from λ, and commonly about its square. At least √ε of the vectors' types, where λ is known to rounding: beyond,
      rounding is all that an iteration has to go on, and grows.
    - `max_products`: the most products.
    - `traced`: whether it runs inside a compiled program; otherwise the vectors' algebra, which is little, is NumPy's,
      since compiling it for each shape would take longer.
    """
    xp: Any = jnp if traced else np
    leaves, tree = jax.tree.flatten(start)
    dtype, ends = jnp.result_type(jnp.float32, *leaves), np.cumsum([leaf.size for leaf in leaves])[:-1]
    least = 10 * float(jnp.finfo(dtype).eps) ** 0.5
    tolerance = max(tolerance, *(float(jnp.finfo(leaf.dtype).eps) ** 0.5 for leaf in leaves))

    def flat(vector: Vector) -> Any:
        return xp.concatenate([xp.asarray(leaf, dtype).reshape(-1) for leaf in jax.tree.leaves(vector)])

    def shaped(vector: Any) -> Vector:
        parts = zip(xp.split(vector, ends), leaves, strict=True)
        return jax.tree.unflatten(tree, [xp.asarray(part.reshape(leaf.shape), leaf.dtype) for part, leaf in parts])

    def multiplied(vector: Any) -> Any:
        return flat(product(shaped(vector)))

    def dot(one: Any, other: Any) -> Any:
        return (one * other).sum()

    def unit(vector: Any, *images: Any) -> tuple[Any, ...]:
        length = xp.sqrt(dot(vector, vector))
        return tuple(part / xp.where(length > 0, length, 1) for part in (vector, *images))

    def apart(pair: tuple[Any, ...], *others: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        """A unit vector, with its image, of what is not along the others; and whether that is more than rounding."""
        pair = unit(*pair)
        for other in others * 2:
            along = dot(pair[0], other[0])
            pair = tuple(part - along * image for part, image in zip(pair, other, strict=False))
        return unit(*pair), dot(pair[0], pair[0]) > least**2

    def more(carry: Any) -> Any:
        *_, residual, largest, number = carry
        return (number < max_products) & (xp.sqrt(dot(residual, residual)) > tolerance * abs(largest))  # false if NaN

    def body(carry: Any) -> Any:
        now, change, residual, _, number = carry
        (slope,), steep = apart((residual,), now)
        slope = slope, multiplied(slope)
        change, changed = apart(change, now, slope)
        basis, used = (now, slope, change), xp.stack([steep | True, steep, changed])
        projected = xp.stack([xp.stack([dot(one[0], other[1]) for other in basis]) for one in basis])
        projected = xp.where(used[:, None] & used[None, :], (projected + projected.T) / 2, 0)
        unused = xp.where(used, 0, 1 + 2 * abs(projected).sum())  # is below all eigenvalues
        c = xp.linalg.eigh(xp.where(xp.isfinite(projected), projected, 0) - xp.diag(unused))[1][:, -1]
        change = tuple(c[1] * a + c[2] * b for a, b in zip(slope, change, strict=True))
        return evaluated(unit(*(c[0] * a + b for a, b in zip(now, change, strict=True))), change, number + 1)

    def evaluated(now: tuple[Any, ...], change: tuple[Any, ...], number: Any) -> Any:
        largest = dot(*now)
        return now, change, now[1] - largest * now[0], largest, number

    (first,) = unit(flat(start))
    carry = evaluated((first, multiplied(first)), (xp.zeros_like(first), xp.zeros_like(first)), xp.asarray(1))
    if traced:
        carry = jax.lax.while_loop(more, body, carry)
    while not traced and more(carry):
        carry = body(carry)
    (vector, _), _, _, largest, number = carry
    return Largest(largest, shaped(vector), number)
