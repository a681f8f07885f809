"""The contract of losses: what breaks it is refused before training, without compiling."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core.own_losses import (
    KEY,
    RANDOM,
    VALUES,
    ClassWeights,
    N,
    log_softmax,
    trained_on_values,
)
from relin._core import interpret, loss_contract


class BatchMean(il.AbstractLoss):
    def __call__(self, outputs, targets):
        return jnp.mean((outputs - targets) ** 2)

    def correct(self, outputs, targets):
        return None


class PerOutput(BatchMean):
    def __call__(self, outputs, targets):
        return (outputs - targets) ** 2


class Counting(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(outputs > targets, -1)


class ByPosition(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum((outputs - targets) ** 2, -1)

    def correct(self, outputs, targets):
        return outputs > targets


class Normalised(BatchMean):
    def __call__(self, outputs, targets):
        weights = jnp.abs(targets[:, 0])
        return weights / jnp.sum(weights) * jnp.sum((outputs - targets) ** 2, -1)


class Contrastive(BatchMean):
    def __call__(self, outputs, targets):
        return -jnp.diagonal(log_softmax(outputs @ targets.T))


class OwnMean(ByPosition):
    def correct(self, outputs, targets):
        return None

    def mean(self, outputs, targets):
        return jnp.sum(self(outputs, targets)) / 3


class Detached(BatchMean):
    def __call__(self, outputs, targets):
        errors = jnp.sum((outputs - targets) ** 2, -1)
        return jax.lax.stop_gradient(errors) * errors


@jax.custom_vjp
def straight_through(x):
    return jnp.sin(x)


straight_through.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (g,))


class StraightThrough(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(straight_through(outputs - targets), -1)


class OfThisBatch(BatchMean):
    weights: jax.Array = eqx.field(default_factory=lambda: jnp.ones(N))

    def __call__(self, outputs, targets):
        return self.weights * jnp.sum((outputs - targets) ** 2, -1)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (BatchMean(), ValueError, r"one floating-point value for each example, shape \(8,\), got one number for the b"),
        (PerOutput(), ValueError, r"shape \(8,\), got shape \(8, 3\); sum or average over all axes but the first"),
        (Counting(), TypeError, r"shape \(8,\), got int64 of shape \(8,\); return one array, of the outputs' type"),
        (ByPosition(), ValueError, r"`correct` must return .*shape \(8,\), or None, got bool of shape \(8, 3\); aver"),
        (Normalised(), ValueError, r"depend on its own example alone, got .* by itself and .* among 8; do not normal"),
        (Contrastive(), ValueError, "depend on its own example alone"),
        (OwnMean(), ValueError, "`mean` must be the mean of the loss over the batch, got .*; leave `mean` as it is"),
        (
            Detached(),
            ValueError,
            "gradient must be that of its values, got a slope of .* where finite .*; check its",
        ),
        (StraightThrough(), ValueError, "gradient must be that of its values"),
        (OfThisBatch(), ValueError, "must take any number of examples, got an error for 1: .* Put what differs"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, il.AbstractLoss) else "",
)
def test_a_loss_that_breaks_its_contract_is_refused(loss, error, message):
    with pytest.raises(error, match=message):
        trained_on_values(loss)


class Absolute(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(jnp.abs(outputs - targets), -1)


class Rounded(BatchMean):
    def __call__(self, outputs, targets):
        residual = (outputs - targets).astype(jnp.bfloat16).astype(jnp.float32)
        return jnp.sum(residual**2, -1)


class Probabilities(BatchMean):
    def __call__(self, outputs, targets):
        return -jnp.sum(jnp.log(outputs) + jnp.log1p(-outputs), -1)


@jax.custom_vjp
def squares(x):
    return x**2


squares.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


class BackwardOnly(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(squares(outputs - targets), -1)


class MultiLabel(BatchMean):
    def __call__(self, outputs, targets):
        return optax.losses.sigmoid_binary_cross_entropy(outputs, targets).sum(-1)


@pytest.mark.parametrize("loss", [Absolute(), Rounded(), Probabilities(), BackwardOnly(), MultiLabel()])
def test_a_loss_that_keeps_it_is_not(loss):
    shape = jax.ShapeDtypeStruct((N, 3), jnp.float32)
    loss_contract.check_contract(loss, shape, jnp.asarray(VALUES[:, :3] > 0, jnp.float32))


def test_a_loss_with_a_backward_rule_alone_trains():
    found, wanted = (trained_on_values(loss).params["w"] for loss in (BackwardOnly(), il.SquaredError()))
    assert not np.array_equal(found, wanted)
    solver = il.WeightSpace(optax.sgd(0.2))  # squares are twice ½ squares
    problem, data = il.Problem(lambda p, x: x @ p["w"], il.SquaredError()), (VALUES, VALUES[:, :3])
    wanted = il.train(problem, solver, il.Every(2), {"w": jnp.zeros((4, 3))}, data, num_steps=4, key=KEY).params["w"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_contract_is_tried_once(monkeypatch):
    tried = []
    original = loss_contract._try
    monkeypatch.setattr(loss_contract, "_try", lambda *a: tried.append(original(*a)))
    shape, targets = jax.ShapeDtypeStruct((N, 2), jnp.float32), jnp.zeros((N, 2))
    for loss in (ClassWeights(jnp.ones(2)), ClassWeights(jnp.zeros(2)), ClassWeights(jnp.ones(3))):
        loss_contract.check_contract(loss, shape, targets[:, 0].astype(int))
    assert len(tried) == 2  # the second differs from the first in values alone


class Given(BatchMean):
    function: Callable = eqx.field(static=True)

    def __call__(self, outputs, targets):
        return self.function(outputs, targets)


OPERATIONS = {
    "cross-entropy": optax.losses.softmax_cross_entropy_with_integer_labels,
    "poly": lambda f, y: optax.losses.poly_loss_cross_entropy(f, jax.nn.one_hot(y, 3)),
    "focal": lambda f, y: optax.losses.sigmoid_focal_loss(f, jax.nn.one_hot(y, 3), alpha=0.3).sum(-1),
    "huber": lambda f, y: optax.losses.huber_loss(f, jax.nn.one_hot(y, 3)).sum(-1),
    "hinge": lambda f, y: jnp.maximum(0, 1 - f[jnp.arange(len(y)), y] + f.min(-1)),
    "out of range": lambda f, y: jnp.nan_to_num(jnp.take_along_axis(f, 2 * y[:, None], 1)[:, 0]),
    "clipped": lambda f, y: jnp.take(f, 2, axis=1, mode="clip") * jnp.clip(f[:, 0], -0.5, 0.5),
    "ordinal": lambda f, y: -jax.nn.log_sigmoid(jnp.cumsum(f, -1)).sum(-1) + jax.scipy.special.gammaln(1.0 + y),
    "matrix": lambda f, y: jnp.einsum("ni,ij,nj->n", f, jnp.arange(9.0).reshape(3, 3), f),
    "concatenated": lambda f, y: jax.nn.logsumexp(jnp.concatenate([f, jnp.zeros((len(y), 1))], 1), 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_losses_are_tried_without_compiling(name):
    """NumPy's numbers are those of a compiled program."""
    loss, (f, v) = Given(OPERATIONS[name]), (RANDOM.normal(size=(N, 3)) for _ in range(2))
    arguments = f, np.arange(N) % 3, v, 1e-3
    found = interpret.interpreted(lambda *a: loss_contract._tried(loss, *a), *arguments)
    wanted = loss_contract._compiled(loss, *map(jnp.asarray, arguments))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)
