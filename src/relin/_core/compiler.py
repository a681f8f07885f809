"""Whether XLA computes what it is asked for: some of its releases get sums on CPUs wrong, without a sign of it."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relin._common.xla import FLAG, WrongSumsError, jaxlib_version


@cache
def check_sums() -> None:
    """Raises `WrongSumsError` if a sum over the last axis, which the fault is known to change, is wrong.

    It is compiled once in a process, and may be called under transformations such as `jax.jit`.
    """
    if jax.default_backend() != "cpu":
        return
    along = np.linspace(-1, 1, 512 * 16, dtype=np.float32).reshape(512, 16)
    vectors = np.linspace(-1, 1, 8 * 512 * 16, dtype=np.float32).reshape(8, 512, 16)
    with jax.ensure_compile_time_eval():
        found = jax.device_get(_compiled_scaled(*jax.device_put((along, vectors))))
    if not np.allclose(found, along * np.sum(along * vectors, axis=-1, keepdims=True), atol=1e-4):
        raise WrongSumsError(
            f"XLA of jaxlib {jaxlib_version()} computes wrong sums on this CPU, and relin would give wrong results; "
            f"import relin before JAX computes anything, or set XLA_FLAGS={FLAG} and start Python again."
        )


def _scaled(along: Float[Array, "N C"], vector: Float[Array, "N C"]) -> Float[Array, "N C"]:
    return along * jnp.sum(along * vector, axis=-1, keepdims=True)


_compiled_scaled = jax.jit(jax.vmap(_scaled, in_axes=(None, 0)))
