"""Whether a kernel is finite, and what is not."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from relin._core import finite as _finite
from relin._core.types import Inputs, Params


@partial(jax.jit, static_argnums=1)
def all_finite(kernel: Any, symmetric: bool) -> Bool[Array, ""]:
    """Whether all examples' derivatives are finite: each has its part in the diagonal or, of two sides, in the first
    row and the first column."""

    def finite(part: Array) -> Bool[Array, ""]:
        if symmetric:
            return jnp.all(jnp.isfinite(jnp.diagonal(part)))
        return jnp.all(jnp.isfinite(part[0])) & jnp.all(jnp.isfinite(part[:, 0]))

    return jnp.all(jnp.stack([finite(part) for part in jax.tree.leaves(kernel)]))


def reason(
    kernel: Any,
    apply: Callable,
    params: Params,
    x1: Inputs,
    x2: Inputs | None,
    *,
    first: tuple[int, int] = (0, 0),
    sides: tuple[str, str] = (" of x1", " of x2"),
) -> str:
    """What is not finite, of the first example whose own part of the kernel is not.

    The numbers of the kernel's first examples are `first`, and `sides` says of which set they are.
    """
    parts = [np.asarray(part) for part in jax.tree.leaves(kernel)]
    finite = np.stack([np.isfinite(part).reshape(*part.shape[:2], -1).all(axis=2) for part in parts]).all(axis=0)
    params, x1, x2 = jax.tree.map(jnp.asarray, (params, x1, x2))
    if x2 is None:
        looked_at = [(x1, np.diagonal(finite), first[0], "")]
    else:
        looked_at = [(x1, finite.T.any(axis=0), first[0], sides[0]), (x2, finite.any(axis=0), first[1], sides[1])]
    for x, good, start, side in looked_at:
        if not good.all():
            place = int(np.argmin(good))
            found = _finite.of_example(apply, params, x, place, lambda i, s=start, side=side: f"example {s + i}{side}")
            if found:
                return found
    one, other = (int(place) + start for place, start in zip(np.argwhere(~finite)[0], first, strict=True))
    return f"the one of examples {one} and {other} overflows, though their derivatives are finite"
