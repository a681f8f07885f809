"""The network linearised in the place of the network: a loop trains θ, and the anchor is kept beside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, PyTree

from relin._core import forward_mode as _forward, tree as _tree
from relin._core.primitives import depends, scopes
from relin._core.types import Params


def expanded(function: Callable[[Params], tuple[PyTree, PyTree]], anchor: Params, params: Params) -> tuple[Any, Any]:
    """f(θ_s) + J_s (θ − θ_s), and what else the function gives, as it is at the anchor.

    **Arguments:**

    - `function`: of the parameters, gives the outputs, a PyTree whose floating-point arrays are linearised, and a
      PyTree of arrays that is not, such as variables after the forward pass.
    - `anchor`: θ_s, a constant to derivatives.
    - `params`: θ, which are differentiated.

    **Raises:** `RuleError` for `custom_vjp` rules that have no transpose; for those that are not linear in the
    cotangent only outside of transformations such as `jax.jit`.
    """
    at_anchor, tangents, whole = _terms(function, anchor, params)
    with jax.named_scope(_SCOPE):
        return whole([a + b for a, b in zip(at_anchor, tangents, strict=True)])


_SCOPE = "relin-linearised-outputs"
"""A mark in programs, also in those that JAX keeps."""


class Predictions(NamedTuple):
    """The floating-point arrays of a network's outputs on a probe, losses left out."""

    tangent: list[Array]
    """J_s (θ − θ_s)."""
    network: list[Array]
    """f(θ)."""
    at_anchor: list[Array]
    """f(θ_s)."""


def predictions(forward: Callable[[Params], PyTree], anchor: Params, params: Params) -> Predictions:
    """What `forward` gives of a network with these parameters.

    **Raises:** `ValueError` if it gives no such array, none that depends on the parameters, or calls what is
    linearised; `RuleError` as `expanded` does.
    """

    def outputs(p: Params) -> tuple[list[Array], None]:
        return [leaf for leaf in jax.tree.leaves(forward(p)) if _is_linearised(leaf) and jnp.ndim(leaf)], None

    if any(_SCOPE in scope for scope in scopes(outputs, params)):
        raise ValueError(
            "`forward` must call the network that it is given, got a call of a linearised one; write for example "
            "step(lambda network: network(x))."
        )
    at_anchor, tangents, _ = _terms(outputs, anchor, params)
    if not at_anchor:
        raise ValueError(
            "A linearisation error is of a network's outputs, got no floating-point array of them but losses; return "
            "the outputs."
        )
    if not all(depends(f, params) for f in (lambda p: outputs(p)[0], lambda p: _terms(outputs, anchor, p)[1])):
        raise ValueError(
            "`forward` must call the network that it is given, and not stop its gradients, got outputs whose "
            "derivative does not depend on its parameters; write for example step(lambda network: network(x))."
        )
    return Predictions(tangents, outputs(params)[0], at_anchor)


def _terms(
    function: Callable[[Params], tuple[PyTree, PyTree]], anchor: Params, params: Params
) -> tuple[list[Array], list[Array], Callable[[list[Array]], tuple[PyTree, PyTree]]]:
    """f(θ_s) and J_s (θ − θ_s), their arrays, and what makes the function's outputs of the sum of these."""
    anchor, form = jax.lax.stop_gradient(anchor), list[Any]()
    displacement = _tree.subtract(params, anchor)

    def split(p: Params) -> tuple[list[Any], tuple[list[Any], PyTree]]:
        outputs, others = function(p)
        leaves, structure = jax.tree.flatten(outputs)
        form[:] = structure, [_is_linearised(leaf) for leaf in leaves]
        return [leaf for leaf in leaves if _is_linearised(leaf)], ([x for x in leaves if not _is_linearised(x)], others)

    if rules := _forward.rules_of(lambda p: split(p)[0], anchor):
        primals, pull, (rest, others) = jax.vjp(split, anchor, has_aux=True)
        tangents = _forward.pushed(lambda p: split(p)[0], anchor, pull, primals, displacement, rules)
        _check(pull, primals, anchor, rules)
    else:
        primals, tangents, (rest, others) = jax.jvp(split, (anchor,), (displacement,), has_aux=True)
    structure, linearised = form

    def whole(sums: list[Array]) -> tuple[PyTree, PyTree]:
        values, constants = iter(sums), iter(rest)
        return structure.unflatten([next(values if which else constants) for which in linearised]), others

    return primals, tangents, whole


def _check(pull: Any, primals: list[Any], anchor: Params, rules: _forward.Rules) -> None:
    """Refuses rules that are not linear, if these numbers are known: where they are traced nothing can be compared.

    One place in the source makes rules of many kinds, and so each call is compared.
    """
    known = not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((primals, anchor)))
    if known and not _forward.are_loops(rules) and not _forward.transpose_agrees(pull, primals, anchor, rules):
        _forward.refuse_rules(rules)


def _is_linearised(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
