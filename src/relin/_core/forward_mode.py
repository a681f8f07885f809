"""J v of any network that has Jᵀu: by JAX's forward mode, or where a `custom_vjp` rule has none by transposing it.

u ↦ Jᵀu is linear in u, so its transpose, v ↦ J v, is a program that JAX makes of it (`jax.linear_transpose`). J is then
what the rules say, for J v as for Jᵀu, whatever the functions that they belong to compute.

A loop of unknown length in a rule has no transpose in JAX. There J v is the forward mode of what the rule belongs to,
and is compared with Jᵀu where it is computed: ⟨J v, u⟩ = ⟨v, Jᵀu⟩ for a random u. A rule that is not the derivative, to
√ε, is refused.
"""

import abc
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
from relin._core.programs import can_run_equations, without_rules
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
    return outputs, pushed(function, params, pull, outputs, tangent, rules)


def linearize(
    function: Callable[[Params], Outputs], params: Params, rules: Rules
) -> tuple[Outputs, Callable[[Params], Outputs]]:
    """f and v ↦ J v, with what they share computed once."""
    if not rules:
        return jax.linearize(function, params)
    outputs, pull = jax.vjp(function, params)
    like = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
    if loops(pull, outputs, params, rules) is None:
        return outputs, _Transposed(pull, like, rules)
    cotangent = _random(outputs)
    return outputs, _Compared(pull, jax.linearize(without_rules(function), params)[1], cotangent, pull(cotangent)[0])


class Pushforward(eqx.Module):
    """v ↦ J v, beside the pullback u ↦ Jᵀu that rules define."""

    pull: eqx.AbstractVar[Callable[[Outputs], tuple[Params]]]

    @abc.abstractmethod
    def __call__(self, tangent: Params) -> Outputs:
        """J v."""


def pullback(pushforward: Callable[[Params], Outputs], params: Params) -> Callable[[Outputs], tuple[Params]]:
    """u ↦ (Jᵀu,), of what `linearize` gave; `params` has the shapes and types of v."""
    return pushforward.pull if isinstance(pushforward, Pushforward) else jax.linear_transpose(pushforward, params)


class _Transposed(Pushforward):
    """The transpose of the pullback."""

    pull: Callable[[Outputs], tuple[Params]]
    outputs: jax.ShapeDtypeStruct = eqx.field(static=True)
    rules: Rules = eqx.field(static=True)

    def __call__(self, tangent: Params) -> Outputs:
        return _transposed(self.pull, self.outputs, tangent, self.rules)


class _Compared(Pushforward):
    """Forward mode without the rules, compared with the pullback of one cotangent."""

    pull: Callable[[Outputs], tuple[Params]]
    forward: Callable[[Params], Outputs]
    cotangent: Outputs
    pulled: Params

    def __call__(self, tangent: Params) -> Outputs:
        return _unless_apart(self.forward(tangent), self.cotangent, tangent, self.pulled)


def pushed(
    function: Callable[[Params], Any],
    params: Params,
    pull: Callable[[Any], tuple[Params]],
    outputs: Any,
    tangent: Params,
    rules: Rules,
) -> Any:
    """J v from u ↦ (Jᵀu,), the function's pullback; `outputs` has the shapes and types of u.

    **Raises:** `RuleError` where J v is neither the transpose nor a derivative of the function without its rules. In
    the second case the program that computes it fails where it is not the transpose of Jᵀu.
    """
    if loops(pull, outputs, params, rules) is None:
        return _transposed(pull, outputs, tangent, rules)
    cotangent = _random(outputs)
    made = jax.jvp(without_rules(function), (params,), (tangent,))[1]
    return _unless_apart(made, cotangent, tangent, pull(cotangent)[0])


def loops(pull: Callable[[Any], tuple[Params]], outputs: Any, params: Params, rules: Rules) -> RuleError | None:
    """What keeps the pullback from being transposed, if loops of unknown length do; nothing is computed."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (outputs, params))
    try:
        jax.eval_shape(lambda u, v: _transposed(pull, u, v, rules), *like)
    except RuleError as error:
        return error if can_run_equations() and "while" in primitives(pull, like[0]) else None
    return None


def _unless_apart(pushed: Any, cotangent: Any, tangent: Params, pulled: Params) -> Any:
    """J v, unless ⟨J v, u⟩ and ⟨v, Jᵀu⟩ are apart: then the program fails."""
    return eqx.error_if(pushed, ~_near(pushed, cotangent, tangent, pulled, None), _NOT_THE_DERIVATIVE)


def _transposed(pull: Callable[[Any], tuple[Params]], outputs: Any, tangent: Params, rules: Rules) -> Outputs:
    """The transpose of the pullback."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), outputs)
    try:
        return jax.linear_transpose(lambda cotangent: pull(cotangent)[0], like)(tangent)[0]
    except Exception as error:  # each operation has its own way to say that it has no transpose
        _refuse(rules, error)


