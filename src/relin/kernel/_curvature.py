"""The largest curvature of the linearised problem, which bounds the learning rate."""

import equinox as eqx
import jax

from relin._core.context import Context
from relin._core.linearise import Linearisation
from relin._core.loss import AbstractLoss
from relin._core.types import Inputs, Key, Outputs, Params, Targets
from relin.kernel._largest import Largest, largest_eigenpair

Probe = tuple[Inputs, Targets]


def largest_curvature(context: Context, probe: Probe, start: Params, *, tolerance: float, max_products: int) -> Largest:
    """λ_max and its vector, of G = JᵀHJ/N, the Hessian in δ of the linearised network's mean loss on a probe of N.

    J is the Jacobian at the anchor, H the loss's Hessian in the outputs at the displacement. The arguments are
    otherwise those of `largest_eigenpair`.
    """
    (x, y), loss, linearised = probe, context.problem.loss, context.linearisation
    value, multiply = (_value, _product) if context.traced else (_compiled_value, _compiled_product)
    options = {"tolerance": tolerance, "max_products": max_products, "traced": context.traced}
    with jax.default_matmul_precision("highest"):  # TF32's rounding would keep the residual from its tolerance
        outputs = value(linearised, context.displacement, x)
        return largest_eigenpair(lambda vector: multiply(linearised, loss, outputs, x, y, vector), start, **options)


def _value(linearised: Linearisation, displacement: Params, x: Inputs) -> Outputs:
    return linearised.value(displacement, x)


def _product(
    linearised: Linearisation, loss: AbstractLoss, outputs: Outputs, x: Inputs, y: Targets, vector: Params
) -> Params:
    """G v."""
    curved = loss.hessian_product(outputs, y, linearised.jvp(vector, x))
    return linearised.vjp(x, curved / outputs.shape[0])


def noise(key: Key, params: Params) -> Params:
    """Normal numbers of the parameters' shapes: a start that no eigenvector is orthogonal to."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    numbers = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, numbers)


_compiled_value = eqx.filter_jit(_value)
_compiled_product = eqx.filter_jit(_product)
