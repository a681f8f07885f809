"""Each framework's own loop on a linearised model: with K = 1 it is the ordinary loop, with K > 1 it is `il.train`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import relin as il
import relin.equinox
import relin.linen
import relin.nnx

STEPS = 5
RNG = np.random.default_rng(0)
BATCHES = [(jnp.asarray(RNG.normal(size=(8, 4))), jnp.asarray(RNG.integers(0, 3, 8))) for _ in range(STEPS)]
"""Biases before a BatchNorm have no gradient but rounding, which Adam divides by 1e-8: they agree to 1e-10."""
OPTIMISER = optax.chain(optax.clip_by_global_norm(0.3), optax.adamw(0.05, weight_decay=0.1))


def loss_of(outputs, y):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()


class NNXNetwork(nnx.Module):
    def __init__(self):
        rngs, kind = nnx.Rngs(0, dropout=1), {"param_dtype": jnp.float64}
        self.hidden = nnx.Linear(4, 8, rngs=rngs, **kind)
        self.norm = nnx.BatchNorm(8, rngs=rngs, dtype=jnp.float64, **kind)
        self.dropout, self.readout = nnx.Dropout(0.2, rngs=rngs), nnx.Linear(8, 3, rngs=rngs, **kind)
        for part, value in ((self.norm.mean, jnp.zeros(8)), (self.norm.var, jnp.ones(8))):
            part.set_value(value)

    def __call__(self, x):
        return self.readout(self.dropout(jnp.tanh(self.norm(self.hidden(x)))))


def of_nnx(wrapped):
    """Parameters, and the other variables but keys, that NNX's usual loop leaves."""
    model = wrapped(NNXNetwork())
    model.train()
    optimiser = nnx.Optimizer(model, OPTIMISER, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimiser, x, y):
        optimiser.update(model, nnx.grad(lambda m: loss_of(m(x), y))(model))
        if isinstance(model, relin.nnx.Linearised):
            model.step()

    for batch in BATCHES:
        step(model, optimiser, *batch)
    module = model.merged() if isinstance(model, relin.nnx.Linearised) else model
    return nnx.to_pure_dict(nnx.state(module, nnx.Param)), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


class EquinoxNetwork(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    readout: eqx.nn.Linear

    def __init__(self):
        first, second = jax.random.split(jax.random.key(0))
        self.hidden, self.readout = eqx.nn.Linear(4, 8, key=first), eqx.nn.Linear(8, 3, key=second)
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch", dtype=jnp.float64)

    def __call__(self, x, state):
        hidden, state = self.norm(self.hidden(x), state)
        return self.readout(jnp.tanh(hidden)), state


def of_equinox(wrapped):
    module, state = eqx.nn.make_with_state(EquinoxNetwork)()
    model = wrapped(module)
    optimiser_state = OPTIMISER.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, optimiser_state, x, y):
        def loss(model):
            run = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
            outputs, after = run(x, state)
            return loss_of(outputs, y), after

        (_, state), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, optimiser_state = OPTIMISER.update(gradient, optimiser_state, params)
        model = eqx.apply_updates(model, updates)
        return (model.step() if isinstance(model, relin.equinox.Linearised) else model), state, optimiser_state

    for batch in BATCHES:
        model, state, optimiser_state = step(model, state, optimiser_state, *batch)
    module = model.merged() if isinstance(model, relin.equinox.Linearised) else model
    return eqx.filter(module, eqx.is_inexact_array), jax.tree.leaves(state)


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        kind = {"param_dtype": jnp.float64}
        x = linen.BatchNorm(use_running_average=not train, dtype=jnp.float64, **kind)(linen.Dense(8, **kind)(x))
        return linen.Dense(3, **kind)(linen.Dropout(0.2, deterministic=not train)(jnp.tanh(x)))


class OwnState(TrainState):
    batch_stats: dict


def linen_start():
    variables = LinenNetwork().init(jax.random.key(0), BATCHES[0][0], train=False)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)


def of_linen(wrapped):
    module, variables = LinenNetwork(), linen_start()
    own = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    state = wrapped(OwnState.create(apply_fn=module.apply, tx=OPTIMISER, **own))

    @jax.jit
    def step(state, x, y):
        key = jax.random.fold_in(jax.random.key(2), state.step)

        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
            outputs, after = state.apply_fn(variables, x, **options)
            return loss_of(outputs, y), after

        gradient, after = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradient, batch_stats=after["batch_stats"])

    for batch in BATCHES:
        state = step(state, *batch)
    assert isinstance(state, OwnState)
    return state.params, state.batch_stats


def by_relin(framework, k):
    if framework == "nnx":
        apply, params = il.from_nnx(NNXNetwork(), statistics="batch", dropout=True)
    elif framework == "equinox":
        module, state = eqx.nn.make_with_state(EquinoxNetwork)()
        apply, params = il.from_equinox(module, state=state, statistics="batch")
    else:
        rngs = {"dropout": jax.random.key(2)}
        apply, params = il.from_linen(LinenNetwork(), linen_start(), train=False, training={"train": True}, rngs=rngs)
    problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(OPTIMISER)
    solution = il.train(problem, solver, il.Every(k), params, BATCHES, num_steps=STEPS, key=jax.random.key(0))
    after = apply.with_variables(solution.variables)
    if framework == "nnx":
        return solution.params, nnx.to_pure_dict(nnx.state(after.combine(solution.params), nnx.BatchStat))
    if framework == "equinox":
        return solution.params, jax.tree.leaves(after.state)
    return solution.params, after.combine(solution.params)["batch_stats"]


LOOPS = {
    "nnx": (of_nnx, relin.nnx.Linearised),
    "equinox": (of_equinox, relin.equinox.Linearised),
    "linen": (of_linen, relin.linen.linearised),
}


def compare(found, expected, check):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        check(a, b)


@pytest.mark.parametrize("framework", LOOPS)
def test_every_step_is_the_ordinary_loop_bit_for_bit(framework):
    loop, linearised = LOOPS[framework]
    ordinary = loop(lambda model: model)
    compare(loop(lambda model: linearised(model, il.Every(1))), ordinary, np.testing.assert_array_equal)


@pytest.mark.parametrize("framework", LOOPS)
def test_a_traced_period_of_one_is_the_ordinary_loop_to_rounding(framework):
    """AtSteps of every step is not known to be ordinary training: it takes J (θ − θ_s) = 0."""
    loop, linearised = LOOPS[framework]
    found = loop(lambda model: linearised(model, il.AtSteps(list(range(1, STEPS + 1)))))
    compare(found, loop(lambda model: model), lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9))


@pytest.mark.parametrize("framework", LOOPS)
def test_longer_periods_are_those_of_train(framework):
    """Dropout's masks, running statistics, clipping and weight decay of θ included."""
    loop, linearised = LOOPS[framework]
    found = loop(lambda model: linearised(model, il.Every(3)))
    compare(found, by_relin(framework, 3), lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9))
    ordinary = jax.tree.leaves(loop(lambda model: model)[0])
    assert any(abs(a - b).max() > 1e-5 for a, b in zip(jax.tree.leaves(found[0]), ordinary, strict=True))
