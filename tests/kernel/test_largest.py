"""The largest eigenvalue against a dense decomposition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relin.kernel._largest import largest_eigenpair

SIZE = 30


def matrices():
    random = np.random.default_rng(0)
    square = random.normal(size=(SIZE, SIZE))
    positive = square @ square.T / SIZE
    return {
        "positive": positive,
        "negative": -positive - np.eye(SIZE),
        "all eigenvalues equal": 3 * np.eye(SIZE),
        "zero": np.zeros((SIZE, SIZE)),
        "of rank 1": np.outer(square[0], square[0]),
    }


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", matrices())
def test_it_is_that_of_the_dense_matrix(name, traced):
    matrix, random = matrices()[name], np.random.default_rng(1)
    start = {"a": jnp.asarray(random.normal(size=(2, SIZE // 2 - 1))), "b": jnp.asarray(random.normal(size=2))}
    products = []

    def product(vector):
        products.append(1)
        found = jnp.asarray(matrix) @ jnp.concatenate([vector["a"].reshape(-1), vector["b"]])
        return {"a": found[:-2].reshape(2, -1), "b": found[-2:]}

    def of(start):
        return largest_eigenpair(product, start, tolerance=1e-3, traced=traced).value

    found = jax.jit(of)(start) if traced else of(start)
    wanted = np.linalg.eigvalsh(matrix)[-1]
    assert wanted - 1e-3 * abs(wanted) - 1e-9 <= found <= wanted + 1e-9
    if not traced:
        assert len(products) <= 3 * SIZE


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_ends_at_rounding_whatever_the_tolerance(dtype):
    """On towards a residual of 0 the images of the vectors drift from them, and λ_max grows without bound."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        factor = random.normal(size=(1 + seed % 10, SIZE)).astype(dtype)
        found = largest_eigenpair(
            lambda v, f=factor: f.T @ (f @ v), random.normal(size=SIZE).astype(dtype), tolerance=0.0, max_products=300
        )
        wanted = np.linalg.eigvalsh((factor.T @ factor).astype(np.float64))[-1]
        assert abs(found.value / wanted - 1) < 30 * np.finfo(dtype).eps
        vector = np.asarray(found.vector, np.float64)
        assert np.linalg.norm(vector) == pytest.approx(1, rel=1e-5)
        image = factor.T.astype(np.float64) @ (factor @ vector)
        assert np.linalg.norm(image - wanted * vector) < 3e-3 * wanted
        assert found.products < 60


def test_one_number_and_what_is_not_finite():
    assert largest_eigenpair(lambda v: -2 * v, jnp.ones(1)).value == -2
    assert np.isnan(largest_eigenpair(lambda v: v * jnp.nan, jnp.ones(3)).value)


def test_it_ends_early_where_the_tolerance_allows():
    diagonal, products = jnp.asarray(np.linspace(0, 1, 500) ** 4), []
    start = jnp.asarray(np.random.default_rng(0).normal(size=500))
    found = largest_eigenpair(lambda v: products.append(1) or diagonal * v, start, tolerance=0.05).value
    assert 0.95 <= found <= 1
    assert len(products) < 30
