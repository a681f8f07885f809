"""Eigenvalues, spectral densities, traces and norms from products alone, against dense decompositions."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from relin.kernel._lanczos import spectrum
from relin.kernel._operator import NTKOperator, features
from relin.kernel._probes import frobenius_norm, log_density, trace

SIZE, K, KEY = 30, 4, jax.random.key(3)


def symmetric(eigenvalues, seed=0):
    """A dense matrix with these eigenvalues, and the operator of it."""
    vectors = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    dense = (vectors * np.asarray(eigenvalues)) @ vectors.T
    dense = (dense + dense.T) / 2
    return dense, lx.MatrixLinearOperator(jnp.asarray(dense), lx.symmetric_tag)


# Programs here run for microseconds: what takes time is their compilation.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def on_host(results):
    return jax.tree.map(np.asarray, results)


@functools.partial(quick_jit, static_argnums=(1, 2))
def largest(dense, k, max_vectors=None):
    operator = lx.MatrixLinearOperator(dense, lx.symmetric_tag)
    return spectrum(operator, k, key=KEY, vectors=True, max_vectors=max_vectors)


@quick_jit
def density_of(dense):
    return log_density(lx.MatrixLinearOperator(dense, lx.symmetric_tag), key=KEY, num_probes=64)


def decaying():
    return 10.0 ** -np.linspace(0, 6, SIZE)


SPECTRA = {
    "decaying": decaying(),
    "flat": np.linspace(1, 2, SIZE),
    "clustered": np.concatenate([5 + 1e-9 * np.arange(3), 1 + 1e-6 * np.arange(SIZE - 3)]),
    "multiple": np.repeat([7.0, 3.0, 1.0], SIZE // 3),
    "of rank two": np.concatenate([[4.0, 1.0], np.zeros(SIZE - 2)]),
    "tiny": 1e-150 * decaying(),
    "indefinite": np.linspace(-50, 3, SIZE),
    "identity": np.ones(SIZE),
    "zero": np.zeros(SIZE),
}


@functools.cache
def ntk():
    """A small network's kernel, and the dense one by an explicit Jacobian."""
    random = np.random.default_rng(1)
    params = {"w": jnp.asarray(random.normal(size=(4, 8))), "v": jnp.asarray(random.normal(size=(8, 3)))}
    x = jnp.asarray(random.normal(size=(10, 4)))
    rows = quick_jit(jax.jacrev(lambda p: network(p, x).reshape(-1)))(params)
    J = np.concatenate([np.asarray(rows[name]).reshape(SIZE, -1) for name in sorted(rows)], axis=1)
    return (network, params, x), J @ J.T


def network(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


@pytest.mark.parametrize("name", SPECTRA)
def test_largest_eigenvalues_of_any_spectrum(name):
    dense, operator = symmetric(SPECTRA[name])
    found = on_host(largest(operator.matrix, K))
    expected = np.linalg.eigvalsh(dense)[::-1][:K]
    rounding = 1e-14 * abs(SPECTRA[name]).max()
    assert found.converged
    nearest = np.min(np.abs(found.eigenvalues[:, None] - np.linalg.eigvalsh(dense)[None]), axis=1)
    assert np.all(nearest <= found.bounds + rounding)
    assert np.all(np.abs(found.eigenvalues - expected) <= 1e-4 * np.abs(expected) + 100 * rounding)
    residuals = np.linalg.norm(dense @ found.vectors.T - found.vectors.T * found.eigenvalues, axis=0)
    np.testing.assert_allclose(found.bounds, residuals, rtol=1e-6, atol=10 * rounding)
    if name != "zero":
        np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(K), atol=1e-10)


def test_all_eigenvalues_with_vectors_that_do_not_fill_a_block():
    """30 = 1 · 16 + 14: the last block is not full, and the space is exhausted."""
    dense, operator = symmetric(SPECTRA["of rank two"], seed=4)
    found = largest(operator.matrix, SIZE)
    assert found.converged
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(dense)[::-1], atol=1e-13)


