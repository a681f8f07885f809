"""Adaptive schedules in each framework's own loop: asked as `il.train` asks them, by a call on a probe."""

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

STEPS = 24
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(8, 4))), jnp.asarray(RNG.integers(0, 3, 8))
PROBE = jnp.asarray(RNG.normal(size=(5, 4)))
SHAPES = {"w1": (4, 8), "b1": (8,), "w2": (8, 3)}
START = {name: jnp.asarray(RNG.normal(size=shape) / 2) for name, shape in SHAPES.items()}
OPTIMISER = optax.adam(0.1)


def network(params, x):
    hidden = x @ params["w1"]
    return jnp.tanh(hidden + jnp.broadcast_to(params["b1"], hidden.shape)) @ params["w2"]


def loss_of(outputs):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, Y).mean()


class OfEquinox(eqx.Module):
    params: dict

    def __call__(self, x):
        return network(self.params, x)


class OfNNX(nnx.Module):
    def __init__(self):
        self.params = nnx.Dict({name: nnx.Param(value) for name, value in START.items()})

    def __call__(self, x):
        return network({name: self.params[name][...] for name in SHAPES}, x)


class OfLinen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return network({name: self.param(name, lambda _, n=name: START[n]) for name in SHAPES}, x)


def by_equinox(schedule, jit):
    """The parameters after each step, the anchor's moves and the last error."""
    model = relin.equinox.Linearised(OfEquinox(dict(START)), schedule)
    state = OPTIMISER.init(eqx.filter(model, eqx.is_inexact_array))

    def step(model, state):
        gradient = eqx.filter_grad(lambda model: loss_of(jax.vmap(model)(X)))(model)
        updates, state = OPTIMISER.update(gradient, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates).step(lambda module: jax.vmap(module)(PROBE)), state

    step = eqx.filter_jit(step) if jit else step
    for _ in range(STEPS):
        model, state = step(model, state)
    return model.merged().params, model.feature_updates, model.linearisation_error(lambda m: jax.vmap(m)(PROBE))


def by_nnx(schedule, jit):
    model = relin.nnx.Linearised(OfNNX(), schedule)
    optimiser = nnx.Optimizer(model, OPTIMISER, wrt=nnx.Param)

    def step(model, optimiser):
        optimiser.update(model, nnx.grad(lambda model: loss_of(model(X)))(model))
        model.step(lambda module: module(PROBE))

    step = nnx.jit(step) if jit else step
    for _ in range(STEPS):
        step(model, optimiser)
    params = {name: model.merged().params[name][...] for name in SHAPES}
    return params, model.feature_updates, model.linearisation_error(lambda module: module(PROBE))


def by_linen(schedule, jit):
    state = TrainState.create(apply_fn=OfLinen().apply, params=dict(START), tx=OPTIMISER)
    state = relin.linen.linearised(state, schedule)

    def forward(apply_fn, params):
        return apply_fn({"params": params}, PROBE)

    def step(state):
        gradient = jax.grad(lambda params: loss_of(state.apply_fn({"params": params}, X)))(state.params)
        return state.apply_gradients(grads=gradient, forward=forward)

    step = jax.jit(step) if jit else step
    for _ in range(STEPS):
        state = step(state)
    return state.params, state.feature_updates, state.linearisation_error(forward)


