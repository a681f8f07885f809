"""J v of any network that has Jᵀu: by JAX's forward mode, or where a `custom_vjp` rule has none by transposing it.

u ↦ Jᵀu is linear in u, so its transpose, v ↦ J v, is a program that JAX makes of it (`jax.linear_transpose`). J is then
what the rules say, for J v as for Jᵀu, whatever the functions that they belong to compute.

Equinox' loops of unknown length, those of Diffrax' default adjoint, have a rule that JAX cannot transpose, and that is
the loop's own derivative, computed from checkpoints. Their J v is forward mode of the loop without its rule.
"""

import abc
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool

from relin._core import tree as _tree
from relin._core.compiler import check_sums
from relin._core.names import some
from relin._core.primitives import backward_only, primitives
from relin._core.programs import can_run_equations, run, without_rules
from relin._core.types import Inputs, Outputs, Params

Rules = tuple[str, ...]
"""Functions with a `custom_vjp` rule in the way of forward mode, each as `name at file:line`; of most networks none."""


_LOOP = "/equinox/internal/_loop/checkpointed.py:"


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


def are_loops(rules: Rules) -> bool:
    """Whether all of them are Equinox' loops, whose J v is forward mode without the rules."""
    return bool(rules) and all(_LOOP in rule for rule in rules) and can_run_equations()


def jvp(
    function: Callable[[Params], Outputs], params: Params, tangent: Params, rules: Rules
) -> tuple[Outputs, Outputs]:
    """f and J v."""
    if not rules:
        return jax.jvp(function, (params,), (tangent,))
    if are_loops(rules):
        return _forward(function, params, tangent, rules)
    outputs, pull = jax.vjp(function, params)
    return outputs, _transposed(pull, outputs, tangent, rules)


def linearize(
    function: Callable[[Params], Outputs], params: Params, rules: Rules
) -> tuple[Outputs, Callable[[Params], Outputs]]:
    """f and v ↦ J v, with what they share computed once."""
    if not rules:
        return jax.linearize(function, params)
    outputs, pull = jax.vjp(function, params)
    if are_loops(rules):
        return outputs, _OfLoops(pull, jax.linearize(without_rules(function), params)[1])
    return outputs, _Transposed(pull, jax.ShapeDtypeStruct(outputs.shape, outputs.dtype), rules)


def pullback(pushforward: Callable[[Params], Outputs], params: Params) -> Callable[[Outputs], tuple[Params]]:
    """u ↦ (Jᵀu,), of what `linearize` gave; `params` has the shapes and types of v."""
    return pushforward.pull if isinstance(pushforward, _Pushforward) else jax.linear_transpose(pushforward, params)


class _Pushforward(eqx.Module):
    """v ↦ J v, beside the pullback u ↦ Jᵀu that rules define."""

    pull: eqx.AbstractVar[Callable[[Outputs], tuple[Params]]]

    @abc.abstractmethod
    def __call__(self, tangent: Params) -> Outputs:
        """J v."""


class _Transposed(_Pushforward):
    pull: Callable[[Outputs], tuple[Params]]
    outputs: jax.ShapeDtypeStruct = eqx.field(static=True)
    rules: Rules = eqx.field(static=True)

    def __call__(self, tangent: Params) -> Outputs:
        return _transposed(self.pull, self.outputs, tangent, self.rules)


class _OfLoops(_Pushforward):
    pull: Callable[[Outputs], tuple[Params]]
    forward: Callable[[Params], Outputs]

    def __call__(self, tangent: Params) -> Outputs:
        return self.forward(tangent)


