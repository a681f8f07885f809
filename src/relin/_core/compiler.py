"""Whether XLA computes what it is asked for: some of its releases get sums on CPUs wrong, without a sign of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relin._common.xla import FLAG, WrongSumsError, jaxlib_version


def check_sums() -> None:
    """Raises `WrongSumsError` if a sum is wrong, of those programs that the faults are known to change.

    They are compiled once in a process. It may be called under transformations such as `jax.jit` and `jax.shard_map`.
    """
    if jax.default_backend() == "cpu" and not _sums_are_right():
        raise WrongSumsError(
            f"XLA of jaxlib {jaxlib_version()} computes wrong sums on this CPU, and relin would give wrong results; "
            f"import relin before JAX computes anything or lists its devices, or set XLA_FLAGS={FLAG} and start Python "
            "again."
        )


@cache
def _sums_are_right() -> bool:
    """In a thread of its own: there no transformation, mesh, guard, nor `jax.disable_jit` of the caller's holds."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_compiled_and_right).result()


def _compiled_and_right() -> bool:
    along = np.linspace(-1, 1, 512 * 16, dtype=np.float32).reshape(512, 16)
    vectors = np.linspace(-1, 1, 8 * 512 * 16, dtype=np.float32).reshape(8, 512, 16)
    rows = np.linspace(-1, 1, 3 * 40_000, dtype=np.float32).reshape(40_000, 3)
    tries: list[tuple[Callable[..., Array], tuple[np.ndarray, ...], np.ndarray]] = [
        (_scaled, (along, vectors), along * np.sum(along * vectors, axis=-1, keepdims=True)),
        (_squared, (rows,), np.sum(rows**2, axis=-1)),
    ]
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.disable_jit(False), jax.transfer_guard("allow"), jax.default_device(cpu):
        return all(np.allclose(jax.jit(function)(*given), want, atol=1e-4) for function, given, want in tries)


def _scaled(along: Float[Array, "N C"], vectors: Float[Array, "V N C"]) -> Float[Array, "V N C"]:
    return jax.vmap(lambda vector: along * jnp.sum(along * vector, axis=-1, keepdims=True))(vectors)


def _squared(rows: Float[Array, "N C"]) -> Float[Array, " N"]:
    return jax.vmap(lambda row: jnp.sum((jnp.eye(row.size, dtype=row.dtype) @ row) ** 2))(rows)
