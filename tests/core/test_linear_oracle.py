"""Between re-linearisations the network is the explicit linear model f(θ_s) + J δ, with J a dense matrix."""

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
NEVER = lambda step, now: False  # noqa: E731
EVERY_4 = lambda step, now: step % 4 == 0  # noqa: E731


def trained(loss, solver, schedule, apply=oracles.mlp, params=None, **options):
    params = oracles.mlp_params() if params is None else params
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY} | options
    data = oracles.data(loss, images=apply is oracles.cnn)
    return il.train(il.Problem(apply, loss), solver, schedule, params, data, **options)


def expected(loss, optimiser, relinearises, apply=oracles.mlp, params=None, **options):
    params = oracles.mlp_params() if params is None else params
    batches = oracles.minibatches(*oracles.data(loss, images=apply is oracles.cnn), STEPS)
    return oracles.dense_loop(apply, loss, optimiser, params, batches, relinearises, **options)


def check(solution, wanted):
    params, anchor, displacement, steps = wanted
    np.testing.assert_allclose(oracles.flat(solution.params), params, atol=1e-10, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-10, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-10, rtol=0)
    assert solution.feature_updates == len(steps)


@pytest.mark.parametrize(
    ("loss", "optimiser"),
    [
        (il.CrossEntropy(), optax.sgd(0.3)),
        (il.SquaredError(), optax.sgd(0.05, momentum=0.9, nesterov=True)),
        (il.CrossEntropy(), optax.adamw(0.05, weight_decay=0.2)),
    ],
    ids=["sgd", "nesterov", "adamw"],
)
def test_never_and_a_middle_period_equal_the_dense_linear_model(loss, optimiser):
    solver = il.WeightSpace(optimiser)
    lazy = trained(loss, solver, il.Never())
    check(lazy, expected(loss, optimiser, NEVER))
    assert oracles.same_bits(lazy.anchor, oracles.mlp_params())
    check(trained(loss, solver, il.Every(4)), expected(loss, optimiser, EVERY_4))


def test_convolutional_network_on_the_host_equals_the_dense_linear_model():
    loss, optimiser, params = il.SquaredError(), optax.sgd(0.02, momentum=0.9), oracles.cnn_params()
    solution = trained(loss, il.WeightSpace(optimiser), il.Every(4), oracles.cnn, params)
    check(solution, expected(loss, optimiser, EVERY_4, oracles.cnn, params))


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_full_batches_linearised_once_an_anchor_equal_the_dense_linear_model(drive):
    loss, optimiser, params = il.CrossEntropy(), optax.sgd(0.1, momentum=0.9), oracles.mlp_params()
    solution = trained(loss, il.WeightSpace(optimiser), il.Every(4), batch_size=None, drive=drive)
    batches = [oracles.data(loss)] * STEPS
    check(solution, oracles.dense_loop(oracles.mlp, loss, optimiser, params, batches, EVERY_4))


def test_full_batches_are_linearised_once_an_anchor():
    """A network that counts its evaluations from within."""
    count = []

    def counted(params, x):
        jax.debug.callback(lambda: count.append(1))
        return oracles.mlp(params, x)

    trained(il.CrossEntropy(), il.WeightSpace(optax.sgd(0.1)), il.Every(4), counted, batch_size=None)
    jax.effects_barrier()
    assert len(count) == 3


def test_weight_decay_acts_on_the_networks_parameters():
    """Decay by the displacement alone, or by the anchor alone, would end elsewhere."""
    loss, rate, decay = il.CrossEntropy(), 0.1, 0.5
    solution = trained(loss, il.WeightSpace(optax.adamw(rate, weight_decay=decay)), il.Never(), num_steps=1)
    plain = trained(loss, il.WeightSpace(optax.adam(rate)), il.Never(), num_steps=1)
    difference = oracles.flat(solution.displacement) - oracles.flat(plain.displacement)
    np.testing.assert_allclose(difference, -rate * decay * oracles.flat(oracles.mlp_params()), atol=1e-14)


def fresh_moments_kept_counts(state, fresh):
    """By hand for `chain(clip, trace, scale_by_schedule)`: the momentum begins anew, the schedule's count lives on."""
    return state[0], fresh[1], state[2]


def fresh_moments_kept_hyperparameters(state, fresh):
    """By hand for `inject_hyperparams(sgd)`: everything lives on but the momentum inside."""
    return state._replace(inner_state=fresh.inner_state)


def masked_moments(state, fresh):
    """By hand for `partition`: as the first, one level down in a dictionary."""
    inner = state.inner_states["all"]
    kept = inner._replace(
        inner_state=fresh_moments_kept_counts(inner.inner_state, fresh.inner_states["all"].inner_state)
    )
    return state._replace(inner_states={"all": kept})


