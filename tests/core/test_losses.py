"""Losses against their closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relin as il

RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(size=(5, 4)) * 2
VECTOR = RANDOM.normal(size=(5, 4))
CLASSES = np.array([0, 3, 1, 1, 2])
ONE_HOT = np.eye(4)[CLASSES]
SOFT = RANDOM.dirichlet(np.ones(4), size=5)
VALUES = RANDOM.normal(size=(5, 4))


def softmax(f):
    exp = np.exp(f)
    return exp / exp.sum(1, keepdims=True)


def cross_entropy(distribution):
    """ℓ = −Σ q ln p, gradient p − q and Hessian diag(p) − ppᵀ, dense."""
    p = softmax(OUTPUTS)
    hessian = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    return -np.sum(distribution * np.log(p), axis=1), p - distribution, hessian


def squared_error(values):
    identity = np.broadcast_to(np.eye(4), (5, 4, 4))
    return 0.5 * np.sum((OUTPUTS - values) ** 2, axis=1), OUTPUTS - values, identity


CASES = {
    "classes": (il.CrossEntropy(), CLASSES, cross_entropy(ONE_HOT)),
    "one-hot": (il.CrossEntropy(), ONE_HOT, cross_entropy(ONE_HOT)),
    "soft": (il.CrossEntropy(), SOFT, cross_entropy(SOFT)),
    "smoothed classes": (il.CrossEntropy(0.2), CLASSES, cross_entropy(0.8 * ONE_HOT + 0.05)),
    "smoothed soft": (il.CrossEntropy(0.2), SOFT, cross_entropy(0.8 * SOFT + 0.05)),
    "values": (il.SquaredError(), VALUES, squared_error(VALUES)),
    "squared classes": (il.SquaredError(), CLASSES, squared_error(ONE_HOT)),
}


@pytest.mark.parametrize("name", CASES)
def test_value_gradient_and_hessian_equal_their_closed_forms(name):
    loss, targets, (value, gradient, hessian) = CASES[name]
    outputs, targets = jnp.asarray(OUTPUTS), jnp.asarray(targets)
    np.testing.assert_allclose(loss(outputs, targets), value, atol=1e-12)
    np.testing.assert_allclose(loss.mean(outputs, targets), value.mean(), atol=1e-12)
    np.testing.assert_allclose(loss.gradient(outputs, targets), gradient, atol=1e-12)
    product = loss.hessian_product(outputs, targets, jnp.asarray(VECTOR))
    np.testing.assert_allclose(product, np.einsum("bij,bj->bi", hessian, VECTOR), atol=1e-12)


class Huber(il.AbstractLoss):
    """A user's loss: gives the value only."""

    def __call__(self, outputs, targets):
        return jnp.sum(jnp.sqrt(1 + (outputs - targets) ** 2) - 1, axis=-1)

    def correct(self, outputs, targets):
        return None


@pytest.mark.parametrize("loss", [il.CrossEntropy(0.1), il.SquaredError(), Huber()])
def test_derivatives_are_those_of_finite_differences(loss):
    targets, outputs, vector, h = jnp.asarray(SOFT), jnp.asarray(OUTPUTS), jnp.asarray(VECTOR), 1e-5
    forward, backward = loss(outputs + h * vector, targets), loss(outputs - h * vector, targets)
    slope = np.sum(loss.gradient(outputs, targets) * vector, axis=1)
    np.testing.assert_allclose(slope, (forward - backward) / (2 * h), atol=1e-8)
    forward, backward = (loss.gradient(outputs + s * h * vector, targets) for s in (1, -1))
    np.testing.assert_allclose(
        loss.hessian_product(outputs, targets, vector), (forward - backward) / (2 * h), atol=1e-8
    )


def test_correct():
    outputs = jnp.asarray(OUTPUTS)
    agrees = OUTPUTS.argmax(1) == CLASSES
    assert 0 < agrees.sum() < 5
    for loss, targets in ((il.CrossEntropy(), CLASSES), (il.CrossEntropy(), ONE_HOT), (il.SquaredError(), CLASSES)):
        np.testing.assert_array_equal(loss.correct(outputs, jnp.asarray(targets)), agrees)
    assert il.SquaredError().correct(outputs, jnp.asarray(VALUES)) is None


def test_one_regression_value():
    outputs, targets = jnp.asarray([[1.0], [3.0]]), jnp.asarray([[0.0], [1.0]])
    np.testing.assert_allclose(il.SquaredError()(outputs, targets), [0.5, 2.0])


@pytest.mark.parametrize("loss", [il.CrossEntropy(), il.SquaredError()])
@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (jnp.zeros((5, 4)), jnp.zeros((5, 3)), r"must have shape \(5,\).*or \(5, 4\), got \(5, 3\); reshape"),
        (jnp.zeros((5, 4)), jnp.zeros((6,), int), r"got \(6,\); reshape"),
        (jnp.zeros((5, 4)), jnp.zeros((5,)), "must be integer classes, got float64; cast"),
        (jnp.zeros((5, 1)), jnp.zeros((5,)), r"must have shape \(5, 1\), got \(5,\); reshape"),
        (jnp.zeros((5,)), jnp.zeros((5,)), r"outputs of shape \(batch, C\), got \(5,\); reshape"),
    ],
)
def test_wrong_shapes_and_types_are_refused(loss, outputs, targets, message):
    with pytest.raises(ValueError, match=message):
        loss(outputs, targets)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_wrong_label_smoothing_is_refused(alpha):
    with pytest.raises(ValueError, match=r"at least 0 and less than 1, got .*; pass 0 for none"):
        il.CrossEntropy(alpha)


def test_the_means_gradient_is_divided_by_the_batch_size():
    outputs, targets = jnp.asarray(OUTPUTS), jnp.asarray(CLASSES)
    found = jax.jit(jax.grad(il.CrossEntropy().mean))(outputs, targets)
    np.testing.assert_allclose(found, (softmax(OUTPUTS) - ONE_HOT) / 5, atol=1e-12)
