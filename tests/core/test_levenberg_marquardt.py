"""Training by Gauss–Newton steps against loops over dense matrices, with the rule for λ written out."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import relin as il
from core import oracles
from core.quadratic import ENTROPY, SQUARED, Model, assert_near, values


def by_hand(loss, damping, adapt, params, batches):
    """Levenberg–Marquardt as in Madsen, Nielsen & Tingleff 2004: θ_T, and λ, ρ and the loss of every step."""
    dense, theta, growth, rows = oracles.dense_of(oracles.mlp), oracles.flat(params), 2.0, []
    for x, y in batches:
        model = Model(loss, theta, x, y)
        step = model.step(damping)
        before, after = (values(loss, dense.value(t, x), y) for t in (theta, theta + step))
        ratio = (before - after) / model.decrease(step)
        if not adapt or ratio > 0:
            theta = theta + step
        if adapt and ratio > 0:
            damping, growth = damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 2.0
        elif adapt:
            damping, growth = damping * growth, growth * 2
        rows.append((damping, ratio, before))
    return theta, np.asarray(rows)


def trained(loss, solver, params, **options):
    options = {"num_steps": 8, "key": oracles.KEY, "record_every": 1} | options
    return il.train(il.Problem(oracles.mlp, loss), solver, il.Every(1), params, oracles.data(loss), **options)


def hard_start():
    params = oracles.mlp_params()
    params["v"] *= 5
    return params


def test_levenberg_marquardt_adapts_and_rejects_by_the_gain_ratio():
    params, data = hard_start(), oracles.data(SQUARED)
    theta, rows = by_hand(SQUARED, 1e-3, True, params, [data] * 8)
    accepted = rows[:, 1] > 0
    assert accepted.tolist() == [False, False, True, False, True, True, True, True]  # ν = 2, 4, then 2 again
    solution = trained(SQUARED, il.GaussNewton(1e-3, adapt="levenberg-marquardt"), params)
    assert_near(oracles.flat(solution.params), theta, 1e-6)
    records = solution.records
    assert np.isnan(records["gain_ratio"][0])
    np.testing.assert_allclose(records["damping"], [1e-3, *rows[:, 0]], rtol=1e-5)
    np.testing.assert_allclose(records["gain_ratio"][1:], rows[:, 1], rtol=1e-4)
    np.testing.assert_allclose(records["training_loss"][1:], rows[:, 2], rtol=1e-6)
    assert np.all(np.diff(records["training_loss"][1:]) <= 0)
    assert np.all(np.diff(records["training_loss"][1:])[accepted[:-1]] < 0)
    assert np.all(np.diff(records["linear_iterations"]) > 0)
    assert records["solve_failed"].tolist() == [0] * 9


def test_a_step_that_is_not_finite_is_never_taken():
    """The factorisation of a singular matrix fails, at every step anew."""
    params, solver = oracles.mlp_params(), il.GaussNewton(0.0, space="weights", linear_solver=lx.Cholesky())
    solution = trained(SQUARED, solver, params, num_steps=3, record_every=None, throw=False)
    assert oracles.same_bits(solution.params, params)
    assert solution.records["solve_failed"].tolist() == [0, 3]
    assert solution.result is il.Result.solver_failed
    with pytest.raises(il.TrainingError, match="no step of GaussNewton could be taken, since none was finite; pass"):
        solution.throw()


def test_lanes_of_minibatches_equal_dense_loops():
    dampings = jnp.asarray([0.03, 1.0])

    def make(damping):
        solver = il.GaussNewton(damping, adapt="levenberg-marquardt", space="weights")
        return il.Run(il.Problem(oracles.mlp, ENTROPY), solver, il.Every(1), hard_start(), oracles.KEY)

    data = oracles.data(ENTROPY)
    lanes = il.train_lanes(make, dampings, data, drive="map", num_steps=6, batch_size=oracles.BATCH)
    batches = oracles.minibatches(*data, 6)
    for damping, lane in zip(dampings.tolist(), lanes, strict=True):
        theta, rows = by_hand(ENTROPY, damping, True, hard_start(), batches)
        assert_near(oracles.flat(lane.params), theta, 1e-6)
        assert lane.records["damping"][-1] == pytest.approx(rows[-1, 0], rel=1e-5)
        assert lane.feature_updates == 5


def test_without_adapting_every_step_is_taken_from_the_host_too():
    params = hard_start()
    theta, rows = by_hand(ENTROPY, 0.03, False, params, oracles.minibatches(*oracles.data(ENTROPY), 4))
    assert rows[:, 1].min() < 0 < rows[:, 1].max()
    solution = trained(ENTROPY, il.GaussNewton(0.03), params, num_steps=4, batch_size=oracles.BATCH, drive="host")
    assert_near(oracles.flat(solution.params), theta, 1e-6)
    assert set(solution.records["damping"]) == {0.03}