CHAIN = optax.chain(optax.clip_by_global_norm(2.0), optax.trace(0.9), optax.scale_by_schedule(lambda t: -RATE(t)))


@pytest.mark.parametrize(
    ("optimiser", "reset"),
    [
        (optax.adam(0.05), lambda state, fresh: fresh),
        (CHAIN, fresh_moments_kept_counts),
        (
            optax.inject_hyperparams(functools.partial(optax.sgd, momentum=0.9))(learning_rate=RATE),
            fresh_moments_kept_hyperparameters,
        ),
        (optax.partition({"all": CHAIN}, lambda params: jax.tree.map(lambda _: "all", params)), masked_moments),
    ],
    ids=["adam", "chain", "inject_hyperparams", "partition"],
)
def test_reset_begins_moments_anew_and_keeps_the_learning_rates_place(optimiser, reset):
    loss = il.CrossEntropy()
    wanted = expected(loss, optimiser, EVERY_4, reset=reset)
    check(trained(loss, il.WeightSpace(optimiser, "reset"), il.Every(4)), wanted)
    kept = expected(loss, optimiser, EVERY_4)
    assert np.max(np.abs(kept[0] - wanted[0])) > 1e-4


def test_reset_in_ordinary_training_forgets_the_momentum_every_step():
    loss, x_y = il.CrossEntropy(), oracles.data(il.CrossEntropy())
    solution = trained(loss, il.WeightSpace(optax.sgd(0.1, momentum=0.9), "reset"), il.Every(1))
    batches = oracles.minibatches(*x_y, STEPS)
    plain = oracles.ordinary_loop(oracles.mlp, loss, optax.sgd(0.1), oracles.mlp_params(), batches)
    np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(plain), atol=1e-14)


def test_one_compilation_serves_every_period():
    """A second K adds neither a trace of the network nor a compilation."""
    traces, compilations = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compilations.append(event) if event.endswith("backend_compile_duration") else None
    )

    def counted(params, x):
        traces.append(x.shape)
        return oracles.mlp(params, x)

    problem, solver = il.Problem(counted, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1))
    params, data, counts = oracles.mlp_params(), oracles.data(il.CrossEntropy()), []
    for k in (2, 3, 5, 100):
        il.train(problem, solver, il.Every(k), params, data, num_steps=4, batch_size=4, key=oracles.KEY)
        counts.append((len(traces), len(compilations)))
    assert counts[0][0] > 0
    assert counts[0][1] > 0
    assert counts[1:] == [counts[0]] * 3


def test_linearisation_equals_the_dense_jacobian():
    params = oracles.mlp_params()
    dense, theta = oracles.Dense(oracles.mlp, params), oracles.flat(params)
    x, _ = oracles.data(il.CrossEntropy())
    unravel = jax.flatten_util.ravel_pytree(params)[1]
    random = np.random.default_rng(0)
    direction, cotangent = random.normal(size=theta.shape), random.normal(size=(len(x), oracles.NUM_CLASSES))
    jacobian = np.asarray(dense.jacobian(theta, x))
    lin, delta = il.Linearisation(oracles.mlp, params), unravel(jnp.asarray(direction))
    close = functools.partial(np.testing.assert_allclose, atol=1e-12, rtol=0)
    close(lin.at_anchor(x), dense.value(theta, x))
    close(lin.jvp(delta, x), jacobian @ direction)
    close(lin.value(delta, x), dense.value(theta, x) + jacobian @ direction)
    close(oracles.flat(lin.vjp(x, jnp.asarray(cotangent))), np.einsum("bcp,bc->p", jacobian, cotangent))
    close(lin.network(delta, x), dense.value(theta + direction, x))
    moved = lin.moved(delta)
    close(oracles.flat(moved.anchor), theta + direction)
    close(moved.jvp(delta, x), np.asarray(dense.jacobian(theta + direction, x)) @ direction)
    left = np.vdot(lin.jvp(delta, x), cotangent)
    right = np.vdot(direction, oracles.flat(lin.vjp(x, jnp.asarray(cotangent))))
    assert abs(left - right) < 1e-12 * abs(left)


def test_linearisation_error_is_of_second_order():
    params, (x, _) = oracles.mlp_params(), oracles.data(il.CrossEntropy())
    lin = il.Linearisation(oracles.mlp, params)
    random = np.random.default_rng(0)
    direction = jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape)), params)
    sizes = 10.0 ** -np.arange(1.0, 4.0)
    errors = []
    for size in sizes:
        delta = jax.tree.map(lambda a, size=size: size * a, direction)
        errors.append(np.linalg.norm(lin.network(delta, x) - lin.value(delta, x)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope - 2) < 0.05
