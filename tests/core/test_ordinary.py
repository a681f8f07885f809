"""K = 1 is ordinary training: the same bits as a plain Optax loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

pytestmark = pytest.mark.as_shipped

STEPS = 7
RATE = optax.cosine_decay_schedule(0.1, STEPS)
OPTIMISERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.03),
    "adamw": optax.adamw(0.03, weight_decay=0.1),
    "clipped and scheduled": optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(RATE, momentum=0.9)),
}


def trained(apply, loss, optimiser, params, data, **options):
    problem = il.Problem(apply, loss)
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY} | options
    return il.train(problem, il.WeightSpace(optimiser), il.Every(1), params, data, **options)


# Each optimiser meets each precision, loss, network and drive at least once; the full product would prove no more.
MLP_CASES = [
    ("sgd", jnp.float64, il.CrossEntropy()),
    ("momentum", jnp.float32, il.CrossEntropy()),
    ("nesterov", jnp.float64, il.SquaredError()),
    ("adam", jnp.float32, il.SquaredError()),
    ("adamw", jnp.float32, il.CrossEntropy()),
    ("clipped and scheduled", jnp.float32, il.CrossEntropy()),
]


@pytest.mark.parametrize(("name", "dtype", "loss"), MLP_CASES)
def test_mlp_equals_plain_loops_bit_for_bit(name, dtype, loss):
    optimiser, params, (x, y) = OPTIMISERS[name], oracles.mlp_params(dtype), oracles.data(loss, dtype)
    solution = trained(oracles.mlp, loss, optimiser, params, (x, y))
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.params)} == {np.dtype(dtype)}
    batches = oracles.minibatches(x, y, STEPS)
    looped = oracles.ordinary_loop(oracles.mlp, loss, optimiser, params, batches)
    scanned = oracles.ordinary_scan(oracles.mlp, loss, optimiser, params, batches)
    assert oracles.same_bits(looped, scanned)
    assert oracles.same_bits(solution.params, looped)


@pytest.mark.parametrize(
    ("name", "dtype", "loss"),
    [
        pytest.param("sgd", jnp.float32, il.SquaredError(), marks=pytest.mark.slow),
        ("momentum", jnp.float64, il.SquaredError()),
        pytest.param("nesterov", jnp.float32, il.CrossEntropy(), marks=pytest.mark.slow),
        pytest.param("adam", jnp.float64, il.CrossEntropy(), marks=pytest.mark.slow),
        ("adamw", jnp.float64, il.SquaredError()),
        ("clipped and scheduled", jnp.float64, il.SquaredError()),
    ],
)
def test_convolutional_network_on_the_host_equals_a_plain_loop_bit_for_bit(name, dtype, loss):
    optimiser, params, (x, y) = OPTIMISERS[name], oracles.cnn_params(dtype), oracles.data(loss, dtype, images=True)
    solution = trained(oracles.cnn, loss, optimiser, params, (x, y))
    looped = oracles.ordinary_loop(oracles.cnn, loss, optimiser, params, oracles.minibatches(x, y, STEPS))
    assert oracles.same_bits(solution.params, looped)


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_records_on_the_way_change_no_bit(drive):
    loss, optimiser = il.CrossEntropy(), OPTIMISERS["momentum"]
    params, data = oracles.mlp_params(jnp.float32), oracles.data(loss, jnp.float32)
    solution = trained(oracles.mlp, loss, optimiser, params, data, record_every=3, drive=drive)
    looped = oracles.ordinary_loop(oracles.mlp, loss, optimiser, params, oracles.minibatches(*data, STEPS))
    assert oracles.same_bits(solution.params, looped)
    assert solution.feature_updates == STEPS - 1
    assert solution.records["feature_updates"].tolist() == [0, 2, 5, 6]


def test_last_displacement_is_the_last_update():
    loss, optimiser = il.SquaredError(), OPTIMISERS["momentum"]
    params, data = oracles.mlp_params(), oracles.data(loss)
    solution = trained(oracles.mlp, loss, optimiser, params, data)
    before = oracles.ordinary_loop(oracles.mlp, loss, optimiser, params, oracles.minibatches(*data, STEPS)[:-1])
    assert oracles.same_bits(solution.anchor, before)
    np.testing.assert_allclose(
        oracles.flat(solution.displacement),
        oracles.flat(solution.params) - oracles.flat(before),
        atol=1e-15,
    )


def test_training_loss_is_the_mean_of_the_batches_losses():
    loss, optimiser = il.CrossEntropy(), OPTIMISERS["sgd"]
    params, data = oracles.mlp_params(), oracles.data(loss)
    batches = oracles.minibatches(*data, STEPS)
    losses = []
    for step, (x, y) in enumerate(batches):
        now = oracles.ordinary_loop(oracles.mlp, loss, optimiser, params, batches[:step])
        losses.append(float(oracles.mean_loss(loss, oracles.mlp(now, x), y)))
    solution = trained(oracles.mlp, loss, optimiser, params, data, record_every=3)
    expected = [np.nan, np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
    np.testing.assert_allclose(solution.records["training_loss"], expected, rtol=1e-12)
