"""Whether each example's outputs are those of that example alone, as a kernel made example by example needs."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from relin._core import forward_mode as _forward, tree as _tree
from relin._core.programs import inner_programs, line_of
from relin._core.types import Inputs, Outputs, Params
from relin.kernel._arguments import OneExampleError, check_result, one_example
from relin.kernel._dependence import dependence

_JAX = os.path.dirname(jax.__file__) + os.sep


class Doubt(NamedTuple):
    """Why a program's examples may depend on each other."""

    where: str
    """The operation at which they meet, and its line."""
    certain: bool
    """Whether that is one that joins examples, such as a sum over them; a mask may still keep them apart."""


def doubt(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Doubt | None:
    """What in the program of a batch speaks against the independence of its examples; `None` if they are independent.

    The program is read once for each function, shape of the parameters and of the inputs; nothing is computed.

    **Raises:** `TypeError` or `ValueError` if `apply` does not give `(batch, C)` of this batch, or fails for one
    example.
    """
    return eqx.filter_eval_shape(_doubt, apply, params, x)


@eqx.filter_jit
def _doubt(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Doubt | None:
    num_examples = jax.tree.leaves(x)[0].shape[0]
    params, x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, x))
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)

    def of_batch(params: Params, x: Inputs) -> Outputs:
        outputs = apply(params, x)
        check_result(outputs, num_examples)
        return outputs

    def of_one(params: Params, example: Inputs) -> Outputs:
        return one_example(apply, "full")(params, example)[None]

    batch, one = jax.make_jaxpr(of_batch)(params, x), jax.make_jaxpr(of_one)(params, example)
    if num_examples == 1:
        return None
    if _has_own_rules(batch.jaxpr):  # whose derivative may join what the values do not
        batch, one = (
            jax.make_jaxpr(partial(_both, function))(params, params, inputs)
            for function, inputs in ((of_batch, x), (of_one, example))
        )
    found = dependence(batch, one, len(jax.tree.leaves(x)), num_examples)
    if found is None:
        return None
    equation, certain = found
    return Doubt(_described(equation), certain)


def _both(function: Callable, params: Params, tangent: Params, x: Inputs) -> tuple[Outputs, Outputs]:
    rules = _forward.rules_in_the_way(function, params, x)
    return _forward.jvp(lambda p: function(p, x), params, tangent, rules)


def _has_own_rules(program: Any) -> bool:
    """Whether a function with a derivative rule of its own is in a program, other than JAX's."""
    for equation in program.eqns:
        inner = [getattr(part, "jaxpr", part) for part in inner_programs(equation)]
        if equation.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call")):
            info = getattr(inner[0], "debug_info", None) if inner else None
            if _JAX not in str(getattr(info, "func_src_info", "")):
                return True
        if any(map(_has_own_rules, inner)):
            return True
    return False


def _described(equation: Any) -> str:
    if equation is None:
        return "the rows of the outputs are not in the order of the examples"
    shapes = " and ".join(str(atom.aval) for atom in equation.invars[:2])
    line = line_of(equation)
    return f"{equation.primitive.name} of {shapes}" + (f" at {line}" if line else "")


def refuse_coupled(
    apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, who: str, remedy: str
) -> Params:
    """The parameters; raises `ValueError` where an example's outputs depend on the others of its batch.

    Where the program does not tell, outputs and a random combination of gradients of the batch are compared with those
    of one example at a time; if values are traced, when the program runs.
    """
    found = doubt(apply, params, x)
    if found is None:
        return params
    message = (
        f"{who} needs each example's outputs to be those of that example alone, and here they depend on the others of "
        f"the batch: {found.where}; {remedy}."
    )
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((apply, params, x)))
    if traced and found.certain:
        raise ValueError(message)
    agree, _ = alone_as_in_batch(apply, params, x)
    if isinstance(agree, Tracer):
        return eqx.error_if(params, ~agree, message)
    if not agree:
        raise ValueError(message)
    return params


def may_be_coupled(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> bool:
    """Whether the program leaves it open that examples depend on each other, or takes this batch only."""
    try:
        return doubt(apply, params, x) is not None
    except OneExampleError:
        return True


@eqx.filter_jit
def alone_as_in_batch(
    apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """Whether the outputs of each example, and a random combination of their gradients, are the same for the example
    alone as within the batch; and the first example whose outputs are not, or −1.

    One example goes through the network at a time: about two passes for each, forth and back.
    """

    def network(x: Inputs, params: Params) -> Outputs:
        with jax.default_matmul_precision("highest"):
            outputs = apply(params, x)
        return outputs.reshape(outputs.shape[0], -1)

    together, pull = jax.vjp(partial(network, x), params)
    cotangents = jax.random.normal(jax.random.key(0), together.shape, together.dtype)

    def add(total: Params, one: tuple[Inputs, Outputs]) -> tuple[Params, Outputs]:
        example, cotangent = jax.tree.map(lambda a: a[None], one)
        outputs, pull = jax.vjp(partial(network, example), params)
        return _tree.add(total, pull(cotangent)[0]), outputs[0]

    total, alone = jax.lax.scan(add, _tree.zeros_like(params), (x, cotangents))
    rounding = jnp.sqrt(jnp.finfo(together.dtype).eps)
    rows = jnp.linalg.norm(_difference(together, alone), axis=1)
    size = jnp.sqrt(jnp.nanmean(jnp.square(jnp.linalg.norm(alone, axis=1))))
    apart = ~(rows <= rounding * jnp.nan_to_num(size))
    gradient = jax.tree.map(_difference, pull(cotangents)[0], total)
    close = _tree.norm(gradient) <= rounding * _tree.norm(jax.tree.map(jnp.nan_to_num, total))
    first = jnp.where(apart.any(), jnp.argmax(apart), -1)
    return close & ~apart.any(), first


def _difference(a: Array, b: Array) -> Array:
    """a − b, and 0 where both are not finite."""
    return jnp.where(jnp.isfinite(a) | jnp.isfinite(b), a - b, 0)
