"""Kernels of modules, from those of their parameter tensors."""

import re
from collections.abc import Mapping
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array

from relin.kernel._metrics import Kernels

_PATH_KEY = re.compile(r"""\['(?:[^'\\]|\\.)*'\]|\["(?:[^"\\]|\\.)*"\]|\[[^\]]*\]|\.\w+""")


def by_module(parts: Mapping[str, Kernels], depth: int | None = None) -> dict[str, Kernels]:
    """The kernels of modules: those of their parameter tensors added up, since Θ is a sum over tensors.

    **Arguments:**

    - `parts`: kernels by the path of their tensor, as `ntk(..., per_layer=True)` gives.
    - `depth`: how many keys of a path name the module: 1 puts `.layers[0].weight` into `.layers`, 2 into `.layers[0]`.
      By default every key but the last, the tensor's own; a tensor at the top is a module of its own.

    **Returns:** a dict of kernels, in the order in which the modules first occur in `parts`.

    **Raises:** `ValueError` if `depth` is below 1 or kernels of one module differ in shape.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"`depth` must be at least 1, got {depth}; pass None to cut only the tensor's own key.")
    modules: dict[str, list[Array]] = {}
    for path, kernel in parts.items():
        keys = _PATH_KEY.findall(path)
        kept = max(1, len(keys) - 1) if depth is None else depth
        modules.setdefault("".join(keys[:kept]) or path, []).append(jnp.asarray(kernel))
    for name, kernels in modules.items():
        shapes = {kernel.shape for kernel in kernels}
        if len(shapes) > 1:
            raise ValueError(
                f"The kernels of {name} must have one shape, got {sorted(shapes)}; compute them in one call of ntk."
            )
    return {name: reduce(jnp.add, kernels) for name, kernels in modules.items()}
