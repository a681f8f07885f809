"""Safeguards, against the same rules written out on dense linear models, and the bounds they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import relin as il
from core import oracles
from core.window_oracle import (
    DATA,
    LOSS,
    PROBLEM,
    AbstractRule,
    Momentum,
    initial,
    linearised_loss,
    network,
    network_loss,
)

X, Y = DATA
OPTIMISER = optax.sgd(1.5, momentum=0.8)
HOT = optax.sgd(4.0, momentum=0.9)
"""For the full batch, which is milder."""
PROBE = (X[:7] * 1.2, Y[:7])
STEPS, PERIOD = 24, 3
MINIBATCHES = oracles.minibatches(X, Y, STEPS)
FREE = jnp.asarray(np.inf)
"""A factor that refuses nothing but what is not a number; an array, so that it shares a program with a stricter one."""


def trained(safeguard, schedule=None, optimiser=OPTIMISER, **options):
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY, "record_every": 1} | options
    solver, schedule = il.WeightSpace(optimiser), schedule or il.Every(PERIOD)
    return il.train(PROBLEM, solver, schedule, initial(), (X, Y), safeguard=safeguard, **options)


class SearchByHand(AbstractRule):
    """Backtracking."""

    def __init__(self, factor, shrink, max_halvings, probe):
        super().__init__()
        self.factor, self.shrink, self.max_halvings, self.probe = factor, shrink, max_halvings, probe

    def judged(self, anchor, displacement, x, y):
        x, y = self.probe or (x, y)
        bound, scale = self.factor * network_loss(anchor, x, y), 1.0
        for evaluations in range(2, 3 + self.max_halvings):
            loss = network_loss(anchor + scale * displacement, x, y)
            assert abs(loss - bound) > 1e-8  # no decision hangs on rounding
            if loss <= bound:
                return scale, evaluations
            scale *= self.shrink
        return 0.0, evaluations


class RegionByHand(AbstractRule):
    """A trust region, by cases of the gain ratio."""

    def __init__(self, radius, shrink, grow, probe):
        super().__init__()
        self.radius, self.shrink, self.grow, self.probe = radius, shrink, grow, probe
        self.cases = set()

    def judged(self, anchor, displacement, x, y):
        x, y = self.probe or (x, y)
        length = np.linalg.norm(displacement)
        scale = min(1.0, self.radius / length)
        before = network_loss(anchor, x, y)
        actual = before - network_loss(anchor + scale * displacement, x, y)
        predicted = before - linearised_loss(anchor, scale * displacement, x, y)
        assert min(abs(actual), abs(actual - predicted / 4), abs(actual - 3 * predicted / 4)) > 1e-8
        if actual < 0:
            self.cases.add("refused")
            self.radius = self.shrink * scale * length
            return 0.0, 3
        if predicted > 0 and actual / predicted < 1 / 4:
            self.cases.add("shrunk")
            self.radius = self.shrink * scale * length
        elif (predicted <= 0 or actual / predicted > 3 / 4) and length >= self.radius:
            self.cases.add("grown")
            self.radius *= self.grow
        else:
            self.cases.add("kept")
        return scale, 3


def check(solution, rule):
    rule.check(solution, Momentum(1.5, 0.8), MINIBATCHES, PERIOD)


@pytest.mark.parametrize(
    ("factor", "shrink", "max_halvings", "probe", "drive"),
    [
        (1.0, 0.5, 6, None, "compiled"),
        (1.0, 0.8, 3, PROBE, "host"),
    ],
)
def test_line_search_equals_the_search_written_out(factor, shrink, max_halvings, probe, drive):
    solution = trained(il.LineSearch(factor, shrink, max_halvings, probe), drive=drive)
    rule = SearchByHand(factor, shrink, max_halvings, probe)
    check(solution, rule)
    scales = {scale for scale, _ in rule.taken}
    assert len(scales) > 2
    assert 1.0 in scales
    assert max_halvings > 3 or 0.0 in scales


@pytest.mark.parametrize(
    ("radius", "shrink", "grow", "probe", "drive", "cases"),
    [
        (1.0, 0.5, 2.0, None, "host", {"refused", "grown"}),
        (1.5, 0.4, 3.0, PROBE, "compiled", {"shrunk", "grown", "kept"}),
        (np.inf, 0.5, 2.0, PROBE, "compiled", {"refused", "kept"}),
    ],
)
def test_trust_region_equals_the_rule_written_out(radius, shrink, grow, probe, drive, cases):
    by_region, numbers = RegionByHand(radius, shrink, grow, probe), map(jnp.asarray, (radius, shrink, grow))
    check(trained(il.TrustRegion(*numbers, probe), drive=drive), by_region)
    assert cases <= by_region.cases


class AnchorLoss(il.AbstractObserver):
    """The network's loss on the probe at the anchor."""

    def compute(self, context, state):
        return {"anchor_loss": oracles.mean_loss(LOSS, network(context.anchor, PROBE[0]), PROBE[1])}, state


