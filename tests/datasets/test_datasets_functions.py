"""Generated functions of few directions, against their definitions written out."""

import math
import zlib

import numpy as np
import pytest

from relin import datasets
from relin.datasets import DatasetError
from relin.datasets._names import folder_name


def whole(name):
    """Inputs and targets of all parts, in float64."""
    data = datasets.load(name)
    parts = [data.train, data.validation, data.test]
    return data, np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])


@pytest.mark.parametrize("order", [1, 3])
def test_parity_is_that_of_the_first_bits(order):
    data, x, y = whole(f"parity-16-{order}")
    assert (len(data.train.y), len(data.validation.y), len(data.test.y)) == (16384, 2048, 4096)
    assert (data.num_classes, data.is_regression, y.dtype) == (2, False, np.int32)
    assert set(np.unique(x)) == {-1.0, 1.0}
    np.testing.assert_array_equal(y, (x[:, :order] < 0).sum(axis=1) % 2)
    assert len(np.unique(x, axis=0)) == len(x)
    assert abs(y.mean() - 0.5) < 0.01


def test_a_staircase_adds_a_bit_at_every_step():
    data, x, y = whole("staircase-20-3")
    assert (data.num_classes, data.is_regression, y.shape) == (1, True, (22528, 1))
    a, b, c = x[:, :3].T
    np.testing.assert_allclose(y[:, 0], (a + a * b + a * b * c) / math.sqrt(3), rtol=1e-6)


def directions(name, size, number):
    """The directions of a name by Gram and Schmidt."""
    rows = np.random.RandomState(zlib.crc32(name.encode())).standard_normal((size, number)).T
    found = []
    for row in rows:
        rest = row - sum((row @ other) * other for other in found)
        found.append(rest / np.linalg.norm(rest))
    return np.array(found).T


H = {
    1: lambda z: z,
    2: lambda z: (z**2 - 1) / math.sqrt(2),
    3: lambda z: (z**3 - 3 * z) / math.sqrt(6),
    4: lambda z: (z**4 - 6 * z**2 + 3) / math.sqrt(24),
}


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [
        ("single-index-20-1", 1, lambda z: (H[1](z) + H[3](z))[:, 0] / math.sqrt(2)),
        ("single-index-20-2", 1, lambda z: (H[2](z) + H[4](z))[:, 0] / math.sqrt(2)),
        ("multi-index-20-3", 3, lambda z: (H[2](z) + H[4](z)).sum(axis=1) / math.sqrt(6)),
    ],
)
def test_index_models_are_polynomials_of_their_directions(name, number, value):
    _, x, y = whole(name)
    np.testing.assert_allclose(y[:, 0], value(x @ directions(name, 20, number)), atol=2e-4, rtol=1e-5)
    assert abs(np.cov(x.T) - np.eye(20)).max() < 0.05
    assert abs(y.mean()) < 0.05
    assert abs(y.std() - 1) < 0.15  # fourth powers have heavy tails


def test_a_name_always_gives_the_same():
    expected = "c6c511fa4c601c43"
    assert datasets.identity(datasets.load("parity-16-2"))["sha256"].startswith(expected)
    some = datasets.load("staircase-20-3", limit=100)
    np.testing.assert_array_equal(some.train.x, datasets.load("staircase-20-3").train.x[:100])
    assert not np.array_equal(some.train.x[:, :16], datasets.load("staircase-20-4").train.x[:100, :16])


def test_names_stand_for_themselves():
    assert folder_name("parity-20-3") == "parity-20-3"
    assert datasets.identity("parity-20-3") == {}


@pytest.mark.parametrize(
    "name", ["parity-15-2", "parity-1025-2", "parity-20-17", "parity-020-3", "single-index-20", "parity"]
)
def test_what_is_not_a_function_is_refused(name):
    assert not datasets.is_known(name)
    with pytest.raises(
        DatasetError, match=f"Generated functions are parity-D-K .*16 to 1024, got '{name}'; name one so"
    ):
        datasets.load(name)
