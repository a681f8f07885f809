"""Many steps of gradient descent at once, against the steps one by one on a dense linear model."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import expm

import relin as il
from core import oracles
from relin._solver._filters import Descent, expand

LOSS = il.SquaredError()
X, Y = oracles.data(LOSS)
METHODS = ("chebyshev", "eigh")


def trained(solver, schedule, num_steps, params=None, data=(X, Y), **options):
    params = oracles.mlp_params() if params is None else params
    problem = il.Problem(oracles.mlp, LOSS)
    return il.train(problem, solver, schedule, params, data, num_steps=num_steps, key=oracles.KEY, **options)


def dense(params, x=X, y=Y):
    """J as a matrix, and f − y as a vector, at an anchor."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.jacobian(lambda p: oracles.mlp(unravel(p), x).reshape(-1))(flat)
    return np.asarray(jacobian), np.asarray(oracles.mlp(params, x) - y).reshape(-1), unravel


def stepped(rate, momentum, period, num_steps):
    """The parameters after descent step by step with the dense Jacobian of each anchor."""
    params, velocity = oracles.mlp_params(), 0.0
    for start in range(0, num_steps, period):
        jacobian, residual, unravel = dense(params)
        displacement = np.zeros(jacobian.shape[1])
        for _ in range(min(period, num_steps - start)):
            gradient = jacobian.T @ (residual + jacobian @ displacement) / len(X)
            velocity = momentum * velocity + gradient
            displacement = displacement - rate * velocity
        params = unravel(jax.flatten_util.ravel_pytree(params)[0] + displacement)
    return oracles.flat(params)


