"""The largest curvature of the linearised problem, which bounds the learning rate."""

import equinox as eqx
import jax

from relin._core.context import Context
from relin._core.linearise import Linearisation, LinearisedOutputs
from relin._core.loss import AbstractLoss
from relin._core.types import Inputs, Key, Outputs, Params, Targets
from relin.kernel._largest import Largest, largest_eigenpair

Probe = tuple[Inputs, Targets]


def largest_curvature(context: Context, probe: Probe, start: Params, *, tolerance: float, max_products: int) -> Largest:
    """λ_max and its vector, of G = JᵀHJ/N, the Hessian in δ of the linearised network's mean loss on a probe of N.

    J is the Jacobian at the anchor, H the loss's Hessian in the outputs at the displacement. The probe is linearised
    once; the arguments are otherwise those of `largest_eigenpair`.
    """
    (x, y), loss, traced = probe, context.problem.loss, context.traced
    linearise, multiply = (_linearised, _product) if traced else (_compiled_linearised, _compiled_product)
    with jax.default_matmul_precision("highest"):  # TF32's rounding would keep the residual from its tolerance
        linearised, outputs = linearise(context.linearisation, context.displacement, x)

        def product(vector: Params) -> Params:
            return multiply(loss, linearised, outputs, y, vector)

        return largest_eigenpair(product, start, tolerance=tolerance, max_products=max_products, traced=traced)


def _linearised(linearisation: Linearisation, displacement: Params, x: Inputs) -> tuple[LinearisedOutputs, Outputs]:
    return linearisation.on(x), linearisation.value(displacement, x)


def _product(loss: AbstractLoss, linearised: LinearisedOutputs, outputs: Outputs, y: Targets, vector: Params) -> Params:
    """G v."""
    curved = loss.hessian_product(outputs, y, linearised.pushforward(vector))
    return linearised.pullback(curved / outputs.shape[0], vector)


def noise(key: Key, params: Params) -> Params:
    """Normal numbers of the parameters' shapes: a start that no eigenvector is orthogonal to."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    numbers = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, numbers)


_compiled_linearised = eqx.filter_jit(_linearised)
_compiled_product = eqx.filter_jit(_product)
