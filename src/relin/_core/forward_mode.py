"""J v of any network that has Jᵀu: by JAX's forward mode, or where a `custom_vjp` rule has none by transposing it.

u ↦ Jᵀu is linear in u, so its transpose, v ↦ J v, is a program that JAX makes of it (`jax.linear_transpose`). J is then
what the rules say, for J v as for Jᵀu, whatever the functions that they belong to compute.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool

from relin._core.compiler import check_sums
from relin._core.names import some
from relin._core.primitives import backward_only, primitives
from relin._core.types import Inputs, Outputs, Params

Rules = tuple[str, ...]
"""Functions with a `custom_vjp` rule in the way of forward mode, each as `name at file:line`; of most networks none."""


class RuleError(ValueError):
    """A `custom_vjp` rule that has no transpose."""


def rules_in_the_way(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Rules:
    """The rules for which a network's J v must be made of its Jᵀu.

    The network is read once for each function, shape of the parameters and of the inputs; nothing is computed.
    """
    return eqx.filter_eval_shape(_rules_in_the_way, apply, params, x)


@eqx.filter_jit
def _rules_in_the_way(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Rules:
    return rules_of(lambda p, x: apply(p, x), params, x)  # unlike a network, hashed without its numbers


def rules_of(function: Callable[..., Any], params: Params, *inputs: Any) -> Rules:
    """The rules in the way of a function's forward mode in its first argument."""
    check_sums()
    names = backward_only(function, params, *inputs)
    if not names:
        return ()

    def tangent(params: Params, *inputs: Any) -> Any:
        return jax.jvp(lambda p: function(p, *inputs), (params,), (params,))[1]

    return tuple(names) if "custom_lin" in primitives(tangent, params, *inputs) else ()  # the tangent of such a rule


def jvp(
    function: Callable[[Params], Outputs], params: Params, tangent: Params, rules: Rules
) -> tuple[Outputs, Outputs]:
    """f and J v."""
    if not rules:
        return jax.jvp(function, (params,), (tangent,))
    outputs, pull = jax.vjp(function, params)
    return outputs, transposed(pull, outputs, tangent, rules)


def linearize(
    function: Callable[[Params], Outputs], params: Params, rules: Rules
) -> tuple[Outputs, Callable[[Params], Outputs]]:
    """f and v ↦ J v, with what they share computed once."""
    if not rules:
        return jax.linearize(function, params)
    outputs, pull = jax.vjp(function, params)
    return outputs, Transposed(pull, jax.ShapeDtypeStruct(outputs.shape, outputs.dtype), rules)


class Transposed(eqx.Module):
    """v ↦ J v, of a pullback u ↦ Jᵀu."""

    pull: Callable[[Outputs], tuple[Params]]
    outputs: jax.ShapeDtypeStruct = eqx.field(static=True)
    rules: Rules = eqx.field(static=True)

    def __call__(self, tangent: Params) -> Outputs:
        return transposed(self.pull, self.outputs, tangent, self.rules)


def transposed(pull: Callable[[Any], tuple[Params]], outputs: Any, tangent: Params, rules: Rules) -> Outputs:
    """J v from u ↦ (Jᵀu,); `outputs` has the shapes and types of u, an array or a PyTree of arrays.

    **Raises:** `RuleError` where that function is not made of linear operations that JAX can transpose.
    """
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), outputs)
    try:
        return jax.linear_transpose(lambda cotangent: pull(cotangent)[0], like)(tangent)[0]
    except Exception as error:  # each operation has its own way to say that it has no transpose
        _refuse(rules, error)


def _refuse(rules: Rules, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    raise RuleError(
        "To be linearised, the network must give J v, by forward mode or as the transpose of its custom_vjp rules, got "
        f"{some(list(rules))}, whose rule JAX cannot transpose ({reason[:160]}): "
        f"{_REMEDIES.get(_library(rules), _ANY)}."
    ) from error


_ANY = (
    "the rule must be linear in the cotangent, and loops in it a lax.scan; write it so, or replace that function by "
    "one that JAX differentiates or one with a custom_jvp rule"
)
_REMEDIES = {
    "/equinox/": "a loop of Equinox; of Diffrax pass diffeqsolve(..., adjoint=diffrax.DirectAdjoint()), which is "
    "differentiated in both directions",
}


def _library(rules: Rules) -> str:
    """The library with a remedy of its own that one of the rules is from."""
    return next((name for name in _REMEDIES for rule in rules if name in rule), "")


@eqx.filter_jit
def rules_agree(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, rules: Rules) -> Bool[Array, ""]:
    """Whether `transpose_agrees` for a network's J."""
    outputs, pull = jax.vjp(lambda p: apply(p, x), params)
    return transpose_agrees(pull, outputs, params, rules)


def transpose_agrees(
    pull: Callable[[Any], tuple[Params]], outputs: Any, params: Params, rules: Rules
) -> Bool[Array, ""]:
    """Whether the transpose is that of the whole of u ↦ Jᵀu: Jᵀ0 = 0, and ⟨J v, u⟩ = ⟨v, Jᵀu⟩ for random u and v.

    A rule that adds to the cotangent, or rounds it to integers, has a transpose in JAX, of its linear part alone.
    """
    cotangent, tangent = (
        jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape, leaf.dtype), tree)
        for tree in (outputs, params)
    )
    pushed = transposed(pull, outputs, tangent, rules)
    (pulled,), (of_zero,) = pull(cotangent), pull(jax.tree.map(jnp.zeros_like, cotangent))
    here, there = _product(pushed, cotangent), _product(tangent, pulled)
    size = jnp.sqrt(_product(pushed, pushed) * _product(cotangent, cotangent))
    zero = jnp.stack([jnp.all(leaf == 0) for leaf in jax.tree.leaves(of_zero)]).all()
    finite = jnp.isfinite(size) & jnp.isfinite(there)  # what is not is told elsewhere
    return (zero & (jnp.abs(here - there) <= _ROUNDING * size)) | ~finite


def _product(a: Any, b: Any) -> Array:
    """⟨a, b⟩, in single precision or better."""

    def one(x: Array, y: Array) -> Array:
        return jnp.vdot(x.astype(jnp.promote_types(x.dtype, jnp.float32)), y)

    return jnp.stack(jax.tree.leaves(jax.tree.map(one, a, b))).sum()


_ROUNDING = 0.02
"""A rule may round to bfloat16."""


_EXAMPLES = 16
"""What a look at the rules takes of a batch."""


def check_rules(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Rules:
    """The rules that are transposed for J v, after a look at their transpose on a few examples.

    **Raises:** `RuleError` for rules that are not linear.
    """
    rules = rules_in_the_way(apply, params, x)
    if rules and not _agree_on_a_few(apply, params, x, rules):
        refuse_rules(rules)
    return rules


def refuse_rules(rules: Rules) -> NoReturn:
    """Raises `RuleError` for rules that are not linear."""
    raise RuleError(
        "The network's custom_vjp rules must be linear in the cotangent, so that J v is their transpose, got "
        f"{some(list(rules))}, where one is not: it adds to the cotangent or rounds it; write the rule without "
        "that, or replace that function."
    )


def _agree_on_a_few(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, rules: Rules) -> bool:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((apply, params, x))):
        return True
    few = jax.tree.map(lambda leaf: leaf[:_EXAMPLES], x)
    try:
        jax.eval_shape(apply, params, few)
    except Exception:  # a network of this many examples only
        few = x
    return bool(rules_agree(apply, params, few, rules))
