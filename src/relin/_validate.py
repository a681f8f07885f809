"""What is wrong with the input of a run, in one sentence, before anything is compiled."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from relin._compiled import derivative, separate
from relin._program import Batch, Run
from relin._types import Key


def positive(value: Any, name: str) -> int:
    """`value`, a positive integer; raises `TypeError` or `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer, got {value!r}.")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return value


def params(tree: PyTree) -> None:
    """Raises unless every leaf is a floating-point array and there is at least one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError("`params` holds no array, so there is nothing to train; pass the network's parameters.")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = type(leaf).__name__ if dtype is None else dtype
            raise TypeError(
                f"Every leaf of `params` must be a floating-point array, got {kind} at "
                f"params{jax.tree_util.keystr(path)}; keep what is not trained inside `apply`."
            )


def arrays(data: Batch) -> int:
    """The number of examples; raises unless all arrays of (x, y) have that many rows."""
    leaves = jax.tree.leaves(data)
    shapes = {getattr(leaf, "shape", None) for leaf in leaves}
    if len(data) != 2 or not leaves or None in shapes or () in shapes:
        raise TypeError("`data` must be a pair (x, y) of arrays, or an iterable of such pairs.")
    sizes = {shape[0] for shape in shapes if shape}
    if len(sizes) != 1:
        raise ValueError(
            f"Inputs and targets must have the same number of examples, got {sorted(sizes)}; check `data`."
        )
    if not sizes - {0}:
        raise ValueError("`data` holds no examples.")
    return sizes.pop()


def key(value: Any) -> Key:
    """One typed random key; a raw one as `jax.random.PRNGKey` makes is wrapped."""
    if isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.shape == (2,):
        return jax.random.wrap_key_data(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim == 0:
        return value
    raise TypeError(f"`key` must be one random key such as jax.random.key(0), got {value!r}.")


def network(run: Run, batch: Batch) -> None:
    """Raises unless the network and the loss take this batch and can be linearised."""
    problem = run.problem
    outputs = jax.eval_shape(problem.apply, run.params, batch[0])
    if not (isinstance(outputs, jax.ShapeDtypeStruct) and jnp.issubdtype(outputs.dtype, jnp.floating)):
        raise TypeError(f"The network must return one floating-point array of shape (batch, C), got {outputs}.")
    jax.eval_shape(problem.loss.mean, outputs, batch[1])
    try:
        arrays, make = separate(problem)
        jax.eval_shape(partial(derivative, make), arrays, run.params, *batch)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise ValueError(
            "The network cannot be linearised, because it uses a function with a custom_vjp rule, for which JAX has no "
            "forward-mode derivative; replace that function, or give it a custom_jvp rule instead."
        ) from error
