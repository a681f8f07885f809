"""The curvature of the linearised problem, which bounds the learning rate."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from relin._core import tree as _tree
from relin._core.context import Context
from relin._core.types import Inputs, Params, Scalar, State, Targets
from relin._observer._base import AbstractObserver


class Sharpness(AbstractObserver):
    """λ_max of JᵀHJ/N, the Hessian in δ of the linearised network's mean loss on a probe set, as `sharpness`.

    J is the Jacobian at the anchor and H the loss's Hessian in the outputs f̄_t. Gradient descent on the linearised
    problem is stable at learning rates below 2/λ_max, with momentum β below 2 (1 + β)/λ_max. Found by power iteration
    (Golub & Van Loan 2013, section 8.2), which approaches it from below.

    **Arguments:**

    - `probe`: inputs and targets `(x, y)`; N of them.
    - `tolerance`: the iteration ends when λ changes by less than this, relatively.
    - `max_iterations`: each costs about as much as two steps on the probe.
    """

    probe: tuple[Inputs, Targets]
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_iterations: int = eqx.field(static=True, default=100)

    def __init__(self, probe: tuple[Inputs, Targets], tolerance: float = 1e-3, max_iterations: int = 100):
        if not tolerance > 0:
            raise ValueError(f"`tolerance` must be above 0, got {tolerance}; 1e-3 is usual.")
        if not max_iterations >= 1:
            raise ValueError(f"`max_iterations` must be at least 1, got {max_iterations}; 100 is usual.")
        self.probe = jax.tree.map(jnp.asarray, probe)
        self.tolerance, self.max_iterations = tolerance, max_iterations

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        return {"probe": self.probe}

    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        start = _unit(_noise(context.anchor))
        product = _product if context.traced else _compiled_product
        first, vector = product(context, self.probe, start)
        carry = jnp.ones((), jnp.int32), jnp.zeros_like(first), first, vector
        if context.traced:
            better = partial(self._better, product, context)
            *_, sharpness, _ = jax.lax.while_loop(lambda c: self._unsettled(c), lambda c: better(c), carry)
        else:
            while self._unsettled(carry):
                carry = self._better(product, context, carry)
            sharpness = carry[2]
        return {"sharpness": sharpness}, state

    def _unsettled(self, carry: tuple[Array, Scalar, Scalar, Params]) -> Array:
        count, before, now, _ = carry
        return (count < self.max_iterations) & (jnp.abs(now - before) > self.tolerance * jnp.abs(now))

    def _better(self, product: Any, context: Context, carry: tuple[Array, Scalar, Scalar, Params]) -> Any:
        count, _, before, vector = carry
        now, vector = product(context, self.probe, vector)
        return count + 1, before, now, vector


def _product(context: Context, probe: tuple[Inputs, Targets], vector: Params) -> tuple[Scalar, Params]:
    """vᵀ G v and G v / ‖G v‖ of a unit vector v, with G = JᵀHJ/N."""
    x, y = probe
    linearised, loss = context.linearisation, context.problem.loss
    tangent = linearised.jvp(vector, x)
    outputs = linearised.value(context.displacement, x)
    curved = loss.hessian_product(outputs, y, tangent) / outputs.shape[0]
    return jnp.vdot(tangent, curved), _unit(linearised.vjp(x, curved))


_compiled_product = eqx.filter_jit(_product)


def _unit(vector: Params) -> Params:
    length = _tree.norm(vector)
    return _tree.scale(1 / jnp.where(length > 0, length, 1.0), vector)


def _noise(params: Params) -> Params:
    """Normal numbers of the parameters' shapes: a start that no eigenvector is orthogonal to."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    noise = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, noise)
