"""K = 1 is each framework's own training, bit for bit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import relin as il

pytestmark = pytest.mark.as_shipped

STEPS = 20
RNG = np.random.default_rng(0)
BATCHES = [(RNG.normal(size=(16, 8)).astype(np.float32), RNG.integers(0, 3, 16)) for _ in range(STEPS)]
OPTIMISERS = {"momentum": optax.sgd(0.1, momentum=0.9), "adamw": optax.adamw(1e-2)}


def loss_of(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


class NNXNetwork(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.hidden, self.norm = nnx.Linear(8, 32, rngs=rngs), nnx.LayerNorm(32, rngs=rngs)
        self.readout = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.relu(self.norm(self.hidden(x))))


def nnx_loop(optimiser):
    model = NNXNetwork()
    apply, params = il.from_nnx(model)
    state = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def step(model, state, x, y):
        state.update(model, nnx.grad(lambda m: loss_of(m(x), y))(model))

    for batch in BATCHES:
        step(model, state, *batch)
    return apply, params, nnx.to_pure_dict(nnx.state(model, nnx.Param))


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = linen.LayerNorm()(linen.Dense(32)(x))
        return linen.Dense(3)(linen.relu(hidden))


def linen_loop(optimiser):
    module = LinenNetwork()
    variables = module.init(jax.random.key(0), BATCHES[0][0])
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optimiser)

    @jax.jit
    def step(state, x, y):
        gradient = jax.grad(lambda p: loss_of(state.apply_fn({"params": p}, x), y))(state.params)
        return state.apply_gradients(grads=gradient)

    for batch in BATCHES:
        state = step(state, *batch)
    return *il.from_linen(module, variables), state.params


def equinox_loop(optimiser):
    module = eqx.nn.MLP(8, 3, 32, depth=2, key=jax.random.key(0), dtype=jnp.float32)
    start = il.from_equinox(module)
    state = optimiser.init(eqx.filter(module, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(module, state, x, y):
        gradient = eqx.filter_grad(lambda m: loss_of(jax.vmap(m)(x), y))(module)
        updates, state = optimiser.update(gradient, state, eqx.filter(module, eqx.is_inexact_array))
        return eqx.apply_updates(module, updates), state

    for batch in BATCHES:
        module, state = step(module, state, *batch)
    return *start, eqx.filter(module, eqx.is_inexact_array)


@pytest.mark.parametrize("optimiser", ["momentum", pytest.param("adamw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("loop", [nnx_loop, linen_loop, equinox_loop])
def test_ordinary_training_is_the_frameworks_own(loop, optimiser):
    apply, params, wanted = loop(OPTIMISERS[optimiser])
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(OPTIMISERS[optimiser]),
        il.Every(1),
        params,
        BATCHES,
        num_steps=STEPS,
        key=jax.random.key(0),
    )
    for trained, own in zip(jax.tree.leaves(solution.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(trained, own)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, wanted)), strict=True))
