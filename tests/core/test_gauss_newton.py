"""Damped Gauss–Newton steps against dense matrices."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

import relin as il
from core import oracles

SPACES = ("weights", "functions")
LOSSES = {"squares": il.SquaredError(), "entropy": il.CrossEntropy()}


def trained(loss, solver, num_steps=1, data=None, **options):
    problem, data = il.Problem(oracles.mlp, loss), oracles.data(loss) if data is None else data
    options = {"key": oracles.KEY} | options
    return il.train(problem, solver, il.Every(1), oracles.mlp_params(), data, num_steps=num_steps, **options)


class Dense:
    """The linearised problem at some parameters as matrices: J, f, and the loss's derivatives by JAX."""

    def __init__(self, loss, params, x, y):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        self.loss, self.y, self.num_examples = loss, y, len(x)
        self.jacobian = np.asarray(jax.jacobian(lambda p: oracles.mlp(unravel(p), x).reshape(-1))(flat))
        self.outputs = np.asarray(oracles.mlp(params, x))

        def total(outputs):
            return oracles.mean_loss(loss, outputs.reshape(self.outputs.shape), y)

        self.total, self.slope, self.hessian = total, jax.grad(total), jax.hessian(total)

    def gauss_newton(self, damping):
        slope, hessian = (np.asarray(d(self.outputs.reshape(-1))) for d in (self.slope, self.hessian))
        matrix = self.jacobian.T @ hessian @ self.jacobian
        gradient = self.jacobian.T @ slope
        if damping == 0:
            return -np.linalg.pinv(matrix, rcond=1e-11) @ gradient
        return -np.linalg.solve(matrix + damping * np.eye(len(matrix)), gradient)

    def value(self, displacement, damping=0.0):
        outputs = self.outputs.reshape(-1) + self.jacobian @ displacement
        return float(self.total(jnp.asarray(outputs))) + 0.5 * damping * displacement @ displacement

    def solved(self, damping):
        def gradient(d):
            slope = np.asarray(self.slope(jnp.asarray(self.outputs.reshape(-1) + self.jacobian @ d)))
            return self.jacobian.T @ slope + damping * d

        start = np.zeros(self.jacobian.shape[1])
        found = minimize(lambda d: self.value(d, damping), start, jac=gradient, method="BFGS", options={"gtol": 1e-10})
        return found.x

    def quadratic(self, displacement):
        slope, hessian = (np.asarray(d(self.outputs.reshape(-1))) for d in (self.slope, self.hessian))
        change = self.jacobian @ displacement
        return self.value(np.zeros_like(displacement)) + slope @ change + 0.5 * change @ hessian @ change


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_is_the_dense_solve(loss, space):
    loss = LOSSES[loss]
    dense = Dense(loss, oracles.mlp_params(), *oracles.data(loss))
    for damping in (1e-3, 0.3):
        solution = trained(loss, il.GaussNewton(damping, space=space))
        np.testing.assert_allclose(oracles.flat(solution.displacement), dense.gauss_newton(damping), atol=1e-8)
        assert solution.records["unsolved"][-1] == 0
        assert solution.records["linear_iterations"][-1] > 0
    large = oracles.flat(trained(loss, il.GaussNewton(1e7, space=space)).displacement)
    gradient = dense.jacobian.T @ np.asarray(dense.slope(dense.outputs.reshape(-1)))
    np.testing.assert_allclose(large, -gradient / 1e7, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_convex_problem_solved_is_the_minimum_scipy_finds(loss, space):
    loss = LOSSES[loss]
    dense = Dense(loss, oracles.mlp_params(), *oracles.data(loss))
    found = oracles.flat(trained(loss, il.GaussNewton(0.01, loss_model="convex", space=space)).displacement)
    np.testing.assert_allclose(found, dense.solved(0.01), atol=1e-6)
    quadratic = dense.gauss_newton(0.01)
    if isinstance(loss, il.SquaredError):
        np.testing.assert_allclose(found, quadratic, atol=1e-8)
    else:
        assert np.abs(found - quadratic).max() > 1e-2


@pytest.mark.parametrize("space", SPACES)
def test_without_damping_it_is_the_minimum_norm_step_and_that_of_infinite_descent(space):
    x, y = oracles.data(il.SquaredError())
    data = jnp.concatenate([x[:5], x[:2]]), jnp.concatenate([y[:5], y[:2] + 1])  # examples that contradict others
    step = oracles.flat(trained(il.SquaredError(), il.GaussNewton(0.0, space=space), data=data).displacement)
    dense = Dense(il.SquaredError(), oracles.mlp_params(), *data)
    np.testing.assert_allclose(step, dense.gauss_newton(0.0), atol=1e-6)
    problem = il.Problem(oracles.mlp, il.SquaredError())
    descent, options = il.SpectralDescent(0.01, method="eigh"), {"num_steps": float("inf"), "key": oracles.KEY}
    limit = il.train(problem, descent, il.Never(), oracles.mlp_params(), data, **options)
    np.testing.assert_allclose(step, oracles.flat(limit.displacement), atol=1e-6)


def test_minibatches_and_lanes_equal_steps_one_by_one():
    loss, damping = il.CrossEntropy(), 0.1
    params = oracles.mlp_params()
    for x, y in oracles.minibatches(*oracles.data(loss), 4):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        params = unravel(flat + Dense(loss, params, x, y).gauss_newton(damping))
    alone = trained(loss, il.GaussNewton(damping), 4, batch_size=oracles.BATCH)
    np.testing.assert_allclose(oracles.flat(alone.params), oracles.flat(params), atol=1e-8)
    assert alone.feature_updates == 3

    def make(lane):
        problem = il.Problem(oracles.mlp, loss)
        return il.Run(problem, il.GaussNewton(lane), il.Every(1), oracles.mlp_params(), oracles.KEY)

    options = {"num_steps": 4, "batch_size": oracles.BATCH}
    lanes = il.train_lanes(make, jnp.asarray([damping, 1.0]), oracles.data(loss), drive="vmap", **options)
    np.testing.assert_allclose(oracles.flat(lanes[0].params), oracles.flat(params), atol=1e-8)


@pytest.mark.parametrize("loss_model", ["quadratic", "convex"])
def test_levenberg_marquardt_follows_the_gain_ratio(loss_model):
    """Nielsen's rule by hand, from a damping so small that the first steps are refused."""
    loss, num_steps = il.CrossEntropy(), 6
    params = jax.tree.map(lambda p: 3 * p, oracles.mlp_params())
    x, y = oracles.data(loss)
    solver = il.GaussNewton(1e-4, "levenberg-marquardt", loss_model)
    problem = il.Problem(oracles.mlp, loss)
    options = {"num_steps": num_steps, "key": oracles.KEY, "record_every": 1}
    solution = il.train(problem, solver, il.Every(1), params, (x, y), **options)
    damping, factor, refused = 1e-4, 2.0, 0
    for step in range(1, num_steps + 1):
        dense = Dense(loss, params, x, y)
        displacement = dense.gauss_newton(damping) if loss_model == "quadratic" else dense.solved(damping)
        model = dense.quadratic if loss_model == "quadratic" else dense.value
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        moved = unravel(flat + displacement)
        actual = float(
            oracles.mean_loss(loss, oracles.mlp(params, x), y) - oracles.mean_loss(loss, oracles.mlp(moved, x), y)
        )
        gain = actual / (dense.value(0 * displacement) - model(displacement))
        np.testing.assert_allclose(solution.records["gain_ratio"][step], gain, rtol=2e-3)
        if gain > 0:
            params, damping, factor = moved, damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
        else:
            damping, factor, refused = damping * factor, 2 * factor, refused + 1
        np.testing.assert_allclose(solution.records["damping"][step], damping, rtol=1e-3)
    assert 0 < refused < num_steps
    np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(params), atol=1e-4)