def pushed(
    function: Callable[[Params], Any],
    params: Params,
    pull: Callable[[Any], tuple[Params]],
    outputs: Any,
    tangent: Params,
    rules: Rules,
) -> Any:
    """J v of a function with rules, from its pullback u ↦ (Jᵀu,); its derivative by v is the pullback.

    `outputs` has the shapes and types of u, an array or a PyTree of arrays. JAX refuses a derivative by anything else
    than v of what loops give.

    **Raises:** `RuleError` where that function is not made of linear operations that JAX can transpose.
    """
    if not are_loops(rules):
        return _transposed(pull, outputs, tangent, rules)

    program, shapes = jax.make_jaxpr(lambda v: _forward(function, params, v, rules)[1], return_shape=True)(tangent)
    structure = jax.tree.structure(shapes)

    @jax.custom_vjp
    def linear(tangent: Params, constants: list[Array], pull: Callable[[Any], tuple[Params]]) -> Any:
        return structure.unflatten(run(program.replace(consts=constants), jax.tree.leaves(tangent)))

    def linear_and_pull(tangent: Any, constants: Any, pull: Any) -> Any:
        if any(leaf.perturbed for leaf in jax.tree.leaves((constants, pull), is_leaf=_is_primal)):
            raise RuleError(
                "The linearised network's loop of Equinox has derivatives by its parameters alone, got one by its "
                "inputs; differentiate by the parameters, or pass Diffrax' adjoint=diffrax.DirectAdjoint()."
            )
        tangent, constants, pull = jax.custom_derivatives.custom_vjp_primal_tree_values((tangent, constants, pull))
        return linear(tangent, constants, pull), pull

    linear.defvjp(linear_and_pull, lambda pull, cotangent: (*pull(_dense(cotangent)), None, None), symbolic_zeros=True)
    return linear(tangent, program.consts, pull)


def _forward(function: Callable[[Params], Any], params: Params, tangent: Params, rules: Rules) -> tuple[Any, Any]:
    """f and J v of a function of loops."""
    try:
        return jax.jvp(without_rules(function), (params,), (tangent,))
    except (NotImplementedError, TypeError) as error:  # a loop where it cannot be reached
        _refuse(rules, error)


def _is_primal(leaf: Any) -> bool:
    return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)


def _dense(cotangent: Any) -> Any:
    """Zeros that are known to be zeros as arrays."""
    zero: Any = jax.custom_derivatives.SymbolicZero

    def dense(leaf: Any) -> Any:
        return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, zero) else leaf

    return jax.tree.map(dense, cotangent, is_leaf=lambda leaf: isinstance(leaf, zero))


def _transposed(pull: Callable[[Any], tuple[Params]], outputs: Any, tangent: Params, rules: Rules) -> Outputs:
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
    "/diffrax/": "this adjoint is not the solver's derivative; pass diffeqsolve(..., adjoint="
    "diffrax.RecursiveCheckpointAdjoint()), the default",
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
    cotangent, tangent = (_random(tree, jax.random.key(seed)) for seed, tree in enumerate((outputs, params)))
    pushed = _transposed(pull, outputs, tangent, rules)
    (pulled,), (of_zero,) = pull(cotangent), pull(jax.tree.map(jnp.zeros_like, cotangent))
    here, there = _product(pushed, cotangent), _product(tangent, pulled)
    size = _tree.norm(jax.tree.map(jnp.abs, pushed)) * _tree.norm(jax.tree.map(jnp.abs, cotangent))
    zero = jnp.stack([jnp.all(leaf == 0) for leaf in jax.tree.leaves(of_zero)]).all()
    finite = jnp.isfinite(size) & jnp.isfinite(there)  # what is not is told elsewhere
    return (zero & (jnp.abs(here - there) <= _ROUNDING * size)) | ~finite


def _random(like: Any, key: Array) -> Any:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    )


def _product(a: Any, b: Any) -> Array:
    """Σ a b as JAX transposes, without conjugates: its real part, in single precision or better."""

    def one(x: Array, y: Array) -> Array:
        return jnp.sum(x.astype(jnp.promote_types(x.dtype, jnp.float32)) * y).real

    return jnp.stack(jax.tree.leaves(jax.tree.map(one, a, b))).sum()


_ROUNDING = 0.02
"""A rule may round to bfloat16."""


_EXAMPLES = 16
"""What a look at the rules takes of a batch."""


def check_rules(apply: Callable[[Params, Inputs], Outputs], params: Params, x: Inputs) -> Rules:
    """The rules in the way of forward mode, after a look at their transpose on a few examples.

    **Raises:** `RuleError` for rules that are not linear.
    """
    rules = rules_in_the_way(apply, params, x)
    if rules and not are_loops(rules) and not _agree_on_a_few(apply, params, x, rules):
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
