"""The output scale: what it is, its kernel, and the limit in which ordinary training is lazy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

LOSS = il.CrossEntropy()
PARAMS, (X, Y) = oracles.mlp_params(), oracles.data(LOSS)
RATE, STEPS = 0.5, 12


def trained(apply, schedule, optimiser, params=PARAMS, **options):
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY, "throw": False} | options
    return il.train(il.Problem(apply, LOSS), il.WeightSpace(optimiser), schedule, params, (X, Y), **options)


def moved(amount):
    return jax.tree.map(lambda p: p + amount, PARAMS)


@pytest.mark.parametrize("alpha", [3.0, 2, np.float32(0.25), jnp.asarray(0.25)])
def test_the_outputs_and_the_kernel(alpha):
    apply, dense = il.scaled(oracles.mlp, PARAMS, alpha), oracles.dense_of(oracles.mlp)
    theta = oracles.flat(moved(0.1))
    outputs = float(alpha) * (dense.value(theta, X) - dense.value(oracles.flat(PARAMS), X))
    np.testing.assert_allclose(apply(moved(0.1), X), outputs, rtol=1e-12)
    assert not np.any(apply(PARAMS, X))
    jacobian = np.asarray(dense.jacobian(theta, X))
    kernel = float(alpha) ** 2 * np.einsum("icp,jdp->ijcd", jacobian, jacobian)
    np.testing.assert_allclose(il.kernel.ntk(apply, moved(0.1), X), kernel, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [il.Every(1), il.Every(3)])
def test_at_one_a_network_that_begins_at_zero_is_trained_as_it_is(schedule):
    params = PARAMS | {"v": jnp.zeros_like(PARAMS["v"])}
    scaled, plain = (
        trained(apply, schedule, optax.sgd(RATE, momentum=0.9), params)
        for apply in (il.scaled(oracles.mlp, params, 1.0), oracles.mlp)
    )
    np.testing.assert_allclose(oracles.flat(scaled.params), oracles.flat(plain.params), rtol=1e-13, atol=1e-15)


OPTIMISERS = {
    "the rate over α²": lambda alpha: optax.sgd(RATE / alpha**2, momentum=0.9),
    "the loss over α²": lambda alpha: optax.chain(optax.scale(1 / alpha**2), optax.sgd(RATE, momentum=0.9)),
    "Adam's rate over α": lambda alpha: optax.adam(RATE / 10 / alpha, eps=1e-30),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_ordinary_training_at_a_large_scale_is_lazy_training(name):
    """The outputs differ by a multiple of 1/α, and the parameters move by 1/α of the way."""
    optimiser = OPTIMISERS[name]
    one = il.scaled(oracles.mlp, PARAMS, 1.0)
    lazy = trained(one, il.Never(), optimiser(1.0))
    dense, way = oracles.dense_of(oracles.mlp), oracles.flat(lazy.displacement)
    wanted = dense.jacobian(oracles.flat(PARAMS), X) @ way
    outputs, ways = [], []
    for alpha in (1e2, 1e3, 1e4):
        apply = il.scaled(oracles.mlp, PARAMS, alpha)
        params = trained(apply, il.Every(1), optimiser(alpha)).params
        outputs.append(np.linalg.norm(apply(params, X) - wanted) / np.linalg.norm(wanted))
        ways.append(np.linalg.norm(alpha * (oracles.flat(params) - oracles.flat(PARAMS)) - way) / np.linalg.norm(way))
    for errors in (outputs, ways):
        assert errors[0] > 1e-4
        np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.2)


def make(alpha):
    apply, optimiser = il.scaled(oracles.mlp, PARAMS, alpha), optax.sgd(RATE / alpha**2)
    return il.Run(il.Problem(apply, LOSS), il.WeightSpace(optimiser), il.Every(1), PARAMS, oracles.KEY)


def test_lanes_have_scales_of_their_own():
    alphas = jnp.asarray([0.5, 4.0])
    ends = il.train_lanes(make, alphas, (X, Y), num_steps=STEPS, batch_size=oracles.BATCH)
    for alpha, end in zip(alphas, ends, strict=True):
        alone = trained(il.scaled(oracles.mlp, PARAMS, float(alpha)), il.Every(1), optax.sgd(RATE / alpha**2))
        np.testing.assert_allclose(oracles.flat(end.params), oracles.flat(alone.params), rtol=1e-10)


def test_adapters_parts_and_named_inputs():
    module = il.models.build("mlp", (4,), 3, key=jax.random.key(0), width=5, depth=1)
    apply, params = il.from_equinox(module)
    other = il.from_equinox(il.models.build("mlp", (4,), 3, key=jax.random.key(1), width=5, depth=1))[1]
    scaled = il.scaled(apply, params, 2.0)
    np.testing.assert_allclose(scaled(other, X), 2 * (apply(other, X) - apply(params, X)), rtol=1e-5, atol=1e-6)
    assert type(scaled.combine(other)) is type(module)
    assert scaled == il.scaled(apply, params, 2.0) != il.scaled(apply, params, 3.0)
    part, own = il.trainable(scaled, params, "layers.1*")
    assert not np.any(part(own, X))
    within = il.scaled(*il.trainable(apply, params, "layers.1*"), 2.0)
    more = jax.tree.map(lambda p: p + 1, own)
    np.testing.assert_allclose(within(more, X), part(more, X), rtol=1e-5)

    def named(params, x):
        return oracles.mlp(params, x["a"]) * x["b"]

    inputs = {"a": X, "b": jnp.ones((len(X), 1))}
    expected = il.scaled(oracles.mlp, PARAMS, 2.0)(moved(0.1), X)
    np.testing.assert_allclose(il.scaled(named, PARAMS, 2.0)(moved(0.1), inputs), expected, rtol=1e-12)
    assert "\n" not in repr(scaled)


@pytest.mark.parametrize(
    ("alpha", "got"), [(0, "0"), (-1.0, "-1.0"), (np.nan, "nan"), (np.inf, "inf"), (np.ones(2), "")]
)
def test_a_scale_that_is_none_is_refused(alpha, got):
    with pytest.raises(ValueError, match=rf"`alpha` must be one finite number above 0, got {got}.*; pass 1"):
        il.scaled(oracles.mlp, PARAMS, alpha)


class Counting(il.adapters.AbstractApply):
    """A network that counts its forward passes."""

    constants: tuple

    def __call__(self, params, x):
        return oracles.mlp(params, x)

    @property
    def mode(self):
        return "dropout"

    @property
    def variables(self):
        return self.constants

    def combine(self, params):
        return params

    def _wrapped(self):
        return "counting"

    def _architecture(self):
        return ()


def test_a_network_that_training_changes_is_refused():
    with pytest.raises(ValueError, match=r"the same at every step, got one trained with dropout; freeze"):
        il.scaled(Counting((jnp.zeros(()),)), PARAMS, 2.0)