SCHEDULES = {
    "Every": il.Every(3),
    "Geometric": il.Geometric(2, 1.7),
    "Until AtSteps": il.Until(il.AtSteps([2, 4, 9, 16, 20]), 18),
    "After WhenFunctionMoves": il.After(il.WhenFunctionMoves(0.5, 2), 5),
    "WhenError": il.WhenError(0.05, 3),
    "WhenLossGap": il.WhenLossGap(0.05, 3, PROBE),
}


def anchor_losses(solution):
    """At step 0 and after each re-linearisation that the safeguard scaled."""
    losses, asked = solution.records["anchor_loss"], solution.records["safeguard_evaluations"]
    return losses[np.concatenate([[0], 1 + np.flatnonzero(np.diff(asked))])]


@pytest.mark.parametrize("name", SCHEDULES)
def test_with_every_schedule(name):
    """One that never refuses changes nothing; one that may refuse bounds the loss at every anchor, where it was not."""
    schedule, options = SCHEDULES[name], {"observers": (AnchorLoss(),), "batch_size": None}
    plain = trained(None, schedule, HOT, batch_size=None)
    free = trained(il.LineSearch(FREE, probe=PROBE), schedule, HOT, **options)
    np.testing.assert_allclose(oracles.flat(free.params), oracles.flat(plain.params), atol=1e-11, rtol=0)
    assert free.records["feature_updates"].tolist() == plain.records["feature_updates"].tolist()
    assert free.records["safeguard_evaluations"].tolist() == (2 * plain.records["feature_updates"]).tolist()
    for factor in (1.0, 1.05):
        bounded = trained(il.LineSearch(jnp.asarray(factor), probe=PROBE), schedule, HOT, **options)
        losses = anchor_losses(bounded)
        assert np.all(losses[1:] <= factor * losses[:-1] * (1 + 1e-12))
    losses = anchor_losses(free)
    assert len(losses) > 3
    assert np.any(losses[1:] > 1.05 * losses[:-1])


def test_never_asks_no_safeguard():
    lazy = trained(il.TrustRegion(1e-3), il.Never(), record_every=None, batch_size=None)
    assert lazy.records["safeguard_evaluations"].tolist() == [0, 0]
    assert oracles.same_bits(lazy.anchor, initial())


