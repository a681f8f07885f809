"""The kernels of infinite width against quadrature, hand calculation, plain loops and wide networks."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from relin.kernel._analytic import analytic_cnn, analytic_mlp, arcsin_arccos, erf_duals, relu_duals
from relin.models import CNN, MLP

DUALS = {"relu": relu_duals, "erf": erf_duals}
COVARIANCES = [(1.0, 1.0, 0.3), (2.0, 0.5, -0.8), (0.1, 3.0, 0.0), (1.5, 0.7, 1.0), (1.0, 1.0, 0.999), (4.0, 4.0, -3.9)]


def inputs(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def relu_by_quadrature(q1, q2, k):
    """E[φφ] and E[φ′φ′] as integrals over the angle of (u, u′) = L z, z in polar coordinates."""
    lower = np.linalg.cholesky([[q1, k], [k, q2]])

    def both(angle, power):
        u = lower @ [np.cos(angle), np.sin(angle)]
        return np.prod(u**power) if (u > 0).all() else 0.0

    # The two borders of the wedge where both are positive.
    borders = [np.arctan2(-row[0], row[1]) for row in lower]
    edges = sorted({(b + shift) % (2 * np.pi) for b in borders for shift in (0, np.pi)} | {0, 2 * np.pi})

    def integral(power):
        return sum(
            integrate.quad(both, a, b, args=(power,), epsabs=1e-13, epsrel=1e-13)[0]
            for a, b in itertools.pairwise(edges)
        )

    # ∫ r³ e^(−r²/2) dr = 2 and ∫ r e^(−r²/2) dr = 1.
    return 2 * integral(1) / (2 * np.pi), integral(0) / (2 * np.pi)


def erf_by_quadrature(q1, q2, k):
    """The same by a trapezium rule in the plane, which converges geometrically for smooth functions."""
    lower = np.linalg.cholesky([[q1, k], [k, q2]])
    grid = np.linspace(-9, 9, 1201)
    density = stats.norm.pdf(grid) * (grid[1] - grid[0])
    u = lower[0, 0] * grid[:, None]
    v = lower[1, 0] * grid[:, None] + lower[1, 1] * grid[None]

    def slope(u):
        return 2 / np.sqrt(np.pi) * np.exp(-(u**2))

    values = special.erf(u) * special.erf(v), slope(u) * slope(v)
    return tuple(density @ value @ density for value in values)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize(("activation", "oracle"), [("relu", relu_by_quadrature), ("erf", erf_by_quadrature)])
def test_duals_are_expectations(activation, oracle, covariance):
    duals = DUALS[activation](*map(jnp.asarray, covariance))
    np.testing.assert_allclose(duals, oracle(*covariance), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_angles_to_rounding(dtype):
    x = np.concatenate([np.linspace(-1, 1, 10001), 1 - np.logspace(-7, -1, 100)]).astype(dtype)
    exact = x.astype(np.float64)
    angles = arcsin_arccos(jnp.asarray(x))
    np.testing.assert_allclose(angles, [np.arcsin(exact), np.arccos(exact)], rtol=8 * np.finfo(dtype).eps)


def test_duals_where_the_distribution_is_degenerate():
    q = jnp.array([1e-12, 0.3, 1.0, 7.7, 1e12])
    # u = u′: E[φ²] = q / 2 and E[φ′²] = ½; u = −u′: never both positive.
    np.testing.assert_allclose(relu_duals(q, q, q), [q / 2, np.full(5, 0.5)], rtol=1e-15)
    np.testing.assert_array_equal(relu_duals(q, q, -q), np.zeros((2, 5)))
    # Rounding of the last digits leaves correlation 1 as it is.
    np.testing.assert_array_equal(relu_duals(q, q, q * (1 - 4e-16))[1], np.full(5, 0.5))
    zero = jnp.zeros(5)
    np.testing.assert_array_equal(relu_duals(zero, q, zero), np.zeros((2, 5)))
    np.testing.assert_array_equal(relu_duals(zero, zero, zero), np.zeros((2, 5)))
    expected = 4 / np.pi / np.sqrt(1 + 2 * np.asarray(q))
    np.testing.assert_allclose(erf_duals(zero, q, zero)[1], expected, rtol=1e-15)
    np.testing.assert_array_equal(erf_duals(zero, q, zero)[0], zero)
    np.testing.assert_allclose(erf_duals(q, q, q)[1], 4 / np.pi / np.sqrt(1 + 4 * q), rtol=1e-14)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_relu_mlp_by_hand(depth):
    """With c_w = 2, correlation 1 keeps Σ = 2 ‖x‖² / inputs and adds Σ + 1 to Θ in every layer."""
    x = jnp.array([[1.0, 2.0, 2.0, 0.0]])  # 2 ‖x‖² / 4 = 4.5
    kernel = analytic_mlp(x, depth=depth)
    np.testing.assert_allclose(kernel.nngp, [[4.5]], rtol=1e-14)
    np.testing.assert_allclose(kernel.ntk, [[(depth + 1) * 5.5]], rtol=1e-14)
    np.testing.assert_allclose(analytic_mlp(x, 3 * x, depth=depth).ntk, [[(depth + 1) * (3 * 4.5 + 1)]], rtol=1e-13)


def test_relu_mlp_by_hand_at_correlation_zero():
    x1, x2 = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])  # q = 4, q′ = 9, √(q q′) = 6
    ntks = [analytic_mlp(x1, x2, depth=depth).ntk.item() for depth in (0, 1, 2)]
    # Depth 1: φ̂ = 6 / 2π and φ̂′ = ¼, times c_w = 2. Depth 2 has cos θ = 1/π.
    first = 6 / math.pi
    angle = math.acos(1 / math.pi)
    second = 6 / math.pi * (math.sin(angle) + (math.pi - angle) / math.pi)
    expected = [1, first + 1 + 1 / 2, second + 1 + (math.pi - angle) / math.pi * (first + 3 / 2)]
    np.testing.assert_allclose(ntks, expected, rtol=1e-14)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_same_examples_have_the_same_kernel_wherever_they_stand(activation):
    x = inputs(7, 5, 3)
    whole = analytic_mlp(x, activation=activation)
    np.testing.assert_allclose(whole.ntk, analytic_mlp(x, x + 0, activation=activation).ntk, rtol=1e-13)
    # The diagonal, known to all digits by the recursion of variances alone.
    duplicates = jnp.concatenate([x, x[::-1]])
    both = analytic_mlp(duplicates, activation=activation).ntk
    np.testing.assert_allclose(jnp.diag(both[:7, 7:][:, ::-1]), jnp.diag(whole.ntk), rtol=1e-13)


def cnn_by_loops(x, y, kernel_size, activation):
    """Both kernels of two examples, in dictionaries over all pairs of positions."""
    gain = {"relu": 2.0, "erf": 1.0}[activation]
    examples, shape = {"x": np.asarray(x), "y": np.asarray(y)}, x.shape[:-1]
    grid = list(itertools.product(*map(range, shape)))
    names = [("x", "x"), ("y", "y"), ("x", "y")]
    moments = {
        pair: {(i, j): examples[pair[0]][i] @ examples[pair[1]][j] / x.shape[-1] for i in grid for j in grid}
        for pair in names
    }
    carried = dict.fromkeys(moments["x", "y"], 0.0)
    for stride in (1, 2, 2):
        after = [math.ceil(n / stride) for n in shape]
        low = [max((m - 1) * stride + kernel_size - n, 0) // 2 for m, n in zip(after, shape, strict=True)]
        offsets = list(itertools.product(range(kernel_size), repeat=len(shape)))
        outputs = list(itertools.product(*map(range, after)))

        def window(table, a, b, stride=stride, low=low, offsets=offsets):
            def at(position, offset):
                return tuple(stride * p + o - w for p, o, w in zip(position, offset, low, strict=True))

            return gain * sum(table.get((at(a, o), at(b, o)), 0.0) for o in offsets) / len(offsets)

        sigma = {pair: {(a, b): window(moments[pair], a, b) for a in outputs for b in outputs} for pair in names}
        theta = {key: sigma["x", "y"][key] + 1 + window(carried, *key) for key in sigma["x", "y"]}
        moments, slopes = {}, {}
        for first, second in names:
            table = sigma[first, second]
            duals = {
                (a, b): arcs(sigma[first, first][a, a], sigma[second, second][b, b], table[a, b], activation)
                for a, b in table
            }
            moments[first, second] = {key: value for key, (value, _) in duals.items()}
            slopes[first, second] = {key: slope for key, (_, slope) in duals.items()}
        carried = {key: slopes["x", "y"][key] * theta[key] for key in theta}
        shape = tuple(after)
    nngp = gain * np.mean(list(moments["x", "y"].values()))
    return nngp, nngp + 1 + gain * np.mean(list(carried.values()))


def arcs(q1, q2, k, activation):
    """The formulas of Cho & Saul (2009) and Williams (1997) as they are printed."""
    if activation == "erf":
        d = (1 + 2 * q1) * (1 + 2 * q2)
        return 2 / math.pi * math.asin(2 * k / math.sqrt(d)), 4 / math.pi / math.sqrt(d - 4 * k * k)
    if not q1 * q2:
        return 0.0, 0.0
    cosine = k / math.sqrt(q1 * q2)
    angle = math.acos(1.0 if abs(cosine - 1) < 1e-14 else cosine)
    value = math.sqrt(q1 * q2) * (math.sin(angle) + (math.pi - angle) * math.cos(angle))
    return value / (2 * math.pi), (math.pi - angle) / (2 * math.pi)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "activation"),
    [((9, 2), 5, "relu"), ((11, 1), 2, "erf"), ((4, 5, 2), 3, "relu")],
)
def test_cnn_equals_plain_loops(shape, kernel_size, activation):
    x1, x2 = inputs(1, *shape), inputs(2, *shape, seed=1)
    kernel = analytic_cnn(x1, x2, kernel_size=kernel_size, activation=activation)
    expected = [[cnn_by_loops(a, b, kernel_size, activation) for b in x2] for a in x1]
    np.testing.assert_allclose(np.stack(kernel, axis=-1), expected, rtol=1e-11)


@pytest.mark.slow
def test_cnn_symmetric_positive_and_the_same_in_any_blocks():
    x = inputs(5, 7, 1).at[0, 1:5].set(0).at[1].set(0)  # patches, and one example, of zeros
    whole = analytic_cnn(x, kernel_size=2)
    for kernel, blocks, pairs in zip(
        whole,
        analytic_cnn(x, kernel_size=2, batch_size=2),
        analytic_cnn(x, x[:3], kernel_size=2, batch_size=4),
        strict=True,
    ):
        np.testing.assert_array_equal(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel).min() > -1e-13
        np.testing.assert_allclose(blocks, kernel, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(pairs, kernel[:, :3], rtol=1e-13, atol=1e-15)
    # From zeros nothing reaches the read-out, and nothing but its bias is learnt.
    np.testing.assert_array_equal(whole.nngp[1], np.zeros(5))
    np.testing.assert_array_equal(whole.ntk[1], np.ones(5))


def empirical(network, x, key):
    """Θ at a random initialisation of a network with one output."""
    params, static = eqx.partition(network(key), eqx.is_array)
    gradient = jax.grad(lambda params, x: eqx.combine(params, static)(x)[0])
    per_example = jax.vmap(gradient, (None, 0))(params, x)
    rows = [leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(per_example)]
    return sum(row @ row.T for row in rows)


def deviations(make, widths, x, expected, seeds):
    """Root-mean-square relative deviation from `expected`, for each width."""
    keys = jax.random.split(jax.random.key(0), seeds)
    results = []
    for width in widths:
        kernels = jax.jit(lambda keys, width=width: jax.lax.map(lambda k: empirical(make(width), x, k), keys))(keys)
        results.append(np.sqrt(np.mean((np.asarray(kernels) / expected - 1) ** 2)))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize(
    ("network", "analytic", "shape", "widths", "seeds"),
    [
        (MLP, analytic_mlp, (3, 2), (16, 256), 128),
        pytest.param(CNN, analytic_cnn, (10, 1), (12, 64), 200, marks=pytest.mark.slow),
    ],
    ids=["mlp", "cnn"],
)
def test_wide_networks_converge_at_rate_one_over_root_width(network, analytic, shape, widths, seeds, activation):
    x = inputs(3, *shape).at[0, :2].set(0)

    def make(width):
        return lambda key: network(shape, 1, width=width, activation=activation, parametrisation="ntk", key=key)

    found = deviations(make, widths, x, np.asarray(analytic(x, activation=activation).ntk), seeds)
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    assert -0.65 < slope < -0.35, found
    assert found[-1] < 0.15


def test_float32_and_tracing():
    x = inputs(4, 6, 1)
    for function in (analytic_mlp, analytic_cnn):
        exact = function(x).ntk
        single = jax.jit(function)(x.astype(jnp.float32)).ntk
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: analytic_mlp(jnp.ones((2, 3), int)), TypeError, "`x1` must be a floating-point array, got int64"),
        (lambda: analytic_mlp(jnp.ones(3)), ValueError, r"`x1` must have shape \(batch, …\), got \(3,\)"),
        (lambda: analytic_mlp(jnp.ones((2, 3)), jnp.ones((2, 4))), ValueError, r"one shape, got \(3,\) and \(4,\)"),
        (lambda: analytic_mlp(jnp.ones((0, 3))), ValueError, r"`x1` must hold at least one number, got shape \(0, 3\)"),
        (
            lambda: analytic_mlp(jnp.ones((2, 3)), depth=-1),
            ValueError,
            "`depth` must be at least 0, got -1",
        ),
        (lambda: analytic_mlp(jnp.ones((2, 3)), activation="gelu"), ValueError, "'relu' or 'erf', got 'gelu'"),
        (lambda: analytic_cnn(jnp.ones((2, 3))), ValueError, r"`x1` must have shape \(batch, length, channels\) or"),
        (lambda: analytic_cnn(jnp.ones((2, 3, 1)), kernel_size=0), ValueError, "`kernel_size` must be at least 1"),
        (lambda: analytic_cnn(jnp.ones((2, 3, 1)), batch_size=2.5), TypeError, "`batch_size` must be an integer"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
