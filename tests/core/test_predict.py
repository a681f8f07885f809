"""Lazy training in closed form, against dense matrices and against training."""

import math

import jax
import numpy as np
import pytest
from scipy.linalg import expm

import relin as il
from core import oracles

PROBLEM = il.Problem(oracles.mlp, il.SquaredError())
X, Y = oracles.data(PROBLEM.loss)
X_TEST = jax.numpy.asarray(np.random.default_rng(5).normal(size=(7, oracles.NUM_INPUTS)))
PARAMS = oracles.mlp_params()


def jacobian(x):
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    return np.asarray(jax.jacobian(lambda p: oracles.mlp(unravel(p), x).reshape(-1))(flat))


J, J_TEST = jacobian(X), jacobian(X_TEST)
A = J @ J.T / len(X)
RESIDUAL = np.asarray(oracles.mlp(PARAMS, X) - Y).reshape(-1)


def expected(dual):
    """f(x_test) + J_test Jᵀ a."""
    return np.asarray(oracles.mlp(PARAMS, X_TEST)) + (J_TEST @ J.T @ dual).reshape(len(X_TEST), -1)


@pytest.mark.parametrize("time", [0.0, 0.5, 30.0])
def test_gradient_flow(time):
    solved = np.linalg.pinv(A, rcond=1e-12) @ (expm(-A * time) - np.eye(len(A))) @ RESIDUAL / len(X)
    np.testing.assert_allclose(il.predict(PROBLEM, PARAMS, (X, Y), X_TEST, time=time), expected(solved), atol=1e-9)


def test_steps_equal_training_by_hand():
    dual = np.zeros_like(RESIDUAL)
    for _ in range(40):
        dual -= 0.1 * (RESIDUAL + J @ J.T @ dual) / len(X)
    found = il.predict(PROBLEM, PARAMS, (X, Y), X_TEST, steps=40, learning_rate=0.1)
    np.testing.assert_allclose(found, expected(dual), atol=1e-10)


def test_ridge():
    dual = -np.linalg.solve(J @ J.T + len(X) * 0.05 * np.eye(len(A)), RESIDUAL)
    np.testing.assert_allclose(il.predict(PROBLEM, PARAMS, (X, Y), X_TEST, ridge=0.05), expected(dual), atol=1e-10)


def test_the_limit_is_of_minimum_norm_and_that_of_infinite_training(monkeypatch):
    monkeypatch.setattr("relin._loop.predict._NUMBERS_AT_ONCE", 300)  # two test examples at a time
    x, y = jax.tree.map(lambda a: np.concatenate([a[:4], a[:2]]), (X, Y))
    j = jacobian(x)
    dual = -np.linalg.pinv(j @ j.T, rcond=1e-11) @ (np.asarray(oracles.mlp(PARAMS, x)) - y).reshape(-1)
    wanted = np.asarray(oracles.mlp(PARAMS, X_TEST)) + (J_TEST @ j.T @ dual).reshape(len(X_TEST), -1)
    options = [{}, {"time": math.inf}, {"ridge": 0.0}, {"steps": math.inf, "learning_rate": 0.01}]
    for chosen in options:
        np.testing.assert_allclose(il.predict(PROBLEM, PARAMS, (x, y), X_TEST, **chosen), wanted, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": 1.0, "ridge": 0.1}, "takes one of"),
        ({"steps": 3}, "takes one of"),
        ({"time": -1.0}, "`time` must be at least 0"),
        ({"steps": math.inf, "learning_rate": 1e3}, "diverges at `learning_rate` 1000.0, above 2/λ"),
        ({"problem": il.Problem(oracles.mlp, il.CrossEntropy())}, "needs SquaredError"),
        ({"x_test": X_TEST[:0]}, "`x_test` must hold at least one example"),
    ],
)
def test_refusals(options, message):
    problem, x_test = options.pop("problem", PROBLEM), options.pop("x_test", X_TEST)
    with pytest.raises(ValueError, match=message):
        il.predict(problem, PARAMS, (X, Y), x_test, **options)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    return il.kernel.ntk(oracles.mlp, PARAMS, X, out=folder / "full.npy")


@pytest.mark.parametrize(
    "options",
    [{"time": 0.5}, {"time": 30.0}, {"time": 0.0}, {"steps": 40, "learning_rate": 0.1}, {"ridge": 0.05}, {}],
    ids=str,
)
def test_a_kernel_in_a_file_is_multiplied(on_disk, options):
    found = il.predict(PROBLEM, PARAMS, (X, Y), X_TEST, kernel=on_disk, **options)
    np.testing.assert_allclose(found, il.predict(PROBLEM, PARAMS, (X, Y), X_TEST, **options), atol=1e-7)


def test_a_kernel_in_a_file_of_something_else_is_refused(on_disk, tmp_path, monkeypatch):
    def predicted(params=PARAMS, x=X, kernel=on_disk):
        return il.predict(PROBLEM, params, (x, Y), X_TEST, ridge=0.05, kernel=kernel)

    with pytest.raises(
        ValueError, match=r"full.npy is of a kernel that differs in parameters; make the one that is asked for"
    ):
        predicted(params=jax.tree.map(lambda a: 2 * a, PARAMS))
    with pytest.raises(ValueError, match=r"full.npy is of a kernel that differs in x1"):
        predicted(x=X + 1)
    with pytest.raises(ValueError, match=r'`kernel` must be the "full" one of \d outputs'):
        predicted(kernel=il.kernel.ntk(oracles.mlp, PARAMS, X, outputs="mean", out=tmp_path / "mean.npy"))
    with pytest.raises(TypeError, match=r"`kernel` must be a relin.kernel.KernelOnDisk, got ndarray"):
        predicted(kernel=np.eye(3))
    monkeypatch.setattr("relin._loop.predict.function_of_matrix", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"\d+ products with the kernel of \d+ rows do not suffice"):
        predicted()