def test_a_trust_region_never_raises_the_loss_on_its_probe():
    losses = anchor_losses(trained(il.TrustRegion(2.0, probe=PROBE), observers=(AnchorLoss(),), batch_size=None))
    assert len(losses) == -(-STEPS // PERIOD)
    assert np.all(losses[1:] <= losses[:-1] * (1 + 1e-12))


def test_every_step_without_a_refusal_is_ordinary_training():
    options = {"num_steps": 8, "record_every": None, "batch_size": None}
    guarded = trained(il.LineSearch(FREE), il.Every(1), **options)
    ordinary = trained(None, il.Every(1), **options)
    np.testing.assert_allclose(oracles.flat(guarded.params), oracles.flat(ordinary.params), atol=1e-12, rtol=0)
    np.testing.assert_allclose(oracles.flat(guarded.anchor), oracles.flat(ordinary.anchor), atol=1e-12, rtol=0)
    assert guarded.feature_updates == ordinary.feature_updates == 7
    assert guarded.records["safeguard_evaluations"].tolist() == [0, 14]


def assert_same(one, other):
    for part in ("params", "anchor", "displacement", "optimiser_state"):
        a, b = (oracles.flat(getattr(solution, part)) for solution in (one, other))
        np.testing.assert_allclose(a, b, atol=1e-11, rtol=0, err_msg=part)
    assert (one.feature_updates, one.diverged_at, one.result) == (
        other.feature_updates,
        other.diverged_at,
        other.result,
    )
    assert list(one.records) == list(other.records)
    for name, column in one.records.items():
        np.testing.assert_allclose(column, other.records[name], atol=1e-11, rtol=0, err_msg=name)


CONV_DATA = oracles.data(LOSS, images=True)


@pytest.mark.parametrize(
    ("safeguard", "schedule", "solver"),
    [
        (il.LineSearch(), il.WhenLossGap(0.01, 2), il.WeightSpace(optax.sgd(1.5, momentum=0.9), proximal=0.1)),
        (il.TrustRegion(0.5), il.WhenFunctionMoves(0.2, 2), il.WeightSpace(optax.adam(0.1), 0.5)),
    ],
)
def test_convolutional_network_on_the_host_equals_the_compiled_loop(safeguard, schedule, solver):
    ends = {}
    for drive in ("auto", "host", "compiled"):
        options = {"num_steps": 9, "batch_size": oracles.BATCH, "key": oracles.KEY, "record_every": 2, "drive": drive}
        problem, params = il.Problem(oracles.cnn, LOSS), oracles.cnn_params()
        ends[drive] = il.train(problem, solver, schedule, params, CONV_DATA, safeguard=safeguard, **options)
    assert_same(ends["host"], ends["compiled"])
    assert oracles.same_bits(ends["auto"].params, ends["host"].params)
    assert ends["host"].feature_updates > 1
    assert min(ends["host"].records["safeguard_scale"]) < 1


TRACES = []


def counted(params, x):
    TRACES.append(x.shape)
    return network(params, x)


COUNTED = il.Problem(counted, LOSS)


def region_lane(lane):
    """Everything a part has that may differ, as arrays of the lane."""
    solver = il.WeightSpace(HOT, 0.5, lane["proximal"])
    schedule, safeguard = il.WhenFunctionMoves(lane["tolerance"], 2), il.TrustRegion(lane["radius"])
    return il.Run(COUNTED, solver, schedule, initial(), oracles.KEY, safeguard)


def search_lane(lane):
    solver = il.WeightSpace(HOT, "reset", lane["proximal"])
    schedule, safeguard = il.WhenLossGap(lane["tolerance"], 2), il.LineSearch(1 + lane["tolerance"], 0.3, 3)
    return il.Run(COUNTED, solver, schedule, initial(), oracles.KEY, safeguard)


LANES = {
    "tolerance": jnp.asarray([0.0, 0.3, 1.5]),
    "proximal": jnp.asarray([0.0, 0.2, 0.5]),
    "radius": jnp.asarray([0.5, 1.0, np.inf]),
}


@pytest.mark.parametrize("make", [region_lane, search_lane])
def test_lanes_equal_runs_alone_and_one_program_serves_all_values(make):
    options = {"num_steps": 10, "record_every": 5}
    alone, traces = [], []
    for index in range(3):
        TRACES.clear()
        run = make(jax.tree.map(lambda a, index=index: a[index], LANES))
        arguments = (run.problem, run.solver, run.schedule, run.params, (X, Y))
        alone.append(il.train(*arguments, key=run.key, safeguard=run.safeguard, **options))
        traces.append(len(TRACES))
    assert traces[0] > 0
    assert traces[1:] == [0, 0]
    assert len({end.feature_updates for end in alone}) > 1
    assert min(end.records["safeguard_scale"][-1] for end in alone) < 1
    for drive in ("map", "vmap"):
        for one, other in zip(il.train_lanes(make, LANES, (X, Y), drive=drive, **options), alone, strict=True):
            assert_same(one, other)
        TRACES.clear()
        il.train_lanes(make, jax.tree.map(lambda a: 0.7 * a, LANES), (X, Y), drive=drive, **options)
        assert not TRACES


LOGARITHM = il.Problem(lambda params, x: jnp.log(params) + 0 * x, il.SquaredError())
"""Not a number where the parameter is negative: at the full displacement −1.5 from 1, and not at half of it."""


@pytest.mark.parametrize("traced", [True, False])
def test_a_loss_that_is_not_a_number_is_refused(traced):
    one = jnp.ones((1, 1))

    def decided(safeguard, displacement):
        def decide(delta):
            context = il.Context(LOGARITHM, one, delta, 3, 0, one, -one, traced)
            return safeguard.step_scale(context, safeguard.init(context))

        taken, state = (jax.jit(decide) if traced else decide)(displacement * one)
        return float(taken.scale), int(taken.evaluations), state

    assert decided(il.LineSearch(), -1.5)[:2] == (0.5, 3)
    assert decided(il.LineSearch(max_halvings=0), -1.5)[:2] == (0.0, 2)
    assert decided(il.TrustRegion(4.0), -1.5) == (0.0, 3, 0.75)  # half the length that was tried
    assert decided(il.TrustRegion(1.2), -1.5) == (0.0, 3, 0.6)
    for displacement in (np.nan, np.inf):
        assert decided(il.LineSearch(), displacement)[:2] == (0.0, 8)
        scale, _, radius = decided(il.TrustRegion(4.0), displacement)
        assert (scale, radius) == (0.0, 2.0)


def test_a_trust_region_that_stood_still_keeps_its_radius():
    context = il.Context(LOGARITHM, jnp.ones((1, 1)), jnp.zeros((1, 1)), 3, 0, jnp.ones((1, 1)), -jnp.ones((1, 1)))
    taken, radius = il.TrustRegion(0.7).step_scale(context, jnp.asarray(0.7))
    assert (float(taken.scale), float(radius)) == (1.0, 0.7)


@pytest.mark.parametrize(("safeguard", "drive"), [(il.LineSearch(), "compiled"), (il.TrustRegion(1.0), "host")])
def test_a_displacement_that_is_not_finite_is_given_up(safeguard, drive):
    """0 · ∞ is not a number; the anchor must stay what it was."""
    problem, solver = il.Problem(lambda params, x: x @ params, il.SquaredError()), il.WeightSpace(optax.sgd(1e308))
    params = jnp.full((2, 2), 100.0)
    options = {"num_steps": 3, "key": oracles.KEY, "drive": drive, "safeguard": safeguard}
    solution = il.train(problem, solver, il.Every(1), params, (jnp.eye(2), jnp.eye(2)), **options)
    assert not np.isfinite(oracles.flat(solution.displacement)).any()
    assert oracles.same_bits(solution.anchor, params)
    assert solution.feature_updates == 0


def test_divergence_is_recorded_alike_by_both_drives():
    """The host looks for it now and then only, and asks no safeguard after it."""
    problem, solver = il.Problem(lambda params, x: x @ params, il.SquaredError()), il.WeightSpace(optax.sgd(1e40))
    ends = []
    for drive in ("compiled", "host"):
        options = {"num_steps": 20, "key": oracles.KEY, "drive": drive, "throw": False}
        arguments = (problem, solver, il.Every(2), jnp.full((2, 2), 2.0), (jnp.eye(2), jnp.eye(2)))
        ends.append(il.train(*arguments, safeguard=il.LineSearch(FREE), **options))
    compiled, host = ends
    assert 2 < compiled.diverged_at < 10
    assert compiled.diverged_at == host.diverged_at
    assert compiled.records["safeguard_evaluations"].tolist() == host.records["safeguard_evaluations"].tolist()
    assert compiled.feature_updates == host.feature_updates > 0


@pytest.mark.slow
def test_digits_train_with_a_safeguard_where_the_period_alone_diverges():
    digits = load_digits()
    x, y = jnp.asarray(digits.data[:400] / 16), jnp.asarray(digits.target[:400])
    apply, params = il.from_equinox(il.models.build("mlp", (64,), 10, key=jax.random.key(0), width=32, depth=2))
    solver = il.WeightSpace(optax.sgd(optax.linear_schedule(0.1, 0, 320), momentum=0.9))
    options = {"num_steps": 320, "batch_size": 40, "key": oracles.KEY, "throw": False}
    results, accuracies = [], []
    for safeguard in (None, il.LineSearch(), il.TrustRegion(1.0)):
        arguments = (il.Problem(apply, LOSS), solver, il.Every(16), params, (x, y))
        end = il.train(*arguments, safeguard=safeguard, **options)
        results.append(end.result.value)
        accuracies.append(np.mean(np.argmax(apply(end.params, x), 1) == np.asarray(y)))
    assert results == ["diverged", "successful", "successful"]
    assert accuracies[0] < 0.2
    assert min(accuracies[1:]) > 0.97
