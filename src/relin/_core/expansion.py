"""The network linearised in the place of the network: a loop trains θ, and the anchor is kept beside it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, PyTree

from relin._core import forward_mode as _forward, tree as _tree
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
    return whole([a + b for a, b in zip(at_anchor, tangents, strict=True)])


def predictions(
    function: Callable[[Params], PyTree], anchor: Params, params: Params
) -> tuple[list[Array], list[Array], list[Array]]:
    """f̄ = f(θ_s) + J_s (θ − θ_s), f(θ) and f(θ_s): of each the floating-point arrays, losses left out.

    **Raises:** `ValueError` if there is none; `RuleError` as `expanded` does.
    """

    def outputs(p: Params) -> tuple[list[Array], None]:
        return [leaf for leaf in jax.tree.leaves(function(p)) if _is_linearised(leaf) and jnp.ndim(leaf)], None

    at_anchor, tangents, _ = _terms(outputs, anchor, params)
    if not at_anchor:
        raise ValueError(
            "A linearisation error is of a network's outputs, got no floating-point array of them but losses; return "
            "the outputs."
        )
    return [a + b for a, b in zip(at_anchor, tangents, strict=True)], outputs(params)[0], at_anchor


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
        values = partial(_values, split)
        tangents = _forward.pushed(values, anchor, pull, primals, displacement, rules)
        if _forward.loops(pull, primals, anchor, rules) is not None:
            tangents = _with_pullback(tangents, values, anchor, displacement)
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((primals, anchor))):
            _forward.check_agreement(values, pull, primals, anchor, rules)
    else:
        primals, tangents, (rest, others) = jax.jvp(split, (anchor,), (displacement,), has_aux=True)
    structure, linearised = form

    def whole(sums: list[Array]) -> tuple[PyTree, PyTree]:
        values, constants = iter(sums), iter(rest)
        return structure.unflatten([next(values if which else constants) for which in linearised]), others

    return primals, tangents, whole


def _values(split: Callable[[Params], tuple[list[Any], Any]], params: Params) -> list[Any]:
    return split(params)[0]


def _with_pullback(tangents: list[Array], function: Callable, anchor: Params, displacement: Params) -> list[Array]:
    """J v, whose derivative by v is the function's own Jᵀu: JAX does not differentiate such a loop backward."""
    moved = _tree.add(anchor, _tree.subtract(displacement, jax.lax.stop_gradient(displacement)))
    there, here = function(moved), jax.lax.stop_gradient(function(anchor))
    return [jax.lax.stop_gradient(t) + (a - b) for t, a, b in zip(tangents, there, here, strict=True)]


def _is_linearised(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
