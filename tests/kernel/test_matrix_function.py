"""Functions of matrices by Lanczos' method against eigendecompositions."""

import numpy as np
import pytest

from relin.kernel._matrix_function import function_of_matrix

GENERATOR = np.random.default_rng(0)
VECTORS = np.linalg.qr(GENERATOR.normal(size=(80, 80)))[0]
VECTOR = GENERATOR.normal(size=80)
FALLING = 10.0 ** -np.linspace(0, 4, 80)
FUNCTIONS = {
    "ridge": lambda a: 1 / (a + 1e-2),
    "flow": lambda a: np.where(a > 0, -np.expm1(-20 * a) / np.where(a > 0, a, 1), 20.0),
    "inverse": lambda a: np.where(a > 1e-12, 1 / np.where(a > 1e-12, a, 1), 0.0),
}


def applied(values, function, max_products=80, tolerance=1e-10):
    made = []

    def product(vector):
        made.append(vector)
        return VECTORS @ (values * (VECTORS.T @ vector))

    found = function_of_matrix(product, function, VECTOR, tolerance=tolerance, max_products=max_products)
    return found, len(made)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_eigenvectors(name):
    function = FUNCTIONS[name]
    found, made = applied(FALLING, function)
    np.testing.assert_allclose(found, VECTORS @ (function(FALLING) * (VECTORS.T @ VECTOR)), atol=1e-6)
    assert made < (80 if name != "inverse" else 81)


def test_few_eigenvalues_take_as_many_products():
    values = np.repeat([3.0, 1.0, 0.0], [1, 9, 70])
    found, made = applied(values, FUNCTIONS["inverse"])
    np.testing.assert_allclose(found, VECTORS @ (FUNCTIONS["inverse"](values) * (VECTORS.T @ VECTOR)), atol=1e-12)
    assert made == 3


def test_too_few_products_and_nothing_to_multiply():
    assert applied(FALLING, FUNCTIONS["inverse"], max_products=20)[0] is None
    np.testing.assert_array_equal(function_of_matrix(None, None, np.zeros(3), tolerance=1.0, max_products=1), 0)
