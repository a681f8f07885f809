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


def check_outputs(outputs: Any, name: str) -> None:
    """Raises `TypeError` unless the outputs are tensors, in tuples, lists and dictionaries."""
    import torch

    for leaf in jax.tree.leaves(outputs):
        if not isinstance(leaf, torch.Tensor | int | float):
            first = repr(next(iter(leaf))) if isinstance(leaf, dict) and leaf else "lambda outputs: outputs.logits"
            raise TypeError(
                f"The network must return tensors, got {type(leaf).__name__} from {name}; choose one of what it holds, "
                f"such as output={first}."
            )


def refuse_torchaxs(error: Exception, name: str) -> None:
    """Raises `ValueError` for what failed within torchax."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "torchax":
        raise ValueError(
            f"from_torch runs a module on JAX by torchax, which cannot run {name} ({type(error).__name__}: {error}); "
            "leave out what it cannot (a cache of keys and values, such as by config.use_cache = False), or use "
            "relin.torch.Linearised, which stays in PyTorch."
        ) from error


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