def _refuse(rules: Rules, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    raise RuleError(
        "To be linearised, the network must give J v, by forward mode or as the transpose of its custom_vjp rules, got "
        f"{some(list(rules))}, whose rule JAX cannot transpose ({reason[:160]}): the rule must "
        "be linear in the cotangent, without callbacks or kernels for one device; write it so, or replace that "
        "function by one that JAX differentiates or one with a custom_jvp rule."
    ) from error


@eqx.filter_jit
def _rules_agree(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, rules: Rules) -> Any:
    outputs, pull = jax.vjp(lambda p: apply(p, x), params)
    return _agreement(lambda p: apply(p, x), pull, outputs, params, rules)


def check_agreement(
    function: Callable[[Params], Any], pull: Callable[[Any], tuple[Params]], outputs: Any, params: Params, rules: Rules
) -> None:
    """Raises `RuleError` unless J v is the transpose of the whole of u ↦ Jᵀu, where both are known numbers."""
    _refuse_unless(_agreement(function, pull, outputs, params, rules), rules)


def _agreement(
    function: Callable[[Params], Any], pull: Callable[[Any], tuple[Params]], outputs: Any, params: Params, rules: Rules
) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether u ↦ Jᵀu is linear, and whether ⟨J v, u⟩ = ⟨v, Jᵀu⟩, for random u and v.

    A rule that adds to the cotangent, or rounds it to integers, has a transpose in JAX, of its linear part alone.
    """
    cotangent, tangent = _random(outputs), _random(params)
    (pulled,), (of_zero,) = pull(cotangent), pull(jax.tree.map(jnp.zeros_like, cotangent))
    linear = jnp.stack([jnp.all(leaf == 0) for leaf in jax.tree.leaves(of_zero)]).all()
    if loops(pull, outputs, params, rules) is None:
        made = _transposed(pull, outputs, tangent, rules)
        return linear & _near(made, cotangent, tangent, pulled, _ROUNDING), jnp.asarray(True)
    for factor in _FACTORS:  # transposing would have told what is clipped
        (other,) = pull(jax.tree.map(lambda leaf, by=factor: by * leaf, cotangent))
        apart = jax.tree.map(lambda a, b, by=factor: a / by - b, other, pulled)
        off, size = _product(apart, apart), _product(pulled, pulled)
        linear &= (off <= _rounding(pulled) ** 2 * size) | ~jnp.isfinite(off + size)
    made = jax.jvp(without_rules(function), (params,), (tangent,))[1]
    return linear, _near(made, cotangent, tangent, pulled, None)


def _random(like: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape, leaf.dtype), like)


def _near(pushed: Any, cotangent: Any, tangent: Params, pulled: Params, tolerance: float | None) -> Bool[Array, ""]:
    """Whether ⟨J v, u⟩ = ⟨v, Jᵀu⟩, relative to |J v| |u| + |v| |Jᵀu|: by default to √ε of the numbers."""
    here, there = _product(pushed, cotangent), _product(tangent, pulled)
    size = _norm(pushed) * _norm(cotangent) + _norm(tangent) * _norm(pulled)
    finite = jnp.isfinite(size) & jnp.isfinite(there)  # what is not is told elsewhere
    tolerance = _rounding((pushed, tangent)) if tolerance is None else tolerance
    return (jnp.abs(here - there) <= tolerance * size) | ~finite


def _norm(tree: Any) -> Array:
    return jnp.sqrt(_product(tree, tree))


def _rounding(tree: Any) -> float:
    """√ε of the coarsest numbers."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(tree)) ** 0.5


def _product(a: Any, b: Any) -> Array:
    """⟨a, b⟩, in single precision or better."""

    def one(x: Array, y: Array) -> Array:
        return jnp.vdot(x.astype(jnp.promote_types(x.dtype, jnp.float32)), y)

    return jnp.stack(jax.tree.leaves(jax.tree.map(one, a, b))).sum()


_ROUNDING = 0.02
"""A rule may round to bfloat16."""
_FACTORS = (2.0**20, 2.0**-20)
"""Cotangents so much larger and smaller show a rule that clips."""
_NOT_THE_DERIVATIVE = (
    "A custom_vjp rule with a loop of unknown length, which JAX cannot transpose, must be the derivative of its "
    "function, so that J v is this function's, got one where they differ; write the loop as a lax.scan, or the rule as "
    "the function's derivative."
)


_EXAMPLES = 16
"""What a look at the rules takes of a batch."""


def are_transposed(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, rules: Rules) -> bool:
    """Whether J v is the transpose of Jᵀu; nothing is computed."""
    found = list[bool]()

    def look(params: Params, x: Inputs) -> Outputs:
        outputs, pull = jax.vjp(lambda p: apply(p, x), params)
        found.append(loops(pull, outputs, params, rules) is None)
        return outputs

    eqx.filter_eval_shape(look, params, x)
    return found[0]


def check_rules(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Rules:
    """The rules in the way of forward mode, after a look at J v and Jᵀu on a few examples.

    **Raises:** `RuleError` for rules that are not linear, and for loops that are not the derivative.
    """
    rules = rules_in_the_way(apply, params, x)
    if rules and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((apply, params, x))):
        _refuse_unless(_agreement_on_a_few(apply, params, x, rules), rules)
    return rules


def _refuse_unless(agreement: tuple[Bool[Array, ""], Bool[Array, ""]], rules: Rules) -> None:
    linear, derivative = agreement
    if not linear:
        raise RuleError(
            "The network's custom_vjp rules must be linear in the cotangent, so that J v is their transpose, got "
            f"{some(list(rules))}, where one is not: it adds to the cotangent, clips or rounds it, or adapts to "
            "it; write the rule without that, or replace that function."
        )
    if not derivative:
        raise RuleError(f"{_NOT_THE_DERIVATIVE[:-1]} (in {some(list(rules))}).")


def _agreement_on_a_few(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs, rules: Rules) -> Any:
    few = jax.tree.map(lambda leaf: leaf[:_EXAMPLES], x)
    try:
        jax.eval_shape(apply, params, few)
    except Exception:  # a network of this many examples only
        few = x
    return _rules_agree(apply, params, few, rules)
