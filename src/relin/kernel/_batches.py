"""The kernel of batches whose examples depend on each other: J of a batch as a whole."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from relin._core import forward_mode as _forward, tree as _tree
from relin._core.types import Inputs, Outputs, Params
from relin.kernel._arguments import check_number


@eqx.filter_jit
def kernel_of_batches(
    apply: Callable[[Params, Inputs], Outputs],
    outputs: str | int,
    per_layer: bool,
    params: Params,
    x1: Inputs,
    x2: Inputs | None,
) -> dict[str, Array]:
    """The kernel by tensor, or the whole under the key ``""``, a column at a time: J(x1) g with g = J(x2)ᵀ e."""

    def network(x: Inputs, params: Params) -> Outputs:
        with jax.default_matmul_precision("highest"):
            outputs = apply(params, x)
        return outputs.reshape(outputs.shape[0], -1)

    rules = _forward.rules_in_the_way(apply, params, x1)
    first, forward = _forward.linearize(partial(network, x1), params, rules)
    second, pull = jax.vjp(partial(network, x1 if x2 is None else x2), params)
    num_outputs, columns = first.shape[1], second.shape[0]
    check_number(outputs, num_outputs)
    wanted = jnp.arange(num_outputs) if isinstance(outputs, str) else jnp.asarray([outputs])
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]

    def column(place: Array) -> dict[str, Array]:
        """Θ(x1, ·) of one example and output of the other side, `(N1, C)`, or `(N1,)` of that output."""
        n, c = place
        (gradient,) = pull(jnp.zeros_like(second).at[n, c].set(1))
        parts = {"": gradient} if not per_layer else dict(zip(names, _alone(gradient), strict=True))
        made = {name: forward(part) for name, part in parts.items()}
        return made if outputs == "full" else {name: part[:, c] for name, part in made.items()}

    places = jnp.stack(jnp.meshgrid(jnp.arange(columns), wanted, indexing="ij"), -1).reshape(-1, 2)
    made = jax.lax.map(column, places)
    return {name: _arranged(part.reshape(columns, -1, *part.shape[1:]), outputs) for name, part in made.items()}


def _alone(gradient: Params) -> list[Params]:
    """Each leaf with zeros for the others."""
    leaves, structure = jax.tree.flatten(gradient)
    zeros = jax.tree.leaves(_tree.zeros_like(gradient))
    return [structure.unflatten([*zeros[:i], leaf, *zeros[i + 1 :]]) for i, leaf in enumerate(leaves)]


def _arranged(part: Array, outputs: Any) -> Array:
    """`(N2, C, N1, …)` in the order of the kernel's axes."""
    if outputs == "full":
        return part.transpose(2, 0, 3, 1)
    return part.transpose(2, 0, 1) if outputs == "diagonal" else part.mean(1).T
