"""Numbers that are not: which number of the parameters, the data, the outputs or the derivative is not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from relin._core.names import some
from relin._core.types import Inputs, Outputs, Params, Targets

Apply = Callable[[Params, Inputs], Outputs]
Named = Callable[[int], str]
"""What an example of the batch is called, by its place in it."""


class Losses(NamedTuple):
    """A loss ℓ(f, y) of each example, and the targets y."""

    loss: Callable[[Outputs, Targets], Array]
    targets: Targets


def example(place: int) -> str:
    return f"example {place}"


def in_network(apply: Apply, params: Params, x: Inputs, losses: Losses | None = None, named: Named = example) -> str:
    """The first thing that is not finite, in the order in which they follow from each other: a parameter, an input, a
    target, the outputs, the loss, the derivative of the outputs. One sentence, or nothing.

    It evaluates the network, and differentiates it if all else is finite.
    """
    found = in_params(params) or in_data(x, None if losses is None else losses.targets, named)
    if found:
        return found
    outputs = _evaluated(apply, params, x)
    rows = np.asarray(rows_of(outputs))
    if not rows.all():
        place = int(np.argmin(rows))
        derived = _with_respect_to(apply, params, x, place)
        cause = f", and neither is their derivative with respect to {derived}" if derived else ""
        return (
            f"the outputs for {named(place)} are not finite{cause}, though its inputs and all parameters are: look "
            "for a division by 0, a logarithm or an overflow in the network"
        )
    if losses is not None:
        values = np.asarray(losses.loss(outputs, losses.targets))
        if not np.isfinite(values).all():
            place = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
            return f"the loss of {named(place)} is {values[place]}, though its outputs are finite"
    return in_derivative(apply, params, x, named)


def in_derivative(apply: Apply, params: Params, x: Inputs, named: Named = example) -> str:
    """The first example for which the derivative of the outputs is not finite, and with respect to what."""
    together = _not_finite_in_gradient(apply, params, x)
    if not together:
        return ""
    place = _first_example(apply, params, x)
    whose = "" if place is None else f" for {named(place)}"
    names = together if place is None else _with_respect_to(apply, params, x, place)
    return (
        f"the derivative of the outputs{whose} with respect to {names or together} is not finite, though the outputs "
        "are: look for a norm or a square root of 0, and add a small number under it"
    )


def of_example(apply: Apply, params: Params, x: Inputs, place: int, named: Named = example) -> str:
    """Why the derivative of one example alone is not finite, in one sentence; nothing if it is."""
    one = jax.tree.map(lambda a: a[place : place + 1], x)
    return in_network(apply, params, one, named=lambda _: named(place))


def in_params(params: Params, name: str = "params") -> str:
    """The first parameter that holds a number that is not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not _all_finite(leaf):
            where = np.unravel_index(int(np.argmin(np.isfinite(_floats(leaf)))), np.shape(leaf))
            place = f" at {[int(i) for i in where]}" if where else ""
            value = _floats(leaf)[where]
            return f"the parameter {name}{jax.tree_util.keystr(path)} holds {value}{place}"
    return ""


def in_data(x: Inputs, y: Targets | None = None, named: Named = example) -> str:
    """The first example whose inputs, or targets, hold a number that is not finite."""
    for data, name, what in ((x, "x", "inputs"), (y, "y", "targets")):
        worst = None
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            if not _all_finite(leaf):
                finite = np.isfinite(_floats(leaf))
                where = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
                if worst is None or where[0] < worst[0][0]:
                    worst = where, f"{name}{jax.tree_util.keystr(path)}", _floats(leaf)[where]
        if worst is not None:
            where, leaf_name, value = worst
            within = f" at {list(where[1:])}" if where[1:] else ""
            leaf_name = "" if leaf_name == name else f" in {leaf_name}"
            return (
                f"the {what} of {named(where[0])} hold {value}{leaf_name}{within}: leave that example out, or replace "
                "what is missing"
            )
    return ""


def everywhere(tree: Any) -> bool:
    """Whether all numbers of arrays are finite, looked at on the host."""
    return all(_all_finite(leaf) for leaf in jax.tree.leaves(tree))


def rows_of(tree: Any) -> Bool[Array, " batch"]:
    """Whether all numbers of each row are finite."""
    rows = [jnp.all(jnp.isfinite(leaf).reshape(leaf.shape[0], -1), axis=1) for leaf in _inexact(tree)]
    first = jax.tree.leaves(tree)[0]
    return jnp.stack([jnp.ones(first.shape[0], bool), *rows]).all(axis=0)


def first_row(tree: Any) -> Int[Array, ""]:
    """The first row that holds a number that is not finite, −1 if none does: for programs."""
    rows = rows_of(tree)
    return jnp.where(jnp.all(rows), -1, jnp.argmin(rows)).astype(jnp.int32)


def _inexact(tree: Any) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]


def _floats(leaf: Any) -> np.ndarray:
    """An array that NumPy can look at; it knows less of half precision than JAX."""
    array = np.asarray(leaf)
    return array if array.dtype.kind in "fc" else array.astype(np.float32)


def _all_finite(leaf: Any) -> bool:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return True
    return bool(np.isfinite(_floats(leaf)).all())


def _evaluated(apply: Apply, params: Params, x: Inputs) -> Outputs:
    return jax.jit(lambda p, x: apply(p, x))(params, x)


def _gradient(apply: Apply, params: Params, x: Inputs) -> Params:
    """Of the sum of the outputs: 0 times what is not finite is not a number, so nothing cancels."""
    outputs, pullback = jax.vjp(lambda p: apply(p, x), params)
    return pullback(jnp.ones_like(outputs))[0]


def _not_finite_in_gradient(apply: Apply, params: Params, x: Inputs) -> str:
    gradient = jax.jit(lambda p, x: _gradient(apply, p, x))(params, x)
    paths = jax.tree_util.tree_leaves_with_path(gradient)
    return some([f"params{jax.tree_util.keystr(path)}" for path, leaf in paths if not _all_finite(leaf)])


def _with_respect_to(apply: Apply, params: Params, x: Inputs, place: int) -> str:
    try:
        return _not_finite_in_gradient(apply, params, jax.tree.map(lambda a: a[place : place + 1], x))
    except Exception:
        return ""  # a network that does not take one example


def _first_example(apply: Apply, params: Params, x: Inputs) -> int | None:
    """The first example whose own derivative is not finite, taken one at a time."""

    def finite(one: Inputs) -> Bool[Array, ""]:
        gradient = _gradient(apply, params, jax.tree.map(lambda a: a[None], one))
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient)]))

    try:
        flags = np.asarray(jax.jit(lambda x: jax.lax.map(finite, x))(x))
    except Exception:  # a network that does not take one example
        return None
    return None if flags.all() else int(np.argmin(flags))
