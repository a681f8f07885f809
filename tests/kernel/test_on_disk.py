"""A kernel in a file as an operator, read some rows at a time, against its dense matrix."""

import tracemalloc

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from ntk_oracle import normal

from relin.kernel import (
    KernelOnDisk,
    cka,
    distance,
    effective_rank,
    energy_alignment,
    log_density,
    ntk,
    relative_change,
    spectrum,
    target_alignment,
    trace,
    velocity,
)

KINDS = ("full", "mean", "diagonal")
PARAMS = {"w": normal(0, 4, 5), "v": normal(2, 5, 3)}
X1, X2 = normal(3, 10, 4), normal(4, 7, 4)
KEY = jax.random.key(0)


def network(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    for outputs in KINDS:
        ntk(network, PARAMS, X1, outputs=outputs, out=folder / f"{outputs}.npy")
        ntk(network, PARAMS, X1, X2, outputs=outputs, out=folder / f"{outputs}-between.npy")
    return folder


@pytest.fixture(autouse=True)
def few_rows_at_once(monkeypatch):
    monkeypatch.setattr("relin.kernel._file_blocks._AT_ONCE", 500)


def dense(operator):
    """The matrix by examples, and outputs within them."""
    kernel = np.load(operator.path)
    if kernel.ndim == 3:
        kernel = np.einsum("ijc,cd->ijcd", kernel, np.eye(kernel.shape[2]))
    return kernel if kernel.ndim == 2 else kernel.swapaxes(1, 2).reshape(operator.out_size(), operator.in_size())


@pytest.mark.parametrize("outputs", KINDS)
def test_products(folder, outputs):
    for name in (outputs, f"{outputs}-between"):
        operator = KernelOnDisk(folder / f"{name}.npy")
        matrix, vectors = dense(operator), normal(7, 3, *operator.in_structure().shape)
        expected = [matrix @ np.ravel(vector) for vector in vectors]
        np.testing.assert_allclose(operator.mv(vectors[0]).reshape(-1), expected[0], rtol=1e-10)
        np.testing.assert_allclose(jax.jit(jax.vmap(operator.mv))(vectors).reshape(3, -1), expected, rtol=1e-10)
        np.testing.assert_allclose(operator.products(np.asarray(vectors)).reshape(3, -1), expected, rtol=1e-10)
        np.testing.assert_array_equal(operator.as_matrix(), matrix)
        assert len(list(operator.pieces())) > 1


@pytest.mark.parametrize("outputs", KINDS)
def test_as_lineax_operator(folder, outputs):
    operator = KernelOnDisk(folder / f"{outputs}.npy")
    matrix = dense(operator)
    values = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(lx.diagonal(operator), np.diag(matrix))
    np.testing.assert_allclose(spectrum(operator, 3, key=KEY).eigenvalues, values[:3], rtol=1e-8)
    estimate = trace(operator, key=KEY, num_probes=64)
    assert abs(estimate.value - values.sum()) < 6 * estimate.standard_error + 1e-9
    right = matrix @ np.ravel(normal(8, *operator.in_structure().shape))
    ridge = operator + 0.1 * lx.IdentityLinearOperator(operator.in_structure())
    shape = operator.in_structure().shape
    solver = lx.CG(rtol=1e-10, atol=1e-10)
    solved = lx.linear_solve(lx.TaggedLinearOperator(ridge, lx.positive_semidefinite_tag), right.reshape(shape), solver)
    np.testing.assert_allclose(
        solved.value.reshape(-1), np.linalg.solve(matrix + 0.1 * np.eye(len(matrix)), right), rtol=1e-6
    )


def test_density_of_eigenvalues(folder):
    operator = KernelOnDisk(folder / "mean.npy")
    assert jnp.isfinite(log_density(operator, key=KEY, num_probes=2).density).all()


def test_a_kernel_between_two_sets_has_no_eigenvalues_and_is_read_by_its_rows(folder):
    operator = KernelOnDisk(folder / "mean-between.npy")
    with pytest.raises(ValueError, match=r"`operator` must be square"):
        spectrum(operator, 2, key=KEY)
    with pytest.raises(ValueError, match=r"is between two sets of examples, and only a symmetric kernel"):
        operator.transpose()
    assert KernelOnDisk(folder / "mean.npy").transpose().symmetric


LABELS = jnp.asarray([0, 2, 1, 1, 0, 2, 2, 1, 0, 0])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two kernels of each kind in files, and in memory."""
    folder = tmp_path_factory.mktemp("pairs")
    moved = jax.tree.map(lambda a: a + 0.1 * jnp.sin(a), PARAMS)
    kernels = {}
    for outputs in KINDS:
        files = [
            ntk(network, p, X1, outputs=outputs, out=folder / f"{outputs}{n}.npy")
            for n, p in enumerate((PARAMS, moved))
        ]
        kernels[outputs] = files, [jnp.asarray(np.load(file.path)) for file in files]
    return kernels


@pytest.mark.parametrize("outputs", KINDS)
def test_metrics_are_those_of_kernels_in_memory(pair, outputs):
    (k, k0), (dense, dense0) = pair[outputs]
    targets = normal(9, 10, 3)
    for metric in (distance, relative_change, cka):
        expected = metric(dense, dense0)
        for one, other in ((k, k0), (k, dense0), (dense, k0)):
            np.testing.assert_allclose(metric(one, other), expected, rtol=1e-9, atol=1e-14)
    for y in (LABELS, targets):
        for options in ({}, {"num_classes": 3}, {"num_classes": 3, "per_class": True}):
            expected = target_alignment(dense, y, **options)
            np.testing.assert_allclose(target_alignment(k, y, **options), expected, rtol=1e-9)
        np.testing.assert_allclose(energy_alignment(k, y), energy_alignment(dense, y), rtol=1e-9)
    assert distance(k, k) == 0
    assert velocity({"a": k}, {"a": k0}, 2)["a"] == distance(k, k0) / 2


def test_metrics_that_are_not_defined(pair, tmp_path):
    (k, _), _ = pair["mean"]
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    nothing = ntk(network, zero, X1, outputs="mean", out=tmp_path / "zero.npy")
    constant = ntk(
        lambda p, x: p["w"][None] + 0 * x, {"w": jnp.asarray([1.5])}, X1[:, :1], outputs=0, out=tmp_path / "c.npy"
    )
    assert jnp.isnan(distance(k, nothing))
    assert jnp.isnan(relative_change(k, nothing))
    assert jnp.isnan(cka(k, constant))
    assert jnp.isnan(target_alignment(constant, LABELS))
    assert jnp.isnan(energy_alignment(k, jnp.zeros((10, 1))))
    assert energy_alignment(nothing, LABELS) == 0
    with pytest.raises(ValueError, match=r"`effective_rank` decomposes a dense matrix, which for the 10 rows of"):
        effective_rank(k)
    with pytest.raises(ValueError, match="Both kernels must have one shape"):
        distance(k, pair["full"][0][0])


def test_metrics_take_little_memory(tmp_path, monkeypatch):
    at_once = 2**19
    monkeypatch.setattr("relin.kernel._file_blocks._AT_ONCE", at_once)
    kernel = ntk(network, PARAMS, normal(5, 700, 4), outputs="mean", out=tmp_path / "k.npy")
    y, size = jnp.arange(700) % 3, (tmp_path / "k.npy").stat().st_size
    for metric in (lambda: cka(kernel, kernel), lambda: distance(kernel, kernel), lambda: target_alignment(kernel, y)):
        metric()
        tracemalloc.start()
        metric()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * at_once < size / 4
