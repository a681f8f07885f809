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
        (il.Until(il.Every(4), 13), {4, 8, 12}),
        (il.Until(il.Every(4), 12), {4, 8}),
        (il.Until(il.Every(4), 0), set()),
        (il.After(il.Every(8), 10), {16, 24}),
        (il.After(il.Every(8), 16), {16, 24}),
        (il.After(il.Until(il.Every(3), 20), 7), {9, 12, 15, 18}),
        (il.WhenError(0.0, check_every=6), {6, 12, 18, 24}),
        (il.WhenError(1e9, check_every=1), set()),
    ],
    ids=repr,
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
    """The error is computed from dense outputs, on the coming step's batch or on a given probe."""
    loss, tolerance, every = il.CrossEntropy(), 0.2, 2
    optimiser, (x, y) = optax.sgd(0.5, momentum=0.5), oracles.data(il.CrossEntropy())
    probe = x[:3] + 1.0 if with_probe else None
    asked = []

    def passes(step, now):
        dense, anchor, displacement, batch = now
        if step % every:
            return False
        inputs = batch if probe is None else probe
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
