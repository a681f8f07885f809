"""Gauss–Newton steps for the cross-entropy with one row an example, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relin as il
from core import oracles
from core.quadratic import ENTROPY, Model, assert_near, duplicated, one_step
from relin._core.loss import OneRowCrossEntropy


def one_row(outputs, y):
    """p (1 − p) g gᵀ of every example in closed form, `(N, C, C)`."""
    odds, own = np.exp(np.asarray(outputs)), np.eye(outputs.shape[1], dtype=bool)[np.asarray(y)]
    p, others = (odds * own).sum(1) / odds.sum(1), np.where(own, 0, odds)
    g = own - others / others.sum(1, keepdims=True)
    return (p * (1 - p))[:, None, None] * g[:, :, None] * g[:, None, :]


def dense(loss, outputs, y):
    """H of every example by its products, as (examples, outputs, outputs)."""
    one = lambda e: loss.hessian_product(outputs, y, jnp.broadcast_to(e.reshape(outputs.shape[1:]), outputs.shape))  # noqa: E731
    basis = jnp.eye(outputs[0].size)
    return np.stack([np.asarray(one(e)).reshape(len(outputs), -1) for e in basis], axis=-1)


def test_the_row_is_that_of_the_class_against_the_rest():
    f, y = jax.random.normal(jax.random.key(0), (6, 5)) * 3, jnp.arange(6) % 5
    found, whole = dense(OneRowCrossEntropy(), f, y), dense(ENTROPY, f, y)
    np.testing.assert_allclose(found, one_row(f, y), rtol=1e-12, atol=1e-15)
    others = np.where(np.eye(5, dtype=bool)[np.asarray(y)], 0, np.exp(np.asarray(f)))
    s = others / others.sum(1, keepdims=True)
    wrong = 1 - np.take_along_axis(np.asarray(jax.nn.softmax(f)), np.asarray(y)[:, None], 1)[:, :, None]
    left_out = wrong * (s[:, :, None] * (np.eye(5) - s[:, None, :]))
    np.testing.assert_allclose(whole, found + left_out, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(OneRowCrossEntropy().gradient(f, y), ENTROPY.gradient(f, y))


def test_with_two_classes_it_is_the_whole():
    f, y = jax.random.normal(jax.random.key(1), (6, 2)), jnp.arange(6) % 2
    np.testing.assert_allclose(dense(OneRowCrossEntropy(), f, y), dense(ENTROPY, f, y), rtol=1e-12)


def test_a_certain_class_keeps_its_curvature():
    """1 − p is far below rounding."""
    f, y = jnp.array([[60.0, 0.0, 1.0]]), jnp.array([0])
    np.testing.assert_allclose(dense(OneRowCrossEntropy(), f, y)[0, 0, 0], np.exp(-60) + np.exp(-59), rtol=1e-12)


def test_a_class_whose_others_are_masked_has_no_curvature():
    f, y = jnp.array([[1.0, -jnp.inf, -jnp.inf], [1.0, 2.0, -jnp.inf]]), jnp.array([0, 1])
    found = dense(OneRowCrossEntropy(), f, y)
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], dense(ENTROPY, f, y)[1], rtol=1e-12)


@pytest.mark.parametrize("flat", [False, True])
def test_at_several_positions(flat):
    f, y = jax.random.normal(jax.random.key(2), (3, 4, 5)), jax.random.randint(jax.random.key(3), (3, 4), 0, 5)
    found = dense(OneRowCrossEntropy(), f.reshape(3, 20) if flat else f, y)
    wanted = np.zeros((3, 4, 5, 4, 5))
    for position in range(4):
        wanted[:, position, :, position] = one_row(f[:, position], y[:, position]) / 4
    np.testing.assert_allclose(found, wanted.reshape(3, 20, 20), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("space", ["weights", "functions"])
@pytest.mark.parametrize("damping", [1e-4, 0.1, 1e6])
def test_a_step_is_the_dense_one(damping, space):
    x, y = duplicated(ENTROPY)
    model = Model(ENTROPY, oracles.flat(oracles.mlp_params()), x, y)
    rows = one_row(model.outputs, y)
    model.gauss_newton = np.einsum("ncp,ncd,ndq->pq", model.jacobian, rows, model.jacobian) / len(x)
    found, measures, value = one_step(ENTROPY, damping, (x, y), space=space, curvature="one-row")
    assert_near(found, model.step(damping), 1e-8)
    after = float(ENTROPY.mean(oracles.dense_of(oracles.mlp).value(oracles.flat(oracles.mlp_params()) + found, x), y))
    assert measures["gain_ratio"] == pytest.approx((value - after) / model.decrease(found), rel=1e-6)
    assert measures["solve_failed"] == 0


def train(loss, y, solver):
    x = oracles.data(ENTROPY)[0]
    il.train(
        il.Problem(oracles.mlp, loss), solver, il.Every(1), oracles.mlp_params(), (x, y), num_steps=2, key=oracles.KEY
    )


@pytest.mark.parametrize("loss", [il.SquaredError(), il.CrossEntropy(label_smoothing=0.1)])
def test_other_losses_are_refused(loss):
    with pytest.raises(
        ValueError, match=r'curvature="one-row" is that of CrossEntropy\(\), got .*; pass curvature="whole"'
    ):
        train(loss, oracles.data(ENTROPY)[1], il.GaussNewton(1.0, curvature="one-row"))


def test_distributions_are_refused():
    classes = oracles.data(ENTROPY)[1]
    with pytest.raises(
        ValueError, match=r'takes integer classes, got distributions; pass classes, or curvature="whole"'
    ):
        train(ENTROPY, jax.nn.one_hot(classes, 3), il.GaussNewton(1.0, curvature="one-row"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "row"}, "`curvature` must be one of .* got 'row'; pass one"),
        ({"curvature": "one-row", "loss_model": "convex"}, 'loss_model="convex" minimises .*; pass curvature="whole"'),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        il.GaussNewton(1.0, **options)
