"""An optimiser's state in weight space and in function space, and whether one stands for the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from relin._core import tree as _tree
from relin._core.types import Params
from relin._solver._optax import updates_of

Dual = dict[str, Array]
"""A vector Σ_n J_s(x_n)ᵀ a_n + Σ_i c_i m_i of weight space: `dual` holds a, of the outputs' shape `(n, C)`, and
`carried` c, `(r,)`; the m_i are the vectors of the optimiser's state at the anchor."""

_PROBES = 4
_REMEDY = "use WeightSpace for it"


def refuse_unless_linear(optimiser: optax.GradientTransformation, params: Params) -> None:
    """Raises `ValueError` with the reason unless each update is a linear function of the gradients, the same one for
    all parameters: then it keeps to the span of the gradients it was given.

    Probed with gradients c_k v + d_k w of very different sizes, whose updates must be those of (c_k, d_k) themselves.
    """
    random = np.random.default_rng(0)
    v, w = (jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), a.dtype), params) for _ in range(2))
    weights = random.normal(size=(_PROBES, 2)) * np.array([[1e3], [1e-3], [1.0], [1e2]])
    gradients = [_tree.add(_tree.scale(c, v), _tree.scale(d, w)) for c, d in weights]
    updates = updates_of(optimiser, params, gradients)
    elsewhere = updates_of(optimiser, _tree.add(params, v), gradients)
    numbers = _of_numbers(optimiser, jnp.asarray(weights, jnp.result_type(*jax.tree.leaves(params))))
    wanted = [] if numbers is None else [_tree.add(_tree.scale(c, v), _tree.scale(d, w)) for c, d in numbers]
    if not all(map(_alike, updates, elsewhere)):
        raise ValueError(
            "FunctionSpace needs an optimiser that depends on gradients alone, got one whose updates depend on the "
            f"parameters, as weight decay does; {_REMEDY}."
        )
    if numbers is None or not all(map(_alike, updates, wanted)):
        raise ValueError(
            "FunctionSpace needs an optimiser that is linear in the gradients and the same for all parameters, got one "
            f"that is not, as Adam, clipping and rates of single tensors are not; {_REMEDY}."
        )
    if not _is_content(optimiser, params):
        raise ValueError(
            "FunctionSpace needs an optimiser of gradients and parameters alone, got one that asks for more, as line "
            f"searches and optax.contrib.reduce_on_plateau do for the loss; {_REMEDY}."
        )
    if _of_another_type(optimiser.init(params), params):
        raise ValueError(
            "FunctionSpace needs an optimiser that keeps vectors in the parameters' own types, got another one, such "
            f"as optax.MultiSteps with its usual accumulator_dtype; pass it the parameters' type, or {_REMEDY}."
        )


def _is_content(optimiser: optax.GradientTransformation, params: Params) -> bool:
    """Whether gradients, state and parameters are all that an optimiser asks for; nothing is computed."""
    try:
        jax.eval_shape(lambda p: optimiser.update(p, optimiser.init(p), p), params)
    except (TypeError, ValueError):
        return False
    return True


def _of_another_type(state: Any, params: Params) -> bool:
    """Whether an optimiser's state has a vector of weight space in another floating-point type."""
    parts = jax.tree.leaves(state, is_leaf=lambda part: _has_shapes(part, params))
    vectors = [part for part in parts if _has_shapes(part, params) and not _is_like(part, params)]
    return any(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(vectors))


def _of_numbers(optimiser: optax.GradientTransformation, weights: Array) -> list[Array] | None:
    """The updates of pairs of numbers, as both parts of a dual variable; `None` where these differ or cannot be."""
    gradients = [{"dual": pair[None], "carried": pair} for pair in weights]
    try:
        updates = updates_of(optimiser, jax.tree.map(jnp.zeros_like, gradients[0]), gradients)
    except (AttributeError, KeyError, TypeError, ValueError):  # of a mask over the parameters, for example
        return None
    if any(bool(jnp.any(update["dual"][0] != update["carried"])) for update in updates):
        return None
    return [update["carried"] for update in updates]


def _alike(one: Params, other: Params) -> bool:
    return bool(_tree.norm(_tree.subtract(one, other)) <= 1e-3 * _tree.norm(one))


def vectors_of(state: Any, params: Params) -> list[Params]:
    """The parts of an optimiser's state that are vectors of weight space, such as momentum."""
    return [part for part in jax.tree.leaves(state, is_leaf=lambda s: _is_like(s, params)) if _is_like(part, params)]


def to_dual(state: Any, params: Params, shape: tuple[int, ...], dtype: Any) -> Any:
    """The state with each of its vectors m_i as the i-th unit of `carried`."""
    count = len(vectors_of(state, params))
    units = iter(jnp.eye(count, dtype=dtype))
    zeros = jnp.zeros(shape, dtype)

    def converted(part: Any) -> Any:
        return {"dual": zeros, "carried": next(units)} if _is_like(part, params) else part

    return jax.tree.map(converted, state, is_leaf=lambda s: _is_like(s, params))


def from_dual(state: Any, like: Any, params: Params, to_weights: Any) -> Any:
    """The state of weight space again: `like` tells which of its parts are vectors."""
    duals = iter(jax.tree.leaves(state, is_leaf=_is_dual))

    def converted(part: Any) -> Any:
        found = next(duals)
        return to_weights(found) if _is_like(part, params) else found

    return jax.tree.map(converted, like, is_leaf=lambda s: _is_like(s, params))


def _has_shapes(part: Any, params: Params) -> bool:
    if jax.tree.structure(part) != jax.tree.structure(params):
        return False
    return jax.tree.map(jnp.shape, part) == jax.tree.map(jnp.shape, params)


def _is_like(part: Any, params: Params) -> bool:
    if not _has_shapes(part, params):
        return False
    return jax.tree.map(jnp.result_type, part) == jax.tree.map(jnp.result_type, params)


def _is_dual(part: Any) -> bool:
    return isinstance(part, dict) and part.keys() == {"dual", "carried"}
