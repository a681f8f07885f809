"""When an adaptive schedule looks: the steps between two looks, and at which examples."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._core.context import Context
from relin._schedule import AbstractWhen

pytestmark = pytest.mark.as_shipped

LOSS = il.CrossEntropy()
PROBLEM = il.Problem(oracles.mlp, LOSS)
X, Y = oracles.data(LOSS)
LINEAR = il.Problem(lambda params, x: x @ params, il.SquaredError())


class Looks:
    """The rule by hand."""

    def __init__(self, tolerance, check_every, max_check_every):
        self.tolerance, self.shortest, self.interval, self.next = tolerance, check_every, check_every, check_every
        self.longest = max_check_every - max_check_every % check_every
        self.looked = []

    def __call__(self, step, measure):
        if step == 0 or step % self.shortest or step < self.next:
            return False
        self.looked.append(step)
        measured = measure()
        if measured >= self.tolerance / 2:
            self.interval = self.shortest
        elif measured < self.tolerance / 4:
            self.interval = min(2 * self.interval, self.longest)
        self.next = step + self.interval
        return measured >= self.tolerance


class Scripted(AbstractWhen):
    """A measure written down in advance, which tells when it was looked at."""

    values: jax.Array
    tolerance: float
    check_every: int
    max_check_every: int | None
    looked: ClassVar[list[int]] = []

    def measure(self, context):
        jax.debug.callback(lambda step: self.looked.append(int(step)), context.step)
        return self.values[context.step]


def followed(schedule, num_steps, drive):
    """The steps at which a scripted schedule looked, and those at which it re-linearised."""
    Scripted.looked.clear()
    options = {"num_steps": num_steps, "key": oracles.KEY, "record_every": 1, "drive": drive}
    solver, x = il.WeightSpace(optax.sgd(0.01)), jnp.eye(2)
    solution = il.train(LINEAR, solver, schedule, jnp.ones((2, 2)), (x, x), **options)
    jax.effects_barrier()
    updates = solution.records["feature_updates"]
    return sorted(Scripted.looked), [step for step in range(num_steps) if updates[step + 1] > updates[step]]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (None, list(range(2, 64, 2))),
        (2, list(range(2, 64, 2))),
        (16, [2, 6, 14, 30, 46, 62]),
        (13, [2, 6, 14, 26, 38, 50, 62]),  # 13 is no multiple of 2: at most 12
    ],
)
def test_looks_grow_rare_far_below_the_tolerance(most, expected):
    assert followed(Scripted(jnp.ones(64), 1e9, 2, most), 64, "compiled") == (expected, [])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: il.Until(il.After(s, 9), 50)], ids=["alone", "composed"])
@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_looks_and_updates_are_those_of_the_rule_by_hand(wrap, drive):
    """Measures in every range of the tolerance, at its quarter and half, and not a number."""
    values = np.random.default_rng(5).choice([0.1, 0.1, 0.1, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0, np.nan], 60)
    rule, updated = Looks(1.0, 1, 8), []
    steps = range(60) if wrap(1) == 1 else range(9, 50)
    for step in steps:
        if rule(step, lambda step=step: values[step]):
            updated.append(step)
    assert len({b - a for a, b in zip(rule.looked, rule.looked[1:], strict=False)}) == 4  # 1, 2, 4 and 8
    assert {0.1, 0.25, 0.5, 1.0} < set(values[rule.looked])
    assert followed(wrap(Scripted(jnp.asarray(values), 1.0, 1, 8)), 60, drive) == (rule.looked, updated)


SOLVER = il.WeightSpace(optax.sgd(0.3, momentum=0.5))
TOLERANCES, INTERVALS, BOUNDS = (0.45, 0.1, 0.45, 0.0), (1, 2, 2, 3), (8, 4, 2, 24)


def options():
    return {"num_steps": 30, "batch_size": oracles.BATCH}


@functools.cache
def by_hand(lane):
    """A run on dense linear models, and the steps at which the error was looked at."""
    rule = Looks(TOLERANCES[lane], INTERVALS[lane], BOUNDS[lane])

    def relinearises(step, now):
        dense, anchor, displacement, x = now
        x = x[: len(x) // 2]

        def error():
            network, at_anchor = dense.value(anchor + displacement, x), dense.value(anchor, x)
            linearised = dense.linearised(anchor, displacement, x)
            return float(np.linalg.norm(network - linearised) / np.linalg.norm(network - at_anchor))

        return rule(step, error)

    batches = oracles.minibatches(X, Y, 30)
    return oracles.dense_loop(oracles.mlp, LOSS, SOLVER.optimiser, oracles.mlp_params(), batches, relinearises), rule


def check(solution, lane):
    (params, anchor, _, steps), _ = by_hand(lane)
    assert solution.feature_updates == len(steps)
    np.testing.assert_allclose(oracles.flat(solution.params), params, atol=1e-9, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-9, rtol=0)


def test_the_runs_by_hand_differ_in_their_looks():
    rules = [by_hand(lane)[1] for lane in range(4)]
    gaps = [set(np.diff(rule.looked).tolist()) for rule in rules]
    assert len(gaps[0]) >= 3
    assert gaps[2:] == [{2}, {3}]
    assert by_hand(3)[0][3] == list(range(3, 30, 3))
    assert 0 < len(by_hand(0)[0][3]) < len(rules[0].looked) < 25


@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_lanes_look_as_the_rule_by_hand(drive):
    def make(lane):
        tolerance, interval, bound = lane
        schedule = il.WhenError(tolerance, interval, max_check_every=bound)
        return il.Run(PROBLEM, SOLVER, schedule, oracles.mlp_params(), oracles.KEY)

    lanes = jnp.asarray(TOLERANCES), jnp.asarray(INTERVALS), jnp.asarray(BOUNDS)
    for lane, solution in enumerate(il.train_lanes(make, lanes, (X, Y), drive=drive, **options())):
        check(solution, lane)


def test_a_safeguard_is_asked_at_looks_only():
    """One that refuses nothing changes nothing, and was asked once for each re-linearisation."""
    schedule = il.WhenError(TOLERANCES[0], INTERVALS[0], max_check_every=BOUNDS[0])
    run = {"key": oracles.KEY, "drive": "host", "safeguard": il.LineSearch(jnp.asarray(np.inf))} | options()
    solution = il.train(PROBLEM, SOLVER, schedule, oracles.mlp_params(), (X, Y), **run)
    check(solution, 0)
    assert solution.records["safeguard_evaluations"][-1] == 2 * solution.feature_updates


def test_a_tolerance_of_zero_is_a_fixed_period_bit_for_bit():
    adaptive, period = (
        il.train(PROBLEM, SOLVER, schedule, oracles.mlp_params(), (X, Y), key=oracles.KEY, **options())
        for schedule in (il.WhenError(0.0, 3, max_check_every=24), il.Every(3))
    )
    assert oracles.same_bits(adaptive.params, period.params)
    assert oracles.same_bits(adaptive.displacement, period.displacement)
    assert adaptive.feature_updates == period.feature_updates == 9


@pytest.mark.parametrize(("num_examples", "half"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_without_a_probe_half_of_the_batch_is_looked_at(num_examples, half):
    x = {"a": jnp.arange(2.0 * num_examples).reshape(-1, 2), "b": jnp.arange(1.0 * num_examples)[:, None]}
    y = jnp.arange(num_examples)
    problem = il.Problem(lambda params, x: jnp.tanh((x["a"] @ params) * x["b"]), il.SquaredError())
    anchor, displacement, step = jnp.ones((2, 1)), jnp.full((2, 1), 0.1), jnp.asarray(3)
    targets = y[:, None].astype(float)
    context = Context(problem, anchor, displacement, step, step, x, targets)
    seen = jax.tree.map(lambda a: a[:half], (x, targets))
    assert oracles.same_bits(context.half_batch, seen)
    for kind, probe in ((il.WhenError, seen[0]), (il.WhenFunctionMoves, seen[0]), (il.WhenLossGap, seen)):
        assert kind(1.0).measure(context) == kind(1.0, 10, probe).measure(context)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((10, 9), ValueError, "`max_check_every` must be at least `check_every`, 10, got 9; pass more, or None"),
        ((10, jnp.asarray(9)), ValueError, "`max_check_every` must be at least `check_every`, 10, got 9; pass more"),
        ((1, 0), ValueError, "`max_check_every` must be at least 1, got 0; pass the most steps"),
        ((1, 2.5), TypeError, "`max_check_every` must be an integer, got 2.5; pass the most steps"),
    ],
)
@pytest.mark.parametrize("kind", [il.WhenError, il.WhenLossGap, il.WhenFunctionMoves])
def test_bounds_that_are_refused(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(0.1, arguments[0], max_check_every=arguments[1])