def limit():
    """2/λ_max at the start."""
    jacobian, _, _ = dense(oracles.mlp_params())
    return 2 / np.linalg.eigvalsh(jacobian.T @ jacobian / len(X))[-1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("num_steps", "period", "momentum"),
    [(1, 1, 0.0), (7, 7, 0.9), (300, 300, 0.0), (5000, 5000, 0.0), (5000, 5000, 0.9), (300, 110, 0.0), (300, 110, 0.8)],
)
def test_equals_the_steps_one_by_one(method, num_steps, period, momentum):
    rate = 0.4 * limit()
    solver = il.SpectralDescent(rate, momentum, method=method)
    solution = trained(solver, il.Every(period), num_steps)
    expected = stepped(rate, momentum, period, num_steps)
    np.testing.assert_allclose(oracles.flat(solution.params), expected, atol=1e-8)
    assert solution.feature_updates == -(-num_steps // period) - 1


def test_equals_weight_space_with_learning_curves_and_a_schedule_that_asks():
    rate = 0.5 * limit()
    schedule = il.WhenError(0.05, check_every=5)
    options = {"record_every": 7, "observers": [il.Performance((X, Y))]}
    spectral = trained(il.SpectralDescent(rate), schedule, 40, **options)
    stepwise = trained(il.WeightSpace(optax.sgd(rate)), schedule, 40, **options)
    assert spectral.feature_updates == stepwise.feature_updates > 0
    for name in ("step", "feature_updates", "test_loss"):
        np.testing.assert_allclose(spectral.records[name], stepwise.records[name], rtol=1e-8)
    assert np.all(np.diff(spectral.records["kernel_products"]) > 0)
    assert np.all(spectral.records["spectral_error"] < 1e-11)
    lazy = trained(il.SpectralDescent(rate), il.Never(), 40)
    np.testing.assert_allclose(lazy.records["largest_rate"], [np.nan, limit()], rtol=1e-3)


def test_the_velocity_may_start_anew():
    rate = 0.3 * limit()
    keep, reset = (
        trained(il.SpectralDescent(rate, 0.9, on_relinearise=on), il.Every(20), 40) for on in ("keep", "reset")
    )
    solver = il.WeightSpace(optax.sgd(rate, momentum=0.9), on_relinearise="reset")
    expected = oracles.flat(trained(solver, il.Every(20), 40).params)
    np.testing.assert_allclose(oracles.flat(reset.params), expected, atol=1e-9)
    assert np.abs(oracles.flat(keep.params) - expected).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_gradient_flow(method):
    solution = trained(il.SpectralDescent(0.7, steps="flow", method=method), il.Never(), 30)
    jacobian, residual, _ = dense(oracles.mlp_params())
    decayed = expm(-jacobian @ jacobian.T / len(X) * 0.7 * 30) @ residual
    np.testing.assert_allclose(residual + jacobian @ oracles.flat(solution.displacement), decayed, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_infinitely_many_steps_are_the_pseudo_inverse_also_with_duplicate_examples(method, momentum):
    x, y = jnp.concatenate([X[:5], X[:2]]), jnp.concatenate([Y[:5], Y[:2] + 1])
    solution = trained(il.SpectralDescent(0.01, momentum, method=method), il.Never(), math.inf, data=(x, y))
    jacobian, residual, _ = dense(oracles.mlp_params(), x, y)
    expected = -np.linalg.pinv(jacobian, rcond=1e-10) @ residual
    np.testing.assert_allclose(oracles.flat(solution.displacement), expected, atol=1e-7)
    assert solution.records["step"].tolist() == [0, math.inf]
    assert solution.records["spectral_error"][-1] < 1e-9


def test_a_million_steps_are_nearly_infinitely_many():
    rate = 0.9 * limit()
    steps = {method: trained(il.SpectralDescent(rate, method=method), il.Never(), 10**6) for method in METHODS}
    one, other = (oracles.flat(steps[method].displacement) for method in METHODS)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert steps["chebyshev"].records["kernel_products"][-1] < 10**4


@pytest.mark.parametrize("method", METHODS)
def test_a_rate_above_the_limit_is_followed_and_then_the_divergence_it_is(method):
    rate = 1.02 * limit()
    solution = trained(il.SpectralDescent(rate, method=method), il.Never(), 100)
    np.testing.assert_allclose(oracles.flat(solution.params), stepped(rate, 0.0, 100, 100), rtol=1e-8, atol=1e-8)
    diverged = trained(il.SpectralDescent(rate, method=method), il.Never(), 10**5, throw=False)
    assert diverged.result is il.Result.diverged
    growth = abs(1 - 2 * 1.02)
    assert abs(diverged.diverged_at - math.log(2**52) / math.log(growth)) < 20
    assert oracles.same_bits(diverged.params, oracles.mlp_params())
    with pytest.raises(il.TrainingError, match="lower the learning rate"):
        trained(il.SpectralDescent(rate, method=method), il.Never(), math.inf)


def test_single_precision_follows_ten_thousand_steps():
    single = jax.tree.map(lambda a: a.astype(np.float32), (oracles.mlp_params(), (X, Y)))
    params, data = jax.tree.map(lambda a: a.astype(np.float64), single)  # rounded alike
    rate = 0.5 * limit()
    solution = trained(il.SpectralDescent(rate), il.Never(), 10**4, *single)
    stepwise = trained(il.WeightSpace(optax.sgd(rate)), il.Never(), 10**4, params, data)
    jacobian, _, _ = dense(params, *data)
    found, expected = (jacobian @ oracles.flat(s.displacement) for s in (solution, stepwise))
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def test_convolutions_from_the_host_equal_the_loop():
    params, data = oracles.cnn_params(), oracles.data(LOSS, images=True)
    problem = il.Problem(oracles.cnn, LOSS)
    options = {"num_steps": 150, "key": oracles.KEY}
    solution = il.train(problem, il.SpectralDescent(0.02), il.Never(), params, data, **options)
    expected = il.train(problem, il.WeightSpace(optax.sgd(0.02)), il.Never(), params, data, **options)
    np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(expected.params), atol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_filters_and_their_expansion(momentum):
    descent, a = Descent(0.8, momentum), np.array([0.0, 1e-9, 0.3, 1.0, 2.0])
    found = descent.filters(a, 25)
    for i, eigenvalue in enumerate(a):
        for column, (gradient, velocity) in enumerate(((1.0, 0.0), (0.0, 1.0))):
            displacement = 0.0
            for _ in range(25):
                velocity = momentum * velocity + gradient
                displacement -= 0.8 * velocity
                gradient -= 0.8 * eigenvalue * velocity
            if momentum or column == 0:
                np.testing.assert_allclose(found[0, column, i], displacement, rtol=1e-10)
    if not momentum:
        np.testing.assert_allclose(-a * found[0, 0], 1 - (1 - 0.8 * a) ** 25, rtol=1e-9, atol=1e-14)
    expansion = expand(descent, 25, 2.0, 1e-10, with_velocity=bool(momentum))
    values = np.polynomial.chebyshev.chebval(a - 1, expansion.coefficients[0, 0])
    np.testing.assert_allclose(values, found[0, 0], atol=1e-8)
    assert expansion.error < 1e-10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: il.SpectralDescent(0.0), "`learning_rate` must be above 0"),
        (lambda: il.SpectralDescent(jnp.asarray(-0.1)), "`learning_rate` must be above 0 and finite, got -0.1"),
        (lambda: il.SpectralDescent(0.1, 1.0), "`momentum` must be at least 0 and below 1"),
        (lambda: il.SpectralDescent(0.1, 0.9, steps="flow"), "flow has no momentum"),
        (
            lambda: il.SpectralDescent(0.1, method="lanczos"),
            "`method` must be one of 'chebyshev', 'eigh', got 'la",
        ),
    ],
)
def test_refusals_of_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "full batch at every step.*FunctionSpace"),
        ({"num_steps": math.inf, "record_every": 5}, "Infinitely many steps need"),
        ({"num_steps": math.inf, "schedule": il.Every(3)}, "Infinitely many steps need"),
        ({"num_steps": math.inf, "solver": il.WeightSpace(optax.sgd(0.1))}, "Infinitely many steps need"),
        ({"augment": il.Flip()}, "got `augment`; leave it out"),
        ({"drive": "compiled"}, "driven from the host"),
        ({"data": [(X, Y)]}, "got an iterable of batches"),
        ({"problem": il.Problem(oracles.mlp, il.CrossEntropy())}, "needs SquaredError.*WeightSpace"),
    ],
)
def test_refusals_of_runs(options, message):
    problem = options.pop("problem", il.Problem(oracles.mlp, LOSS))
    solver, schedule = options.pop("solver", il.SpectralDescent(0.1)), options.pop("schedule", il.Never())
    data = options.pop("data", (X, Y))
    with pytest.raises(ValueError, match=message):
        il.train(problem, solver, schedule, oracles.mlp_params(), data, key=oracles.KEY, **{"num_steps": 3} | options)
