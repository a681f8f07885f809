"""The largest eigenvalue of a symmetric operator from its products."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from relin._core.types import Scalar

Vector = PyTree[Array]


def largest_eigenvalue(
    product: Callable[[Vector], Vector],
    start: Vector,
    *,
    tolerance: float = 1e-3,
    max_products: int = 100,
    traced: bool = False,
) -> Scalar:
    """λ_max of a symmetric operator, by locally optimal conjugate gradients for Rayleigh's quotient (Knyazev 2001).

    Each iterate is the best in the span of the last one, its residual and the last change, as in LOBPCG with one vector
    and no preconditioner: about as many products as Lanczos' method, and memory for six vectors, however many there
    are. λ_max is approached from below.

    **Arguments:**

    - `product`: v ↦ A v, on PyTrees like `start`.
    - `start`: a vector that is not orthogonal to the eigenvector; random numbers are not.
    - `tolerance`: the iteration ends when ‖A v − λ v‖ is at most this part of |λ|; an eigenvalue is then at most so far
      from λ, and commonly about its square.
    - `max_products`: the most products.
    - `traced`: whether it runs inside a compiled program; otherwise the vectors' algebra, which is little, is NumPy's,
      since compiling it for each shape would take longer.

    **Returns:** λ_max, a scalar; not a number where a product is not finite.
    """
    xp: Any = jnp if traced else np
    leaves, tree = jax.tree.flatten(start)
    dtype, ends = jnp.result_type(jnp.float32, *leaves), np.cumsum([leaf.size for leaf in leaves])[:-1]
    least = 10 * float(jnp.finfo(dtype).eps) ** 0.5

    def flat(vector: Vector) -> Any:
        return xp.concatenate([xp.asarray(leaf, dtype).reshape(-1) for leaf in jax.tree.leaves(vector)])

    def multiplied(vector: Any) -> Any:
        parts = zip(xp.split(vector, ends), leaves, strict=True)
        shaped = [jnp.asarray(part.reshape(leaf.shape), leaf.dtype) for part, leaf in parts]
        return flat(product(jax.tree.unflatten(tree, shaped)))

    def dot(one: Any, other: Any) -> Any:
        return (one * other).sum()

    def unit(vector: Any, *images: Any) -> tuple[Any, ...]:
        length = xp.sqrt(dot(vector, vector))
        return tuple(part / xp.where(length > 0, length, 1) for part in (vector, *images))

    def orthogonal(pair: tuple[Any, ...], *others: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        """A unit vector and its image, of what is not along the others; and whether that is more than rounding."""
        whole = pair = unit(*pair)
        for other in others * 2:
            along = dot(pair[0], other[0])
            pair = tuple(part - along * image for part, image in zip(pair, other, strict=False))
        return unit(*pair), dot(pair[0], pair[0]) > least**2 * dot(whole[0], whole[0])

    def found(now: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        largest = dot(*now)
        residual = now[1] - largest * now[0]
        return residual, largest, xp.sqrt(dot(residual, residual))

    def more(carry: Any) -> Any:
        *_, number, largest, size = carry
        return (number < max_products) & (size > tolerance * abs(largest))  # not a number ends it

    def body(carry: Any) -> Any:
        now, change, residual, number, _, _ = carry
        (slope,), steep = orthogonal((residual,), now)
        slope = slope, multiplied(slope)
        change, changed = orthogonal(change, now, slope)
        basis, used = (now, slope, change), xp.stack([steep | True, steep, changed])
        projected = xp.stack([xp.stack([dot(one[0], other[1]) for other in basis]) for one in basis])
        projected = xp.where(used[:, None] & used[None, :], (projected + projected.T) / 2, 0)
        unused = xp.where(used, 0, 1 + 2 * abs(projected).sum())  # is below all eigenvalues
        c = xp.linalg.eigh(xp.where(xp.isfinite(projected), projected, 0) - xp.diag(unused))[1][:, -1]
        following = unit(*(c[0] * a + c[1] * b + c[2] * d for a, b, d in zip(*basis, strict=True)))
        change = tuple(c[1] * b + c[2] * d for b, d in zip(slope, change, strict=True))
        residual, largest, size = found(following)
        return following, change, residual, number + 1, largest, size

    (first,) = unit(flat(start))
    first = first, multiplied(first)
    residual, largest, size = found(first)
    carry = first, (xp.zeros_like(first[0]), xp.zeros_like(first[0])), residual, xp.asarray(1), largest, size
    if traced:
        return jax.lax.while_loop(more, body, carry)[-2]
    while more(carry):
        carry = body(carry)
    return carry[-2]
