"""Optimisers that ask for the loss as a function of the parameters, against plain Optax loops that give it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._solver import SolverState

LOSS = il.CrossEntropy()
PROBLEM = il.Problem(oracles.mlp, LOSS)
X, Y = oracles.data(LOSS)
STEPS = 6
OPTIMISERS = {
    "lbfgs": optax.lbfgs(memory_size=3),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10, store_grad=True)),
    "polyak, plateau": optax.chain(optax.polyak_sgd(0.5), optax.contrib.reduce_on_plateau(patience=1, rtol=0.5)),
}


def trained(optimiser, schedule, num_steps=STEPS, **options):
    solver = il.WeightSpace(optimiser, **options)
    return il.train(PROBLEM, solver, schedule, oracles.mlp_params(), (X, Y), num_steps=num_steps, key=oracles.KEY)


def plain_loop(optimiser, function, params, num_steps=STEPS):
    """The loop of Optax's documentation of its line searches."""

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(function)(params)
        updates, state = optax.with_extra_args_support(optimiser).update(
            grad, state, params, value=value, grad=grad, value_fn=function
        )
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for _ in range(num_steps):
        params, state = step(params, state)
    return params


def network_loss(params):
    return oracles.mean_loss(LOSS, oracles.mlp(params, X), Y)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_ordinary_training_equals_a_plain_loop(name):
    wanted = plain_loop(OPTIMISERS[name], network_loss, oracles.mlp_params())
    solution = trained(OPTIMISERS[name], il.Every(1))
    np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(wanted), atol=1e-11, rtol=0)
    assert network_loss(solution.params) < 0.8 * network_loss(oracles.mlp_params())
    moved = oracles.flat(solution.params) - oracles.flat(solution.anchor)
    np.testing.assert_allclose(oracles.flat(solution.displacement), moved, atol=1e-14)


def test_lazy_training_equals_a_plain_loop_on_the_dense_linear_model():
    dense, anchor = oracles.dense_of(oracles.mlp), oracles.flat(oracles.mlp_params())
    jacobian, at_anchor = dense.jacobian(anchor, X), dense.value(anchor, X)

    def linear_loss(theta):
        return oracles.mean_loss(LOSS, at_anchor + jacobian @ (theta - anchor), Y)

    wanted = plain_loop(OPTIMISERS["lbfgs"], linear_loss, jnp.asarray(anchor), 10)
    solution = trained(OPTIMISERS["lbfgs"], il.Never(), 10)
    np.testing.assert_allclose(oracles.flat(solution.params), wanted, atol=1e-9, rtol=0)
    error = dense.value(wanted, X) - dense.linearised(anchor, wanted - anchor, X)
    assert np.max(np.abs(error)) > 1e-2  # the linear model is not the network any more
    assert linear_loss(wanted) < 0.5 * linear_loss(anchor)


def asking():
    """Gradient descent that keeps what it was given, and what `value_fn` says."""

    def update(updates, state, params, *, value, grad, value_fn, **others):
        shifted = jax.tree.map(lambda a: a + 0.1, params)
        seen = {"value": value, "grad": grad, "here": value_fn(params), "there": value_fn(shifted)}
        seen["slope"] = jax.grad(value_fn)(params)
        return jax.tree.map(lambda g: -0.3 * g, updates), seen

    def init(params):
        none = jnp.zeros(())
        return {"value": none, "grad": params, "here": none, "there": none, "slope": params}

    return optax.GradientTransformationExtraArgs(init, update)


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_the_loss_is_the_linearised_networks_with_the_proximal_term(damping):
    before, solution = (trained(asking(), il.Never(), steps, proximal=damping) for steps in (3, 4))
    seen = solution.optimiser_state
    dense, anchor = oracles.dense_of(oracles.mlp), oracles.flat(before.anchor)
    delta = oracles.flat(before.displacement)

    def objective(displacement):
        loss = oracles.mean_loss(LOSS, dense.linearised(anchor, displacement, X), Y)
        return float(loss) + damping / 2 * float(np.sum(displacement**2))

    assert objective(delta) < objective(0 * delta) - 1e-3
    np.testing.assert_allclose(seen["value"], objective(delta), rtol=1e-12)
    np.testing.assert_allclose(seen["there"], objective(delta + 0.1), rtol=1e-12)
    np.testing.assert_allclose(seen["here"], seen["value"], rtol=1e-14)
    np.testing.assert_allclose(oracles.flat(seen["slope"]), oracles.flat(seen["grad"]), atol=1e-14)
    direction = np.random.default_rng(0).normal(size=delta.size)
    difference = (objective(delta + 1e-5 * direction) - objective(delta - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(direction @ oracles.flat(seen["grad"]), difference, rtol=1e-7)


def test_the_recorded_loss_is_without_the_proximal_term():
    solution = trained(optax.sgd(0.3), il.Never(), 1, proximal=0.7)
    np.testing.assert_allclose(solution.records["training_loss"][1], network_loss(oracles.mlp_params()), rtol=1e-12)


def test_an_optimiser_that_does_not_ask_never_evaluates_the_loss_again():
    calls = []

    def counted(params, x):
        calls.append(1)
        return oracles.mlp(params, x)

    problem, state = il.Problem(counted, LOSS), il.WeightSpace(optax.sgd(0.1)).init(oracles.mlp_params())
    problem.linearised_value_and_grad(state.anchor, state.displacement, X, Y)  # finds out how it is linearised
    calls.clear()
    problem.linearised_value_and_grad(state.anchor, state.displacement, X, Y)
    once = len(calls)
    il.WeightSpace(optax.sgd(0.1)).step(problem, state, X, Y)
    assert len(calls) == 2 * once > 0


@pytest.mark.parametrize("how", ["keep", 0.5, "reset"])
def test_what_holds_no_moments_is_kept_by_a_factor_and_begun_anew_by_a_reset(how):
    """A line search's state begins with an infinite loss, of which no fraction can be taken."""
    params = oracles.mlp_params()
    chain = optax.chain(OPTIMISERS["lbfgs"], OPTIMISERS["backtracking"], optax.trace(0.9))
    solver = il.WeightSpace(chain, on_relinearise=how)
    used = jax.tree.map(lambda a: jnp.full_like(a, 3), chain.init(params))
    *memories, moments = solver.relinearise(SolverState(params, params, used)).optimiser
    expected = used if how != "reset" else chain.init(jax.tree.map(lambda a: 2 * a, params))
    assert oracles.same_bits(memories, list(expected[:-1]))
    assert set(oracles.flat(moments)) == {{"keep": 3.0, 0.5: 1.5, "reset": 0.0}[how]}