LOOPS = {"equinox": by_equinox, "nnx": by_nnx, "linen": by_linen}
SCHEDULES = {
    "error": lambda **own: il.WhenError(0.1, check_every=2, **own),
    "moves": lambda **own: il.WhenFunctionMoves(0.6, check_every=3, **own),
    "sparser": lambda **own: il.WhenError(0.2, check_every=1, max_check_every=8, **own),
    "limited": lambda **own: il.After(il.Until(il.WhenError(0.1, check_every=2, **own), 20), 5),
}


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("framework", LOOPS)
def test_an_adaptive_schedule_is_that_of_train(framework, kind, jit):
    """`il.train` has asked for a step's move before it, so that it ends one question earlier."""
    params, updates, _ = LOOPS[framework](SCHEDULES[kind](), jit)
    problem, solver = il.Problem(network, il.CrossEntropy()), il.WeightSpace(OPTIMISER)
    schedule = SCHEDULES[kind](probe=PROBE)
    solution, at_end = (
        il.train(problem, solver, schedule, dict(START), [(X, Y)] * n, num_steps=n, key=jax.random.key(0))
        for n in (STEPS + 1, STEPS)
    )
    for name in SHAPES:
        np.testing.assert_allclose(params[name], at_end.params[name], rtol=1e-9, atol=1e-10)
    assert int(updates) == solution.feature_updates
    assert 1 < updates < STEPS - 1


@pytest.mark.parametrize("framework", LOOPS)
def test_the_linearisation_error_is_that_of_its_formula(framework):
    params, updates, error = LOOPS[framework](il.Never(), True)
    assert updates == 0
    jacobian = jax.jacobian(network)(START, PROBE)
    at_anchor, moved = network(START, PROBE), network(params, PROBE)
    change = sum(jnp.tensordot(jacobian[n], params[n] - START[n], axes=params[n].ndim) for n in SHAPES)
    expected = jnp.linalg.norm(moved - at_anchor - change) / jnp.linalg.norm(moved - at_anchor)
    np.testing.assert_allclose(error, expected, rtol=1e-9)
    assert error > 0.1


def test_it_is_zero_at_the_anchor():
    model = relin.nnx.Linearised(OfNNX()).network  # the same module may be wrapped anew
    model = relin.nnx.Linearised(model)
    assert jax.jit(lambda: model.linearisation_error(lambda module: module(PROBE)))() == 0
    model.relinearise()
    assert model.feature_updates == 1


def test_a_question_runs_at_due_steps_only_and_moves_nothing():
    class Noisy(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0, dropout=1)
            self.norm, self.dropout = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.dropout(self.norm(x)))

    model = relin.nnx.Linearised(Noisy(), il.WhenError(0.0, check_every=3))
    model.train()
    before = jax.tree.leaves(nnx.state(model.network, (nnx.BatchStat, nnx.RngCount)))
    asked = []

    def forward(module):
        asked.append(int(model.steps[...]))
        return module(PROBE.astype(jnp.float32))

    for _ in range(7):
        model.step(forward)
    assert set(asked) == {3, 6}
    assert model.feature_updates == 2
    for a, b in zip(before, jax.tree.leaves(nnx.state(model.network, (nnx.BatchStat, nnx.RngCount))), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_no_output_is_not_compared():
    """Losses, and an `eqx.nn.State` beside the outputs."""

    class WithNorm(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __call__(self, x, state):
            return self.norm(x, state)

    module, state = eqx.nn.make_with_state(WithNorm)(eqx.nn.BatchNorm(4, "batch", mode="batch", dtype=jnp.float64))
    model = relin.equinox.Linearised(module)
    model = eqx.apply_updates(model, jax.tree.map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array)))

    def forward(module):
        outputs, after = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(PROBE, state)
        return {"outputs": outputs**2, "loss": 1e6 * jnp.sum(outputs**3)}, after

    error = model.linearisation_error(forward)
    np.testing.assert_allclose(error, model.linearisation_error(lambda m: forward(m)[0]["outputs"]))
    assert 0.1 < error < 1


def test_one_program_serves_every_step_and_may_take_the_models_memory():
    traced = []
    model = relin.equinox.Linearised(OfEquinox(dict(START)), il.WhenError(0.1, check_every=2, max_check_every=8))

    @eqx.filter_jit(donate="all")
    def step(model):
        traced.append(1)
        return model.step(lambda module: jax.vmap(module)(PROBE))

    for _ in range(5):
        model = step(model)
    assert len(traced) == 1
