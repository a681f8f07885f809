"""The best of a grid of scales, against the search written out on dense linear models."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles, window_oracle as window
from core.window_oracle import PROBLEM, AbstractRule, Momentum, network_loss

X, Y = window.DATA
OPTIMISER = optax.sgd(1.5, momentum=0.8)
STEPS, PERIOD, SCALES = 23, 3, (0.25, 1.0, 0.5, 2**-0.5)
OPTIONS = {"num_steps": STEPS, "key": oracles.KEY, "record_every": 1}


def trained(safeguard, data=(X, Y), solver=None, schedule=None, **options):
    solver, schedule, options = solver or il.WeightSpace(OPTIMISER), schedule or il.Every(PERIOD), OPTIONS | options
    return il.train(PROBLEM, solver, schedule, window.initial(), data, safeguard=safeguard, **options)


class ByHand(AbstractRule):
    """The search, over the coming batches or a probe."""

    def __init__(self, scales, count, batches, probe=None):
        super().__init__()
        self.scales, self.count, self.batches, self.probe = scales, count, batches, probe

    def judged(self, anchor, displacement, x, y):
        step = PERIOD * (1 + len(self.taken))
        seen = [self.probe] if self.probe else self.batches[step : step + self.count]
        losses = [np.mean([network_loss(anchor + s * displacement, *batch) for batch in seen]) for s in self.scales]
        assert np.diff(np.sort(losses))[0] > 1e-8  # no decision hangs on rounding
        return self.scales[int(np.argmin(losses))], len(self.scales) * len(seen)


def check(solution, search):
    search.check(solution, Momentum(1.5, 0.8), search.batches[:STEPS], PERIOD)


MINIBATCHES = oracles.minibatches(X, Y, STEPS + 3)
"""So many as are seen: at the last re-linearisation, two steps before the end, four."""


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_it_equals_the_search_written_out(drive):
    search = ByHand(SCALES, 4, MINIBATCHES)
    check(trained(il.GridSearch(SCALES, 4), batch_size=oracles.BATCH, drive=drive), search)
    assert {scale for scale, _ in search.taken} == set(SCALES)


def test_an_iterable_is_read_in_its_order_and_not_beyond_the_last_step():
    stream = iter(MINIBATCHES)
    check(trained(il.GridSearch(SCALES, 4), stream), ByHand(SCALES, 4, MINIBATCHES[:STEPS]))
    assert next(stream) is MINIBATCHES[STEPS]
    with pytest.raises(il.TrainingError) as found:
        trained(il.GridSearch(SCALES, 4), itertools.islice(iter(MINIBATCHES), 14))
    ended = found.value.solution
    assert (ended.result, ended.records["step"][-1]) == (il.Result.data_exhausted, 14)
    assert ended.records["safeguard_evaluations"][-1] == len(SCALES) * (4 + 4 + 4 + 2)


def test_a_probe_takes_the_place_of_the_batches():
    probe = X[:7] * 1.2, Y[:7]
    search = ByHand(SCALES, 1, MINIBATCHES, probe)
    check(trained(il.GridSearch(SCALES, probe=probe), batch_size=oracles.BATCH), search)


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_of_equal_batches_one_is_evaluated(drive):
    check(trained(il.GridSearch(SCALES), drive=drive), ByHand(SCALES, 1, [(X, Y)] * STEPS))


def test_a_solver_of_many_steps_sees_the_same_batches():
    options = {"num_steps": 10, "batch_size": oracles.BATCH}
    dual = trained(il.GridSearch(SCALES, 4), solver=il.FunctionSpace(OPTIMISER), **options)
    primal = trained(il.GridSearch(SCALES, 4), **options)
    np.testing.assert_allclose(oracles.flat(dual.params), oracles.flat(primal.params), atol=1e-9, rtol=0)
    for name in ("safeguard_scale", "safeguard_evaluations"):
        assert dual.records[name].tolist() == primal.records[name].tolist()


def test_every_step_with_the_whole_step_alone_is_ordinary_training():
    options = {"num_steps": 8, "batch_size": oracles.BATCH, "record_every": None}
    searched = trained(il.GridSearch((1.0,), 2), schedule=il.Every(1), **options)
    ordinary = trained(None, schedule=il.Every(1), **options)
    np.testing.assert_allclose(oracles.flat(searched.params), oracles.flat(ordinary.params), atol=1e-12, rtol=0)
    assert searched.feature_updates == ordinary.feature_updates == 7
    assert searched.records["safeguard_evaluations"].tolist() == [0, 14]


def make(lane):
    solver, safeguard = il.WeightSpace(OPTIMISER), il.GridSearch(lane["scales"], 2)
    return il.Run(PROBLEM, solver, il.Every(lane["period"]), window.initial(), oracles.KEY, safeguard)


@pytest.mark.parametrize("drive", ["map", "vmap"])
def test_lanes_have_grids_of_their_own(drive):
    lanes = {"scales": jnp.asarray([SCALES, (1.0, 0.9, 0.8, 0.0)]), "period": jnp.asarray([3, 4])}
    options = {"num_steps": 14, "batch_size": oracles.BATCH, "record_every": 7}
    for index, solution in enumerate(il.train_lanes(make, lanes, (X, Y), drive=drive, **options)):
        lane = jax.tree.map(lambda a, index=index: a[index], lanes)
        alone = trained(il.GridSearch(lane["scales"], 2), schedule=il.Every(lane["period"]), **options)
        np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(alone.params), atol=1e-11, rtol=0)
        for name in ("safeguard_scale", "safeguard_evaluations", "feature_updates"):
            assert solution.records[name].tolist() == alone.records[name].tolist()


LOGARITHM = il.Problem(lambda params, x: jnp.log(params) + 0 * x, il.SquaredError())
"""Not a number where the parameter is negative; 0 at 1, where it is trained towards 0 by the targets −1."""


@pytest.mark.parametrize("traced", [True, False])
def test_ties_and_losses_that_are_not_finite(traced):
    one = jnp.ones((1, 1))

    def decided(scales, displacement, *targets):
        def decide(delta):
            batches = tuple((one, y * one) for y in targets)
            context = il.Context(LOGARITHM, one, delta, 3, 0, *batches[0], traced=traced, later=batches[1:])
            return il.GridSearch(scales, len(targets)).step_scale(context, ())[0]

        taken = (jax.jit(decide) if traced else decide)(displacement * one)
        return float(taken.scale), int(taken.evaluations)

    assert decided((0.5, 1.0, 0.2), -1.5, -1) == (0.5, 3)  # log ½·½ is nearest −1; at the whole it is not a number
    assert decided((0.2, 1.0, 0.5), 0.0, -1, -1) == (1.0, 6)  # the largest of equal ones
    assert decided((1.0, 0.9), -1.5, -1) == (0.0, 2)
    assert decided((1.0, 0.5), 1.0, -1) == (0.5, 2)  # the best, though it is worse than the anchor
    assert decided((1.0, 0.5, 0.0), 1.0, -1) == (0.0, 3)
    assert decided((1.0, 0.5), 1.0, -1, 3) == (1.0, 4)  # the mean is what counts
    assert decided((1.0, 0.5), 1.0, -1, np.inf) == (0.0, 4)
    for displacement in (np.nan, np.inf):
        assert decided((1.0, 0.5), displacement, -1) == (0.0, 2)


@pytest.mark.parametrize(
    ("scales", "got"),
    [
        ((), r"\(\)"),
        (0.5, "0.5"),
        ((1.0, 1.5), r"\(1.0, 1.5\)"),
        ((1.0, np.nan), r"\(1.0, nan\)"),
        ((0.0,), r"\(0.0,\)"),
        (("1",), r"\('1',\)"),
        (jnp.ones(()), "Array"),
        (jnp.ones((1, 2)), "Array"),
        (jnp.asarray([1.0, 1.5]), "Array"),
        (np.asarray([0.5, np.nan]), "array"),
        (np.zeros(2), "array"),
        (np.asarray(["1"]), "array"),
        ((1.0, jnp.asarray(-0.5)), r"\(1.0, Array"),
        ((np.float32(1.5),), r"\(np.float32"),
    ],
)
def test_what_is_no_grid_is_refused(scales, got):
    message = rf"`scales` must be one or more numbers from 0 to 1, not all 0, got {got}.*; \(1, 0.5"
    with pytest.raises(ValueError, match=message):
        il.GridSearch(scales)


def test_arrays_are_grids():
    for scales in (jnp.asarray([1.0, 0.5]), np.asarray([1, 0]), (jnp.ones(()), np.float32(0.5), 0), [1.0]):
        il.GridSearch(scales)


@pytest.mark.parametrize("batches", [0, 1.5])
def test_a_number_of_batches_that_is_none_is_refused(batches):
    with pytest.raises((TypeError, ValueError), match=rf"`batches` must be .*got {batches}; 4 is usual"):
        il.GridSearch(batches=batches)