def test_says_that_it_has_not_converged():
    dense, operator = symmetric(np.linspace(1, 2, 200))
    found = on_host(largest(operator.matrix, K, 8))
    assert not found.converged
    assert found.steps == 2
    errors = np.linalg.eigvalsh(dense)[::-1][:K] - found.eigenvalues
    assert np.all(errors > 0)  # Ritz values approach from below
    assert np.all(np.min(np.abs(np.linspace(1, 2, 200)[None] - found.eigenvalues[:, None]), axis=1) <= found.bounds)


def test_of_a_network():
    """Inside jit, with parameters that are traced, in batches."""
    (apply, params, x), dense = ntk()
    expected = np.linalg.eigvalsh(dense)[::-1][:6]

    @quick_jit
    def eigenvalues(params):
        kernel = NTKOperator(apply, params, x, batch_size=4)
        return spectrum(kernel, 6, key=KEY, tolerance=1e-8, vectors=True)

    found = eigenvalues(params)
    assert found.converged
    assert found.vectors.shape == (6, 10, 3)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-10)


def test_single_precision_converges():
    dense, _ = symmetric(decaying())
    operator = lx.MatrixLinearOperator(jnp.asarray(dense, jnp.float32), lx.symmetric_tag)
    found = largest(operator.matrix, K)
    assert found.converged
    assert found.eigenvalues.dtype == jnp.float32
    np.testing.assert_allclose(found.eigenvalues, decaying()[:K], rtol=1e-5)


def test_operators_between_trees_of_other_libraries():
    """No tags but symmetric, a PyTree of two leaves, and no `lineax.linearise`."""
    scale = {"a": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.asarray([9.0])}
    operator = lx.DiagonalLinearOperator(scale)
    found = spectrum(operator, 2, key=KEY, vectors=True)
    np.testing.assert_allclose(found.eigenvalues, [9, 6], rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.vectors["b"][:, 0]), [1, 0], atol=1e-3)
    assert found.vectors["a"].shape == (2, 2, 3)
    estimate = trace(operator, key=KEY, num_probes=3)
    np.testing.assert_allclose(estimate.value, 30)  # ±1 probes are exact for a diagonal matrix
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-12)


@pytest.mark.parametrize("name", ["decaying", "of rank two", "zero"])
def test_density_integrates_to_one_and_its_moments_match(name):
    dense, operator = symmetric(SPECTRA[name])
    density = on_host(density_of(operator.matrix))
    integral = np.trapezoid(density.density, density.grid) + density.zero_fraction.value
    np.testing.assert_allclose(integral, 1, atol=1e-7)
    np.testing.assert_allclose(np.sum(density.weights, axis=1), 1, rtol=1e-10)
    for power in (1, 2, 3):
        moments = np.sum(density.weights * density.nodes**power, axis=1)
        truth = np.trace(np.linalg.matrix_power(dense, power)) / SIZE
        assert abs(np.mean(moments) - truth) <= 3.5 * np.std(moments, ddof=1) / 8 + 1e-14
    share = np.mean(SPECTRA[name] <= 1e-13)
    zero = density.zero_fraction
    assert abs(zero.value - share) <= 3.5 * zero.standard_error + 1e-9


def test_density_finds_the_eigenvalues():
    """All 30 eigenvalues lie within its smoothing of where the exact density is, within its error bars."""
    _, operator = symmetric(decaying())
    density = on_host(density_of(operator.matrix))
    grid = density.grid[:, None]
    exact = np.exp(-0.5 * ((grid - np.log10(decaying())) / 0.1) ** 2).mean(1) / (0.1 * np.sqrt(2 * np.pi))
    error = np.abs(density.density - exact)
    assert np.all(error <= 5 * density.standard_error + 1e-6)
    assert np.max(density.standard_error) < 0.25 * exact.max()


def test_density_on_a_grid_of_the_network():
    (apply, params, x), dense = ntk()
    grid = jnp.linspace(-4, 4, 161)
    density = quick_jit(lambda p: log_density((apply, p, x), key=KEY, num_probes=4, num_steps=50, grid=grid))(params)
    np.testing.assert_array_equal(density.grid, grid)
    assert density.nodes.shape == (4, SIZE)
    np.testing.assert_allclose(np.max(density.nodes), np.linalg.eigvalsh(dense)[-1], rtol=1e-8)