def test_a_failed_solve_is_counted_and_nothing_infinite_is_taken():
    loss = il.CrossEntropy()
    short = il.GaussNewton(1e-3, linear_solver=lx.CG(1e-10, 1e-10, max_steps=2))
    solution = trained(loss, short, 3)
    assert solution.records["unsolved"][-1] == 3
    assert np.all(np.isfinite(oracles.flat(solution.params)))

    def broken(params, x):
        return oracles.mlp(params, x) + 0 * jnp.sqrt(params["b"].sum() * 0)  # an infinite derivative times zero

    problem = il.Problem(broken, loss)
    options = {"num_steps": 2, "key": oracles.KEY}
    solution = il.train(problem, il.GaussNewton(0.1), il.Every(1), oracles.mlp_params(), oracles.data(loss), **options)
    assert solution.records["unsolved"][-1] == 2
    assert oracles.same_bits(solution.params, oracles.mlp_params())


def test_any_lineax_solver():
    loss = il.SquaredError()
    expected = Dense(loss, oracles.mlp_params(), *oracles.data(loss)).gauss_newton(0.1)
    found = trained(loss, il.GaussNewton(0.1, space="functions", linear_solver=lx.Cholesky()))
    np.testing.assert_allclose(oracles.flat(found.displacement), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: il.GaussNewton(-1.0), "`damping` must be at least 0"),
        (lambda: il.GaussNewton(0.0, "levenberg-marquardt"), "must begin above 0"),
        (lambda: il.GaussNewton(0.1, space="outputs"), "`space` must be one of .*, got 'outputs'"),
        (lambda: trained_with(il.Every(3)), r"GaussNewton solves each .* pass Every\(1\), or"),
        (lambda: trained_with(il.Never()), r"GaussNewton solves each .* pass Every\(1\), or"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def trained_with(schedule):
    loss = il.SquaredError()
    problem, data = il.Problem(oracles.mlp, loss), oracles.data(loss)
    solver = il.GaussNewton(0.1)
    return il.train(problem, solver, schedule, oracles.mlp_params(), data, num_steps=3, key=oracles.KEY)


def test_steps_of_descent_match_damping_of_one_over_rate_times_steps():
    """1 − (1 − ηa)^K against a/(a + λ) at λ = 1/(ηK): method.md, "Gauss–Newton"."""
    loss = il.SquaredError()
    problem, data = il.Problem(oracles.mlp, loss), oracles.data(loss)
    rate, steps = 0.01, 500
    options = {"num_steps": steps, "key": oracles.KEY}
    descended = il.train(problem, il.WeightSpace(optax.sgd(rate)), il.Never(), oracles.mlp_params(), data, **options)
    descended = oracles.flat(descended.displacement)
    dampings = 1 / (rate * steps) * np.array([0.1, 1.0, 10.0])
    distances = [
        np.linalg.norm(oracles.flat(trained(loss, il.GaussNewton(d)).displacement) - descended) for d in dampings
    ]
    assert np.argmin(distances) == 1
