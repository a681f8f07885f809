"""torchax, the bridge from PyTorch to JAX, imported beside PyTorch releases that are newer than it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax

from relin._common.extra import needs_extra


@cache
def environment() -> Any:
    """torchax's environment, in which PyTorch's functions run on JAX arrays.

    **Raises:** `ImportError` without PyTorch or torchax.
    """
    with needs_extra("from_torch", "torchax"):
        import torch

        with _named_dimensions(torch):
            import torchax

            env = torchax.default_env()
        env.override_op_definition(torch.ops.aten.exponential_, _exponential, is_view_op=True)
        return env


def _exponential(tensor: Any, rate: float = 1.0, *, generator: Any = None) -> Any:
    """Draws from the exponential distribution in place, Gumbel noise's source: torchax 0.0.13 leaves the tensor as it
    is."""
    import torchax

    env = torchax.default_env()
    values = tensor.jax()
    drawn = jax.random.exponential(env.get_and_rotate_prng_key(generator), values.shape, values.dtype) / rate
    return tensor.copy_(env.j2t_iso(drawn))


@contextmanager
def _named_dimensions(torch: Any) -> Iterator[None]:
    """Stands in for the overloads by named dimensions: PyTorch 2.13 has none, torchax 0.0.13 lists them in its tables,
    and nothing calls them."""
    packet = type(torch.ops.aten.add)
    found = packet.__getattr__

    def attribute(self: Any, name: str) -> Any:
        try:
            return found(self, name)
        except AttributeError:
            if not any(word in name.lower() for word in ("dimname", "names")):
                raise
            return f"{self}.{name}"

    packet.__getattr__ = attribute
    try:
        yield
    finally:
        packet.__getattr__ = found