@pytest.mark.parametrize(
    ("quantity", "distribution"), [(trace, "rademacher"), (trace, "gaussian"), (frobenius_norm, "rademacher")]
)
def test_error_bars_cover_the_truth_as_often_as_they_should(quantity, distribution):
    """95 % intervals of Student's t with 31 degrees of freedom, in 400 trials; 3 standard errors are ±3.3 %."""
    dense, operator = symmetric(np.linspace(1, 3, SIZE))
    keys = jax.random.split(KEY, 400)
    estimates = quick_jit(jax.vmap(lambda key: quantity(operator, key=key, distribution=distribution)))(keys)
    truth = np.trace(dense) if quantity is trace else np.linalg.norm(dense)
    covered = np.mean(np.abs(estimates.value - truth) <= 2.0395 * estimates.standard_error)
    assert 0.91 <= covered <= 0.985
    spread = np.std(estimates.value, ddof=1)
    np.testing.assert_allclose(np.mean(estimates.standard_error), spread, rtol=0.15)


def test_trace_and_norm_of_a_network():
    operator, dense = ntk()
    for estimate, truth in (
        (quick_jit(lambda: trace(operator, key=KEY, num_probes=200))(), np.trace(dense)),
        (quick_jit(lambda: frobenius_norm(operator, key=KEY, num_probes=200))(), np.linalg.norm(dense)),
    ):
        assert abs(estimate.value - truth) < 3 * estimate.standard_error
        assert estimate.standard_error < 0.1 * truth
    zero = frobenius_norm(symmetric(np.zeros(SIZE))[1], key=KEY)
    assert (zero.value, zero.standard_error) == (0, 0)


MATRIX = jnp.eye(4)
TAGGED, PLAIN = lx.MatrixLinearOperator(MATRIX, lx.symmetric_tag), lx.MatrixLinearOperator(MATRIX)
JACOBIAN = (lambda p, x: x @ p, jnp.ones((4, 1)), MATRIX[:3])
REFUSALS = [
    (
        lambda: spectrum(MATRIX, 1, key=KEY),
        TypeError,
        r"lineax operator or a tuple \(apply, params, x\), got ArrayImpl",
    ),
    (lambda: spectrum(PLAIN, 1, key=KEY), ValueError, r"must be symmetric.*lineax.TaggedLinearOperator"),
    (lambda: log_density(PLAIN, key=KEY), ValueError, r"must be symmetric"),
    (lambda: trace(lx.MatrixLinearOperator(MATRIX[:2]), key=KEY), ValueError, r"square, got one from 4 to 2"),
    (lambda: trace(features(*JACOBIAN), key=KEY), ValueError, r"must be square, got one from 4 to 3 numbers"),
    (lambda: spectrum(TAGGED, 5, key=KEY), ValueError, r"`k` must be at most the operator's size 4, got 5"),
    (lambda: spectrum(TAGGED, 0, key=KEY), ValueError, r"`k` must be at least 1, got 0"),
    (lambda: spectrum(TAGGED, 2, key=KEY, block_size=0), ValueError, r"`block_size` must be at least 1, got 0"),
    (lambda: spectrum(TAGGED, 2, key=KEY, max_vectors=1), ValueError, r"`max_vectors` .* at least 2, got 1"),
    (lambda: spectrum(TAGGED, 2, key=KEY, tolerance=0.0), ValueError, r"`tolerance` must be above 0, got 0.0"),
    (lambda: trace(TAGGED, key=KEY, num_probes=1), ValueError, r"`num_probes` must be at least 2, got 1"),
    (lambda: trace(TAGGED, key=KEY, distribution="normal"), ValueError, r'"rademacher" or "gaussian", got \'normal\''),
    (lambda: log_density(TAGGED, key=KEY, width=0), ValueError, r"`width` must be above 0, got 0"),
    (lambda: log_density(TAGGED, key=KEY, num_steps=2.5), TypeError, r"`num_steps` must be an integer, got 2.5"),
    (
        lambda: log_density(TAGGED, key=KEY, grid=MATRIX),
        ValueError,
        r"`grid` must have shape \(points,\), got \(4, 4\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
