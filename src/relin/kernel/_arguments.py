"""What is wrong with the arguments of a kernel, in one sentence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from relin._core import check as _check, mesh as _mesh
from relin._core.compiler import check_sums
from relin._core.randomness import RandomnessError, not_drawn
from relin._core.types import Inputs, Params

KINDS = ("full", "mean", "diagonal")


def check_inputs(x: Inputs, name: str) -> int:
    """The number of examples; raises unless all leaves are arrays with that many rows, at least one."""
    check_sums()
    leaves = jax.tree.leaves(x)
    shapes = [getattr(leaf, "shape", None) for leaf in leaves]
    if not leaves or None in shapes or () in shapes:
        raise TypeError(
            f"`{name}` must hold arrays with a leading axis of examples, got shapes {shapes}; convert each leaf to one."
        )
    sizes = {shape[0] for shape in shapes if shape}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"All arrays of `{name}` must have the same positive number of examples, got {sorted(sizes)}; "
            "check how they were selected."
        )
    return sizes.pop()


def as_arrays(*arguments: Any) -> tuple[Any, ...]:
    """As JAX's arrays; those on explicit axes of a mesh are put on automatic ones."""
    return _mesh.on_automatic_axes(jax.tree.map(jnp.asarray, arguments))


def check_pair(x1: Inputs, x2: Inputs) -> None:
    """Raises unless the examples of both sides are alike in structure, shape and type."""
    first, second = (jax.tree.map(lambda a: (a.shape[1:], str(jnp.result_type(a))), x) for x in (x1, x2))
    if jax.tree.structure(x1) != jax.tree.structure(x2) or first != second:
        raise ValueError(
            f"`x1` and `x2` must hold examples of one shape and type, got {first} and {second}; convert one of them."
        )


def check_outputs(outputs: Any) -> str | int:
    """One of `KINDS` or the number of an output, as Python's integer."""
    if isinstance(outputs, int | np.integer) and not isinstance(outputs, bool):
        return int(outputs)
    if not isinstance(outputs, str) or outputs not in KINDS:
        raise ValueError(
            f"`outputs` must be 'full', 'mean', 'diagonal' or the number of one output, got {outputs!r}; pass one."
        )
    return outputs


def check_size(value: Any, name: str, default: str) -> int | None:
    """A positive integer as Python's, or `None`."""
    return None if value is None else _check.count(value, name, f"leave it out for {default}")


def check_result(result: Any, num_examples: int) -> None:
    """Raises unless the network gave one floating-point array of shape `(num_examples, …)`."""
    shape = getattr(result, "shape", None)
    if shape is None or not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(
            f"`apply` must return one floating-point array of shape (batch, C), got {result}; "
            "return the logits or regression values alone."
        )
    if shape[:1] != (num_examples,):
        raise ValueError(
            f"`apply` must return outputs of shape (batch, C), or (batch, …), got {shape} for a batch of "
            f"{num_examples}; keep the examples on the first axis."
        )


def check_number(outputs: str | int, num_outputs: int) -> None:
    """Raises unless one output that is asked for is there."""
    if not isinstance(outputs, str) and not 0 <= outputs < num_outputs:
        raise ValueError(
            f"`outputs` must be from 0 to {num_outputs - 1} for a network of {num_outputs} outputs, "
            f"got {outputs}; pass one of these, or 'full', 'mean' or 'diagonal'."
        )


class OneExampleError(ValueError):
    """A network that takes its batch does not take one example."""


def one_example(apply: Callable, outputs: str | int) -> Callable[[Params, Any], Array]:
    """f(params, x) → outputs `(C,)` of one example, C over all further axes; raises where `apply` gives none."""

    def network(params: Params, x: Any) -> Array:
        generators = list[str]()
        try:
            with not_drawn(apply, generators.append):
                result = apply(params, jax.tree.map(lambda a: a[None], x))
            check_result(result, 1)
        except Exception as error:  # whatever the network raises
            reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
            raise OneExampleError(
                f"`apply` must take one example too, since kernels are made example by example, got an error from a "
                f"batch of 1 ({reason}); write it for any batch size, or use relin.kernel.ntk with coupled=True."
            ) from error
        if generators:
            raise RandomnessError(generators[0])
        check_number(outputs, result.size)
        return result.reshape(-1)

    return network
