"""The proximal term, and shrunk optimiser states, against dense linear models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

STEPS = 9
RATE = optax.exponential_decay(0.1, 1, 0.8)
EVERY_4 = lambda step, now: step % 4 == 0  # noqa: E731


def trained(loss, solver, schedule, **options):
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY} | options
    problem, params = il.Problem(oracles.mlp, loss), oracles.mlp_params()
    return il.train(problem, solver, schedule, params, oracles.data(loss), **options)


def damped_by_hand(loss, optimiser, damping):
    """Explicit linear models with λ δ added to the gradient, re-linearised every 4 steps."""
    dense, anchor = oracles.dense_of(oracles.mlp), oracles.flat(oracles.mlp_params())
    displacement, state = np.zeros_like(anchor), optimiser.init(jnp.asarray(anchor))
    for step, (x, y) in enumerate(oracles.minibatches(*oracles.data(loss), STEPS)):
        if step in (4, 8):
            anchor, displacement = anchor + displacement, np.zeros_like(anchor)
        jacobian = dense.jacobian(anchor, x)
        gradient = oracles.dense_gradient(loss, dense.value(anchor, x) + jacobian @ displacement, jacobian, y)
        gradient = jnp.asarray(gradient + damping * displacement)
        updates, state = optimiser.update(gradient, state, jnp.asarray(anchor + displacement))
        displacement = displacement + np.asarray(updates)
    return anchor, displacement


@pytest.mark.parametrize(
    ("loss", "optimiser", "drive"),
    [
        (il.CrossEntropy(), optax.sgd(0.3, momentum=0.9), "compiled"),
        (il.SquaredError(), optax.adamw(0.05, weight_decay=0.2), "host"),
    ],
)
def test_the_linearised_problem_is_damped(loss, optimiser, drive):
    damping = 0.7
    solution = trained(loss, il.WeightSpace(optimiser, proximal=damping), il.Every(4), drive=drive)
    anchor, displacement = damped_by_hand(loss, optimiser, damping)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-10, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-10, rtol=0)
    undamped, _ = damped_by_hand(loss, optimiser, 0.0)
    assert np.max(np.abs(anchor - undamped)) > 1e-3


def test_the_converged_displacement_is_the_damped_gauss_newton_step():
    """δ → −(G + λI)⁻¹ ∇L(θ_s) for the squared error, for three λ in one program."""
    loss, params, dampings = il.SquaredError(), oracles.mlp_params(), jnp.asarray([0.3, 1.0, 4.0])
    x, y = oracles.data(loss)

    def make(damping):
        solver = il.WeightSpace(optax.sgd(0.05, momentum=0.5), proximal=damping)
        return il.Run(il.Problem(oracles.mlp, loss), solver, il.Never(), params, oracles.KEY)

    lanes = il.train_lanes(make, dampings, (x, y), num_steps=1500)
    dense, theta = oracles.dense_of(oracles.mlp), oracles.flat(params)
    jacobian, outputs = np.asarray(dense.jacobian(theta, x)), np.asarray(dense.value(theta, x))
    gauss_newton = np.einsum("bcp,bcq->pq", jacobian, jacobian) / len(x)  # H = I
    gradient = oracles.dense_gradient(loss, outputs, jacobian, y)
    for damping, lane in zip(np.asarray(dampings), lanes, strict=True):
        step = -np.linalg.solve(gauss_newton + damping * np.eye(len(theta)), gradient)
        np.testing.assert_allclose(oracles.flat(lane.displacement), step, atol=1e-11, rtol=0)
        assert np.linalg.norm(step) > 0.05


def test_ordinary_training_is_undamped_bit_for_bit():
    loss, optimiser = il.CrossEntropy(), optax.adam(0.03)
    solution = trained(loss, il.WeightSpace(optimiser, proximal=2.0), il.Every(1))
    batches = oracles.minibatches(*oracles.data(loss), STEPS)
    looped = oracles.ordinary_loop(oracles.mlp, loss, optimiser, oracles.mlp_params(), batches)
    assert oracles.same_bits(solution.params, looped)


def test_a_damping_of_zero_changes_nothing():
    loss, optimiser = il.CrossEntropy(), optax.sgd(0.3, momentum=0.9)
    plain = trained(loss, il.WeightSpace(optimiser), il.Every(4), batch_size=None)
    zero = trained(loss, il.WeightSpace(optimiser, proximal=jnp.asarray(0.0)), il.Every(4), batch_size=None)
    np.testing.assert_allclose(oracles.flat(zero.params), oracles.flat(plain.params), atol=1e-13, rtol=0)


FACTOR = 0.3


def times(tree):
    return jax.tree.map(lambda a: FACTOR * a, tree)


def shrunk_momentum(state, fresh):
    """By hand for `chain(clip, trace, scale_by_schedule)`: the momentum shrinks, the schedule's count lives on."""
    return state[0], state[1]._replace(trace=times(state[1].trace)), state[2]


def shrunk_hyperparameters(state, fresh):
    """By hand for `inject_hyperparams(sgd)`: the momentum inside shrinks, the rate and its count do not."""
    inner = state.inner_state
    assert len(jax.tree.leaves(inner)) == 1
    return state._replace(inner_state=times(inner))


def shrunk_adam(state, fresh):
    """By hand for `adam`: both moments shrink, the count of their bias correction lives on."""
    return state[0]._replace(mu=times(state[0].mu), nu=times(state[0].nu)), *state[1:]


@pytest.mark.parametrize(
    ("optimiser", "shrunk"),
    [
        (
            optax.chain(
                optax.clip_by_global_norm(2.0), optax.trace(0.9), optax.scale_by_schedule(lambda t: -3 * RATE(t))
            ),
            shrunk_momentum,
        ),
        (
            optax.inject_hyperparams(functools.partial(optax.sgd, momentum=0.9))(learning_rate=RATE),
            shrunk_hyperparameters,
        ),
        (optax.adam(0.05), shrunk_adam),
    ],
    ids=["chain", "inject_hyperparams", "adam"],
)
def test_moments_shrink_and_counts_live_on(optimiser, shrunk):
    loss = il.CrossEntropy()
    batches = oracles.minibatches(*oracles.data(loss), STEPS)
    by_hand = functools.partial(
        oracles.dense_loop, oracles.mlp, loss, optimiser, oracles.mlp_params(), batches, EVERY_4
    )
    params, anchor, _, _ = by_hand(reset=shrunk)
    solution = trained(loss, il.WeightSpace(optimiser, FACTOR), il.Every(4))
    np.testing.assert_allclose(oracles.flat(solution.params), params, atol=1e-10, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-10, rtol=0)
    for other in (lambda state, fresh: state, lambda state, fresh: fresh):
        assert np.max(np.abs(by_hand(reset=other)[0] - params)) > 1e-4


def test_shrinking_in_ordinary_training_is_a_smaller_momentum():
    """The momentum 0.9 shrunk by 0.3 before each step is a momentum of 0.27."""
    loss = il.CrossEntropy()
    solution = trained(loss, il.WeightSpace(optax.sgd(0.1, momentum=0.9), FACTOR), il.Every(1))
    batches = oracles.minibatches(*oracles.data(loss), STEPS)
    optimiser = optax.sgd(0.1, momentum=0.9 * FACTOR)
    plain = oracles.ordinary_loop(oracles.mlp, loss, optimiser, oracles.mlp_params(), batches)
    np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(plain), atol=1e-13, rtol=0)
