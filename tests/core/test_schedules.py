"""Each schedule re-linearises at the steps its documentation names."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

STEPS = 30
FAST = il.Problem(lambda params, x: x @ params, il.SquaredError())
SOLVER = il.WeightSpace(optax.sgd(0.01))


def relinearisations(schedule, num_steps=STEPS):
    """The steps after 0 before which features were updated, read off a record of every step."""
    x = jnp.eye(2)
    options = {"num_steps": num_steps, "key": oracles.KEY, "record_every": 1}
    solution = il.train(FAST, SOLVER, schedule, jnp.ones((2, 2)), (x, x), **options)
    updates = solution.records["feature_updates"]
    assert updates[-1] == solution.feature_updates
    return {step for step in range(num_steps) if updates[step + 1] > updates[step]}


def multiples(k):
    return {step for step in range(1, STEPS) if step % k == 0}


def shown(value):
    """A name that is the same in every process, which the order of a set is not."""
    return repr(sorted(value) if isinstance(value, set) else value)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (il.Every(1), set(range(1, STEPS))),
        (il.Every(2), multiples(2)),
        (il.Every(7), {7, 14, 21, 28}),
        (il.Every(jnp.asarray(7)), {7, 14, 21, 28}),
        (il.Every(STEPS), set()),
        (il.Never(), set()),
        (il.AtSteps([0, 3, 17, 3, 100]), {3, 17}),
        (il.AtSteps([]), set()),
        (il.Geometric(1, 2), {1, 2, 4, 8, 16}),
        (il.Geometric(3, 1.5), {3, 4, 7, 10, 15, 23}),  # 3, 4.5, 6.75, 10.125, 15.19, 22.78; the half rounds to even
        (il.EqualTime(0.1, 30, 4), {6, 12, 18, 24}),
        (il.EqualTime(optax.linear_schedule(0.1, 0.0, 30), 30, 3), {4, 9, 15}),  # 30 (1 − √(1 − i/4)): 4.0, 8.8, 15
        (il.EqualTime(lambda step: jnp.where(step < 2, 1.0, 0.0), 30, 3), {1, 2, 3}),  # no two at one step
        (il.EqualTime(lambda step: jnp.where(step < 28, 0.0, 1.0), 30, 4), {26, 27, 28, 29}),
        (il.EqualTime(0.1, 30, 29), set(range(1, STEPS))),
        (il.EqualTime(0.1, 26, 4), {5, 10, 16, 21}),  # 5.2, 10.4, 15.6, 20.8
        (il.EqualTime(lambda step: 1.0 if step < 15 else 0.5, 30, 2), {8, 15}),  # 22.5 in 3: 7.5, 15
        (il.AtSteps(jnp.asarray([17, 100, 3])), {3, 17}),
        (il.AtSteps(jnp.asarray([17, 3, *range(40, 2000)])), {3, 17}),
        (il.Geometric(2, 1.001), set(range(2, STEPS))),
        (il.Until(il.Every(4), 13), {4, 8, 12}),
        (il.Until(il.Every(4), 12), {4, 8}),
        (il.Until(il.Every(4), 0), set()),
        (il.After(il.Every(8), 10), {16, 24}),
        (il.After(il.Every(8), 16), {16, 24}),
        (il.After(il.Until(il.Every(3), 20), 7), {9, 12, 15, 18}),
        (il.WhenError(0.0, check_every=6), {6, 12, 18, 24}),
        (il.WhenError(1e9, check_every=1), set()),
        (il.WhenLossGap(0.0, check_every=7), {7, 14, 21, 28}),
        (il.WhenFunctionMoves(1e9, check_every=1), set()),
    ],
    ids=shown,
)
def test_steps_of_each_schedule(schedule, expected):
    assert relinearisations(schedule) == expected


def test_number_of_feature_updates():
    """⌈T/K⌉ − 1, for K that divide T, that do not, and that exceed it."""
    x, found, wanted = jnp.eye(2), [], []
    for num_steps in (4, 9, 12):
        for k in (1, 2, 3, 4, 5, 12, 50):
            options = {"num_steps": num_steps, "key": oracles.KEY, "record_every": 4}
            found.append(il.train(FAST, SOLVER, il.Every(k), jnp.ones((2, 2)), (x, x), **options).feature_updates)
            wanted.append(-(-num_steps // k) - 1)
    assert found == wanted


@pytest.mark.parametrize("drive", ["compiled", "host"])
@pytest.mark.parametrize("with_probe", [False, True])
def test_when_error_asks_at_the_steps_a_hand_written_loop_finds(with_probe, drive):
    """The error is computed from dense outputs, on half of the coming step's batch or on a given probe."""
    loss, tolerance, every = il.CrossEntropy(), 0.2, 2
    optimiser, (x, y) = optax.sgd(0.5, momentum=0.5), oracles.data(il.CrossEntropy())
    probe = x[:3] + 1.0 if with_probe else None
    asked = []

    def passes(step, now):
        dense, anchor, displacement, batch = now
        if step % every:
            return False
        inputs = batch[: len(batch) // 2] if probe is None else probe
        network, at_anchor = dense.value(anchor + displacement, inputs), dense.value(anchor, inputs)
        linearised = dense.linearised(anchor, displacement, inputs)
        asked.append(float(np.linalg.norm(network - linearised) / np.linalg.norm(network - at_anchor)))
        return asked[-1] >= tolerance

    batches = oracles.minibatches(x, y, 16)
    wanted = oracles.dense_loop(oracles.mlp, loss, optimiser, oracles.mlp_params(), batches, passes)
    assert min(asked) < tolerance < max(asked)  # the oracle both does and does not re-linearise
    assert min(abs(error - tolerance) for error in asked) > 1e-6
    problem, schedule = il.Problem(oracles.mlp, loss), il.WhenError(tolerance, every, probe)
    options = {"num_steps": 16, "batch_size": oracles.BATCH, "key": oracles.KEY, "drive": drive, "record_every": 1}
    solution = il.train(problem, il.WeightSpace(optimiser), schedule, oracles.mlp_params(), (x, y), **options)
    updates = solution.records["feature_updates"]
    assert [step for step in range(16) if updates[step + 1] > updates[step]] == wanted[3]
    np.testing.assert_allclose(oracles.flat(solution.params), wanted[0], atol=1e-10, rtol=0)


def loss_gap(dense, anchor, displacement, x, y):
    loss = il.CrossEntropy()
    network, linearised = dense.value(anchor + displacement, x), dense.linearised(anchor, displacement, x)
    return abs(float(oracles.mean_loss(loss, network, y) - oracles.mean_loss(loss, linearised, y)))


def function_movement(dense, anchor, displacement, x, y):
    moved = np.asarray(dense.jacobian(anchor, x) @ displacement)
    return float(np.sqrt(np.mean(np.sum(moved**2, axis=1))))


@pytest.mark.parametrize(
    ("kind", "measure", "tolerance", "with_probe", "drive"),
    [
        (il.WhenLossGap, loss_gap, 0.1, False, "compiled"),
        (il.WhenLossGap, loss_gap, 0.1, True, "host"),
        (il.WhenFunctionMoves, function_movement, 1.3, True, "compiled"),
        (il.WhenFunctionMoves, function_movement, 1.3, False, "host"),
    ],
)
def test_other_measures_ask_at_the_steps_a_hand_written_loop_finds(kind, measure, tolerance, with_probe, drive):
    every, optimiser, (x, y) = 2, optax.sgd(0.5, momentum=0.5), oracles.data(il.CrossEntropy())
    probe = (x[:3] + 1.0, y[:3]) if with_probe else None
    batches, asked = oracles.minibatches(x, y, 16), []

    def passes(step, now):
        if step % every:
            return False
        asked.append(measure(*now[:3], *(probe or (part[: len(part) // 2] for part in batches[step]))))
        return asked[-1] >= tolerance

    wanted = oracles.dense_loop(oracles.mlp, il.CrossEntropy(), optimiser, oracles.mlp_params(), batches, passes)
    assert min(asked) < tolerance < max(asked)  # the oracle both does and does not re-linearise
    assert min(abs(value - tolerance) for value in asked) > 1e-6
    shown = probe[0] if probe and kind is il.WhenFunctionMoves else probe
    problem, schedule = il.Problem(oracles.mlp, il.CrossEntropy()), kind(tolerance, every, shown)
    options = {"num_steps": 16, "batch_size": oracles.BATCH, "key": oracles.KEY, "drive": drive, "record_every": 1}
    solution = il.train(problem, il.WeightSpace(optimiser), schedule, oracles.mlp_params(), (x, y), **options)
    updates = solution.records["feature_updates"]
    assert [step for step in range(16) if updates[step + 1] > updates[step]] == wanted[3]
    np.testing.assert_allclose(oracles.flat(solution.params), wanted[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("kind", "drive"),
    [
        (il.WhenError, "compiled"),
        (il.WhenError, "host"),
        (il.WhenLossGap, "compiled"),
        (il.WhenFunctionMoves, "compiled"),
    ],
)
def test_a_tolerance_of_zero_is_a_fixed_period_bit_for_bit(kind, drive):
    loss = il.CrossEntropy()
    options = {"num_steps": 11, "key": oracles.KEY, "drive": drive}
    arguments = il.Problem(oracles.mlp, loss), il.WeightSpace(optax.adam(0.1))
    period, adaptive = (
        il.train(*arguments, schedule, oracles.mlp_params(), oracles.data(loss), **options)
        for schedule in (il.Every(3), kind(0.0, 3))
    )
    for part in ("params", "anchor", "displacement", "optimiser_state"):
        assert oracles.same_bits(getattr(adaptive, part), getattr(period, part))
    assert adaptive.feature_updates == period.feature_updates == 3


def test_a_measure_that_is_not_a_number_does_not_relinearise():
    x = jnp.ones((1, 1))
    problem = il.Problem(lambda params, x: jnp.log(params) + 0 * x, il.SquaredError())
    context = il.Context(problem, x, -2.0 * x, 3, 0, x, x)
    for schedule in (il.WhenError(0.0), il.WhenLossGap(0.0)):
        assert np.isnan(schedule.measure(context))
        assert not schedule.query(context, ())[0]
    assert il.WhenFunctionMoves(1.999).query(context, ())[0]  # the linearised network: log 1 − 2
    assert not il.WhenFunctionMoves(2.001).query(context, ())[0]


class EveryOtherTime(il.AbstractSchedule):
    """A user's schedule with a state: of every three steps, re-linearises at every second question."""

    @property
    def adaptive(self):
        return True

    def due(self, step):
        return step % 3 == 0

    def init(self, context):
        return jnp.zeros((), bool)

    def query(self, context, state):
        return state, ~state


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: il.Until(s, 20), lambda s: il.After(s, 5)])
def test_a_users_schedule_with_a_state(wrap):
    schedule = wrap(EveryOtherTime())
    questions = [step for step in range(1, STEPS) if step % 3 == 0]
    if isinstance(schedule, il.Until):
        questions = [step for step in questions if step < 20]
    if isinstance(schedule, il.After):
        questions = [step for step in questions if step >= 5]
    assert relinearisations(schedule) == set(questions[1::2])
