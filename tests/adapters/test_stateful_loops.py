"""K = 1 is each framework's own training with BatchNorm and dropout on, bit for bit."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
import stateful
from flax import nnx
from flax.training.train_state import TrainState
from stateful import BATCHES, KEY, STEPS, loss_of

import relin as il

pytestmark = pytest.mark.as_shipped

OPTIMISERS = {"momentum": optax.sgd(0.1, momentum=0.9), "adamw": optax.adamw(1e-2, eps=1e-3)}
"""Adam by a small ε would divide what two compiled programs round differently, on some processors, by small numbers."""


def nnx_loop(optimiser):
    model = stateful.NNXNetwork()
    model.train()
    state = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def step(model, state, x, y):
        state.update(model, nnx.grad(lambda m: loss_of(m(x), y))(model))

    for batch in BATCHES:
        step(model, state, *batch)
    own = nnx.state(model, nnx.Param), nnx.state(model, nnx.Not(nnx.Param))
    return jax.tree.leaves(own[0]), jax.tree.leaves(own[1])


def linen_loop(optimiser):
    module, variables = stateful.LinenNetwork(), stateful.linen_variables()
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optimiser)

    @jax.jit
    def step(state, statistics, x, y):
        def loss(params):
            outputs, changed = state.apply_fn(
                {"params": params, "batch_stats": statistics},
                x,
                frozen=False,
                deterministic=False,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(KEY, state.step)},
            )
            return loss_of(outputs, y), changed["batch_stats"]

        gradient, statistics = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradient), statistics

    statistics = variables["batch_stats"]
    for batch in BATCHES:
        state, statistics = step(state, statistics, *batch)
    return jax.tree.leaves(state.params), [*jax.tree.leaves(statistics), KEY, np.int32(STEPS)]


def equinox_loop(optimiser):
    module, state = eqx.nn.make_with_state(stateful.EquinoxNetwork)()
    optimiser_state = optimiser.init(eqx.filter(module, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(module, state, optimiser_state, number, x, y):
        keys = jax.random.split(jax.random.fold_in(KEY, number), len(x))

        def loss(module, state):
            one = lambda x, key: module(x, state, key=key)  # noqa: E731
            outputs, state = jax.vmap(one, axis_name="batch", out_axes=(0, None))(x, keys)
            return loss_of(outputs, y), state

        gradient, state = eqx.filter_grad(loss, has_aux=True)(module, state)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, eqx.filter(module, eqx.is_inexact_array))
        return eqx.apply_updates(module, updates), state, optimiser_state

    for number, batch in enumerate(BATCHES):
        module, state, optimiser_state = step(module, state, optimiser_state, np.int32(number), *batch)
    parameters = jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))
    return parameters, [*jax.tree.leaves(state), KEY, np.int32(STEPS)]


LOOPS = {"nnx": nnx_loop, "linen": linen_loop, "equinox": equinox_loop}


@pytest.mark.parametrize("optimiser", ["momentum", pytest.param("adamw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("framework", stateful.FRAMEWORKS)
def test_ordinary_training_is_the_frameworks_own(framework, optimiser):
    own = LOOPS[framework](OPTIMISERS[optimiser])
    apply, params = stateful.network(framework)
    solution = il.train(
        stateful.problem(apply),
        il.WeightSpace(OPTIMISERS[optimiser]),
        il.Every(1),
        params,
        BATCHES,
        num_steps=STEPS,
        key=jax.random.key(0),
    )
    for trained, wanted in zip((solution.params, solution.variables), own, strict=True):
        for mine, theirs in zip(jax.tree.leaves(trained), wanted, strict=True):
            if optimiser == "momentum" or not jax.numpy.issubdtype(mine.dtype, jax.numpy.floating):
                assert jax.numpy.array_equal(mine, theirs)
            else:
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert solution.mode == "batch statistics and dropout"
