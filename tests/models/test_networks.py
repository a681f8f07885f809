"""Parameter counts, parametrisations, derivatives and programs of the networks."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relin import models
from relin.adapters import from_equinox

# Programs here run for microseconds: what takes time is their compilation.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

SMALL = {
    "mlp": ((5, 2), {"width": 12, "depth": 2}),
    "cnn-1d": ((14, 2), {"width": 3}),
    "cnn-2d": ((7, 6, 2), {"width": 3}),
    "lenet5": ((28, 28, 1), {"width": 2}),
    "resnet18-group": ((16, 16, 2), {"width": 2, "norm": "group"}),
    "resnet18-none": ((8, 8, 2), {"width": 2, "norm": "none"}),
}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@functools.cache
def small(case, num_classes=3, key=0, **options):
    shape, defaults = SMALL[case]
    module = models.build(case.split("-")[0], shape, num_classes, key=jax.random.key(key), **(defaults | options))
    return from_equinox(module), jnp.asarray(normal(100 + key, 4, *shape))


def count(name, shape, num_classes, **options):
    build = lambda key: models.build(name, shape, num_classes, key=key, **options)  # noqa: E731
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(build, jax.random.key(0))))


@pytest.mark.parametrize("shape", [(32, 32, 1), (28, 28, 1)])
def test_lenet5_has_61706_parameters(shape):
    assert count("lenet5", shape, 10) == 61_706


def test_mlp_and_cnn_parameter_counts():
    assert count("mlp", (28, 28, 1), 10, width=512, depth=2) == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    assert count("mlp", (7,), 3, depth=0) == 7 * 3 + 3
    assert count("cnn", (40, 1), 10, width=8) == (5 * 8 + 8) + (5 * 8 * 16 + 16) + (5 * 16 * 32 + 32) + (32 * 10 + 10)
    assert count("cnn", (9, 9, 3), 5, width=4) == (27 * 4 + 4) + (36 * 8 + 8) + (72 * 16 + 16) + (16 * 5 + 5)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_resnet18_parameter_count(norm):
    """Weights of the convolutions, then two numbers per channel (scale and shift) with norm, one (bias) without."""
    stages = [64, 128, 256, 512]
    weights = 9 * 3 * 64 + 9 * 64 * 64 * 4
    channels = 64 * 5
    for before, after in itertools.pairwise(stages):
        weights += 9 * before * after + 3 * 9 * after * after + before * after
        channels += 5 * after
    readout = 512 * 10 + 10
    expected = weights + channels * (2 if norm == "group" else 1) + readout
    assert count("resnet18", (32, 32, 3), 10, norm=norm) == expected
    if norm == "group":
        assert expected == 11_173_962  # that of the usual network for CIFAR-10, BatchNorm counted by scale and shift


LINEARISED = [
    *itertools.product(SMALL, ("tanh", "relu")),
    *itertools.product(("mlp", "cnn-1d"), ("erf", "gelu")),
]


@pytest.mark.parametrize(("case", "activation"), LINEARISED)
def test_linearisation_error_is_quadratic(case, activation):
    """‖f(θ + εv) − f(θ) − εJv‖ falls as ε²; for ReLU once ε is so small that no unit changes its side."""
    (apply, params), x = small(case, activation=activation)
    # Biases of zero put units whose inputs are all off exactly on the kink of ReLU: move away from the start.
    # The arithmetic is NumPy's, which has nothing to compile.
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, params))
    spread = float(np.std(np.concatenate([np.ravel(leaf) for leaf in leaves])))
    params = structure.unflatten(p + 0.1 * spread * normal(i, *p.shape) for i, p in enumerate(leaves))
    direction = structure.unflatten(spread * normal(1000 + i, *p.shape) for i, p in enumerate(leaves))

    @quick_jit
    def value_and_tangent(params):
        return jax.jvp(lambda p: apply(p, x), (params,), (direction,))

    f, jv = map(np.asarray, value_and_tangent(params))

    def error(epsilon):
        moved = jax.tree.map(lambda p, v: p + epsilon * v, params, direction)
        return np.linalg.norm(np.asarray(value_and_tangent(moved)[0]) - f - epsilon * jv)

    largest = 1e-3
    if activation == "relu":  # normalisation magnifies both the movement and the error
        largest = 3e-7 if case == "resnet18-group" else 3e-6
    coarse, fine = (float(error(epsilon)) for epsilon in (largest, largest / 10))
    assert fine > 1e-14  # well above rounding
    assert 1.8 < math.log10(coarse / fine) < 2.2


def plain_mlp(weights, x):
    x = x.reshape(len(x), -1)
    for i, (w, b) in enumerate(weights):
        x = x @ w * np.sqrt(2 / w.shape[0]) + b[None]
        x = jax.nn.relu(x) if i < len(weights) - 1 else x
    return x


def plain_cnn(weights, x):
    for stride, (w, b) in zip((1, 2, 2), weights[:3], strict=True):
        x = jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x * np.sqrt(2 / np.prod(w.shape[:3])) + b[None, None, None])
    w, b = weights[3]
    return x.mean(axis=(1, 2)) @ w * np.sqrt(2 / w.shape[0]) + b[None]


@pytest.mark.parametrize(("case", "plain"), [("mlp", plain_mlp), ("cnn-2d", plain_cnn)])
def test_ntk_parametrisation_is_the_plain_function(case, plain):
    (apply, params), x = small(case, parametrisation="ntk")
    params = jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
    module = apply.combine(params)
    layers = module.layers if case == "mlp" else (*module.convolutions, module.readout)
    expected = quick_jit(plain)([(layer.weight, layer.bias) for layer in layers], x)
    np.testing.assert_allclose(quick_jit(apply)(params, x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", ["mlp", "cnn-1d", "lenet5", "resnet18-none"])
def test_ntk_parametrisation_starts_at_unit_normal_weights_and_zero_biases(case):
    (_, params), _ = small(case, parametrisation="ntk")
    weights = [p for p in jax.tree.leaves(params) if p.ndim > 1]
    flat = np.concatenate([np.ravel(w) for w in weights])
    assert abs(flat.std() - 1) < 5 / math.sqrt(2 * flat.size)
    assert abs(flat.mean()) < 5 / math.sqrt(flat.size)
    assert all(not p.any() for p in jax.tree.leaves(params) if p.ndim == 1)


@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
@pytest.mark.parametrize(("case", "widths"), [("mlp", (16, 64)), ("cnn-1d", (4, 16))])
def test_output_variance_at_the_start_does_not_depend_on_width(case, widths, parametrisation):
    def variance(width):
        def outputs(key):
            (name, *_), (shape, _) = case.split("-"), SMALL[case]
            module = models.build(name, shape, 8, key=key, width=width, parametrisation=parametrisation)
            return module(jnp.ones(shape))

        return float(jnp.square(quick_jit(jax.vmap(outputs))(jax.random.split(jax.random.key(0), 200))).mean())

    narrow, wide = (variance(width) for width in widths)
    assert abs(math.log(wide / narrow)) < 0.2
    if case == "mlp":  # E‖f‖² = |x|²/d = 1 in every layer, and c_w of the read-out times half of that in the last
        assert abs(math.log(wide / (2 if parametrisation == "ntk" else 1))) < 0.2


def test_ntk_gradients_at_the_start_differ_from_standard_ones_by_the_scale():
    """∂f/∂w in NTK parametrisation is √(c_w / fan_in) times that of the same function in standard parametrisation."""
    (ntk, params), x = small("mlp", parametrisation="ntk", activation="tanh")
    (standard, _), _ = small("mlp", parametrisation="standard", activation="tanh")
    scales = [math.sqrt(1 / fan_in) for fan_in in (10, 12, 12)]
    same = jax.tree.unflatten(
        jax.tree.structure(_standard_like(params, standard)),
        [p * (scales[i // 2] if i % 2 == 0 else 1) for i, p in enumerate(jax.tree.leaves(params))],
    )
    np.testing.assert_allclose(ntk(params, x), standard(same, x), rtol=1e-12)
    gradients = (
        jax.tree.leaves(jax.grad(lambda p, f=f: f(p, x).sum())(p)) for f, p in ((ntk, params), (standard, same))
    )
    for i, (g_ntk, g_standard) in enumerate(zip(*gradients, strict=True)):
        np.testing.assert_allclose(g_ntk, g_standard * (scales[i // 2] if i % 2 == 0 else 1), rtol=1e-11, atol=1e-13)


def _standard_like(_, standard):
    return from_equinox(standard.combine(small("mlp", activation="tanh")[0][1]))[1]


def programs(case, form):
    (apply, params), x = small(case, convolution=form)
    f = lambda p, x: apply(p, x)  # noqa: E731
    gradient = jax.grad(lambda p, x: f(p, x).sum(), argnums=(0, 1))
    forward = jax.make_jaxpr(lambda p, x: jax.jvp(f, (p, x), (p, x)))(params, x)
    return str(forward) + str(jax.make_jaxpr(gradient)(params, x))


@pytest.mark.parametrize("case", [case for case in SMALL if case != "mlp"])
def test_networks_on_cpu_use_nothing_that_is_slow_in_loops(case):
    automatic, lax = programs(case, "auto"), programs(case, "lax")
    assert "conv_general_dilated" not in automatic
    assert "reduce_window" not in automatic
    assert "scatter" not in automatic
    assert "conv_general_dilated" in lax
    assert "reduce_window" not in lax


@pytest.mark.parametrize("case", ["cnn-1d", "lenet5", "resnet18-none"])
def test_both_forms_of_a_network_agree(case):
    (patches, params), x = small(case, convolution="patches", parametrisation="ntk")
    (lax, other), _ = small(case, convolution="lax", parametrisation="ntk")
    moved = jax.tree.leaves(params)
    other = jax.tree.unflatten(jax.tree.structure(other), moved)
    np.testing.assert_allclose(quick_jit(patches)(params, x), quick_jit(lax)(other, x), rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["resnet18-group", "resnet18-none"])
def test_every_parameter_of_resnet18_has_a_gradient_and_it_trains(case):
    (apply, params), x = small(case, width=4)
    y = jnp.asarray([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])

    @quick_jit
    def step(params):
        loss, gradient = jax.value_and_grad(lambda p: jnp.square(apply(p, x) - y).sum() / 8)(params)
        return loss, gradient, jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient)

    first, gradient, params = step(params)
    assert 0.1 < first < 10  # outputs start at order one, with or without normalisation
    assert all(np.abs(g).max() > 1e-8 for g in jax.tree.leaves(gradient))
    for _ in range(40):
        last, _, params = step(params)
    assert last < first / 2


@pytest.mark.parametrize("case", SMALL)
def test_an_example_of_another_shape_is_refused(case):
    (apply, params), x = small(case)
    with pytest.raises(
        ValueError, match=r"was built for one example of shape .*, got an input of shape .*; map it over"
    ):
        apply.combine(params)(x)
