"""VGG, wide and batch-normalised residual networks, and transformers."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import relin as il
from relin import models

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WIDE = {"depth": 10, "widen": 1, "convolution": "lax"}
CASES = {
    "resnet18": ("resnet18", (8, 8, 2), {"width": 2, "norm": "batch", "convolution": "lax"}),
    "wide-resnet": ("wide-resnet", (8, 8, 2), WIDE | {"activation": "gelu"}),
    "wide-resnet-none": ("wide-resnet", (8, 8, 2), WIDE | {"norm": "none", "activation": "tanh"}),
    "vgg11": ("vgg11", (8, 8, 2), {"width": 2, "activation": "gelu"}),
    "vgg11-batch": ("vgg11", (8, 8, 2), {"width": 2, "norm": "batch", "activation": "gelu"}),
    "vit": ("vit", (8, 8, 2), {"width": 8, "depth": 2, "num_heads": 2, "dropout": 0.2}),
    "gpt": ("gpt", (6,), {"width": 8, "depth": 2, "num_heads": 2, "dropout": 0.2}),
}
SMOOTH = ["wide-resnet", "wide-resnet-none", "vgg11", "vit", "gpt"]


@functools.cache
def build(case):
    """`apply`, `params`, inputs and targets; batch statistics and dropout are on where there are any."""
    name, shape, options = CASES[case]
    module = models.build(name, shape, 3, key=KEY, **options)
    mode = {"dropout": True, "key": KEY} if "dropout" in options else {}
    if options.get("norm", models.options(name).get("norm")) == "batch":
        mode["statistics"] = "batch"
    rng = np.random.default_rng(0)  # its own: what it makes is kept
    x = rng.integers(0, 3, (5, *shape)) if name == "gpt" else rng.normal(size=(5, *shape))
    y = rng.integers(0, 3, (5, 6) if name == "gpt" else 5)
    return *il.from_equinox(module, **mode), jnp.asarray(x), jnp.asarray(y)


def count(name, shape, num_classes, **options):
    def params(key):
        module = models.build(name, shape, num_classes, key=key, **options)
        return eqx.filter(eqx.nn.delete_init_state(module), eqx.is_inexact_array)

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(eqx.filter_eval_shape(params, KEY)))


def test_parameter_counts():
    assert count("resnet18", (32, 32, 3), 10, norm="batch") == 11_173_962  # that of the usual one for CIFAR-10
    assert round(count("wide-resnet", (32, 32, 3), 10, depth=28, widen=10) / 1e6, 1) == 36.5  # table 5 of the paper
    assert (
        count("vgg11", (32, 32, 3), 10, norm="batch") == 9_231_114 - 2752
    )  # torchvision's layers, no bias beside a norm
    transformer = 12 * (12 * 192**2 + 13 * 192)
    assert count("vit", (32, 32, 3), 10) == transformer + (48 + 1) * 192 + 64 * 192 + 2 * 192 + 192 * 10 + 10
    assert count("gpt", (64,), 50) == 4 * (12 * 128**2 + 13 * 128) + (50 + 64 + 2) * 128  # the read-out is tied


@pytest.mark.parametrize("case", SMOOTH)
@pytest.mark.slow
def test_linearisation_error_is_quadratic(case):
    apply, params, x, _ = build(case)
    problem = il.Problem(apply, il.CrossEntropy())
    network = problem.trained(problem.variables).apply
    flat, unflatten = ravel_pytree(params)
    direction = jnp.asarray(RNG.normal(size=flat.shape)) * jnp.std(flat)
    f = jax.jit(lambda p: network(unflatten(p), x))
    start, tangent = jax.jvp(f, (flat,), (direction,))
    errors = [float(jnp.linalg.norm(f(flat + e * direction) - start - e * tangent)) for e in (1e-3, 1e-4)]
    assert 1.8 < math.log10(errors[0] / errors[1]) < 2.2


def value_and_grad(problem, params, variables, x, y):
    return problem.trained(variables).value_and_grad(params, x, y)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_every_parameter_has_a_gradient_that_lowers_the_loss(case):
    apply, params, x, y = build(case)
    problem = il.Problem(apply, il.CrossEntropy())
    step = eqx.filter_jit(value_and_grad)
    loss, gradient = step(problem, params, problem.variables, x, y)
    assert 0.3 < loss < 8
    for leaf in jax.tree.leaves(gradient):
        assert jnp.any(leaf != 0)
    steps = [1e-4 / optax.tree.norm(gradient) * sign for sign in (-1.0, 1.0)]
    moved = [jax.tree.map(lambda p, g, s=s: p + s * g, params, gradient) for s in steps]
    down, up = (step(problem, p, problem.variables, x, y)[0] for p in moved)
    slope = 1e-4 * optax.tree.norm(gradient)
    np.testing.assert_allclose([loss - down, up - loss], slope, rtol=0.05)


@pytest.mark.parametrize("case", [pytest.param("vgg11-batch", marks=pytest.mark.slow), "vit", "gpt"])
def test_it_trains(case):
    apply, params, x, y = build(case)
    problem = il.Problem(apply, il.CrossEntropy())
    solver = il.WeightSpace(optax.adam(1e-2))
    solution = il.train(problem, solver, il.Every(2), params, (x, y), num_steps=150, key=KEY)
    assert solution.mode == problem.mode
    assert solution.records["training_loss"][-1] < 0.75 * math.log(3)  # a guess's


def test_batch_normalisation_is_that_of_numpy():
    layer = models.BatchNorm(3)
    layer, state = eqx.nn.make_with_state(lambda: layer)()
    x = jnp.asarray(RNG.normal(3.0, 2.0, (5, 4, 2, 3)))
    y, after = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    x = np.asarray(x)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-6)
    inference = eqx.nn.inference_mode(layer)
    for _ in range(200):  # the running variance starts at 1
        _, after = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, after)
    y, _ = jax.vmap(inference, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, after)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-6)
    with pytest.raises(ValueError, match=r'norm="batch" must be called with its state; pass it to relin.from_equinox'):
        layer(x[0], None)


def test_a_causal_decoder_does_not_look_ahead():
    apply, params, x, _ = build("gpt")
    logits = apply(params, x).reshape(5, 6, 3)
    changed = apply(params, x.at[:, 4:].set((x[:, 4:] + 1) % 3)).reshape(5, 6, 3)
    np.testing.assert_allclose(changed[:, :4], logits[:, :4], rtol=1e-12)
    assert not np.allclose(changed[:, 4:], logits[:, 4:])
    with pytest.raises(ValueError, match=r"GPT takes integer tokens, got float64; use a text dataset"):
        apply(params, x.astype(float))


def test_attention_is_that_of_numpy():
    apply, params, _, _ = build("vit")
    block = apply.combine(params).blocks[0]
    x = RNG.normal(size=(4, 8))
    weights = x @ block.queries_keys_values.weight + np.asarray(block.queries_keys_values.bias)[None]
    heads = np.asarray(weights).reshape(4, 3, 2, 4)
    mixed = np.zeros((4, 2, 4))
    for head in range(2):
        queries, keys, values = heads[:, 0, head], heads[:, 1, head], heads[:, 2, head]
        scores = np.exp(queries @ keys.T / 2.0)
        mixed[:, head] = scores / scores.sum(1, keepdims=True) @ values
    expected = mixed.reshape(4, 8) @ block.attended.weight + np.asarray(block.attended.bias)[None]
    np.testing.assert_allclose(block._attention(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-6)


def test_max_pool_is_the_largest_of_windows():
    x = RNG.normal(size=(5, 4, 3))
    expected = np.stack([[x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(2)] for i in range(2)])
    np.testing.assert_array_equal(models.max_pool(jnp.asarray(x)), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_cross_entropy_of_positions(dtype):
    logits, y = RNG.normal(size=(4, 6 * 3)).astype(dtype), RNG.integers(0, 3, (4, 6))
    log_softmax = logits.reshape(4, 6, 3) - np.log(np.exp(logits.reshape(4, 6, 3)).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_softmax, y[..., None], -1)[..., 0].mean(1)
    loss = il.CrossEntropy()
    np.testing.assert_allclose(loss(jnp.asarray(logits), jnp.asarray(y)), expected, rtol=1e-5)
    right = (logits.reshape(4, 6, 3).argmax(-1) == y).mean(1)
    np.testing.assert_allclose(loss.correct(jnp.asarray(logits), jnp.asarray(y)), right, rtol=1e-6)
    vector = jnp.asarray(RNG.normal(size=logits.shape).astype(dtype))
    dense = jax.hessian(lambda f: loss(f[None], jnp.asarray(y[:1]))[0])(jnp.asarray(logits[0]))
    product = loss.hessian_product(jnp.asarray(logits), jnp.asarray(y), vector)[0]
    np.testing.assert_allclose(product, dense @ vector[0], rtol=1e-4, atol=1e-6)
