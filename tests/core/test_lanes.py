"""Many runs in one program give what each gives alone, however they are driven."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

LOSS = il.CrossEntropy()
PROBLEM = il.Problem(oracles.mlp, LOSS)
PERIODS, RATES = (1, 3, 100), (0.1, 0.3, 0.2)
DATA, PARAMS = oracles.data(LOSS), oracles.mlp_params()


def options():
    probe = il.LinearisationError(DATA[0])
    return {"num_steps": 7, "batch_size": oracles.BATCH, "record_every": 3, "observers": (probe, il.Movement())}


def make(lane):
    params = jax.tree.map(lambda a: lane["scale"] * a, oracles.mlp_params())
    solver = il.WeightSpace(optax.sgd(lane["rate"], momentum=0.9))
    return il.Run(PROBLEM, solver, il.Every(lane["k"]), params, lane["key"])


def lanes():
    scale = jnp.asarray([1.0, 0.5, 2.0])
    keys = jax.random.split(oracles.KEY, 3)
    return {"k": jnp.asarray(PERIODS), "rate": jnp.asarray(RATES), "scale": scale, "key": keys}


def assert_same(one, other):
    for name in ("params", "anchor", "displacement", "optimiser_state"):
        a, b = (oracles.flat(getattr(solution, name)) for solution in (one, other))
        np.testing.assert_allclose(a, b, atol=1e-12, rtol=0, err_msg=name)
    assert one.feature_updates == other.feature_updates
    assert one.diverged_at == other.diverged_at
    assert one.result is other.result
    assert list(one.records) == list(other.records)
    for name, column in one.records.items():
        np.testing.assert_allclose(column, other.records[name], atol=1e-12, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def alone():
    """Each lane by `train`, its numbers written out."""
    solutions = []
    for index in range(3):
        lane = jax.tree.map(lambda a, i=index: a[i], lanes())
        params = jax.tree.map(lambda a, scale=lane["scale"]: scale * a, oracles.mlp_params())
        solver, schedule = il.WeightSpace(optax.sgd(RATES[index], momentum=0.9)), il.Every(PERIODS[index])
        solutions.append(il.train(PROBLEM, solver, schedule, params, DATA, key=lane["key"], **options()))
    return solutions


@pytest.mark.parametrize("drive", ["auto", "map", "vmap", "host"])
def test_a_lane_equals_the_same_run_alone(alone, drive):
    together = il.train_lanes(make, lanes(), DATA, drive=drive, **options())
    assert len(together) == 3
    for one, other in zip(together, alone, strict=True):
        assert_same(one, other)
    assert together[1].records["step"].tolist() == [0, 3, 6, 7]


def test_host_and_compiled_drives_of_one_run_agree(alone):
    key = lanes()["key"][1]
    params = jax.tree.map(lambda a: 0.5 * a, oracles.mlp_params())
    solver = il.WeightSpace(optax.sgd(RATES[1], momentum=0.9))
    assert_same(il.train(PROBLEM, solver, il.Every(3), params, DATA, key=key, drive="host", **options()), alone[1])


def test_traces_do_not_grow_with_the_number_of_lanes():
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return oracles.mlp(params, x)

    problem, solver, params = il.Problem(counted, LOSS), il.WeightSpace(optax.sgd(0.1)), oracles.mlp_params()

    def make(k):
        return il.Run(problem, solver, il.Every(k), params, oracles.KEY)

    counts = []
    for periods in (range(1, 3), range(3, 5), range(1, 9), range(2, 10)):
        traces.clear()
        il.train_lanes(make, jnp.asarray(periods), DATA, num_steps=3)
        counts.append(len(traces))
    assert counts[1] == 0  # other periods, as many lanes: the same program
    assert 0 < counts[2] <= counts[0]  # other shapes: one more program, for all lanes
    assert counts[3] == 0


@pytest.mark.parametrize("drive", ["vmap", "map", "host"])
def test_a_number_out_of_range_in_any_lane_is_refused_before_training(drive):
    def make(damping):
        return il.Run(PROBLEM, il.WeightSpace(optax.sgd(0.1), proximal=damping), il.Every(4), PARAMS, oracles.KEY)

    dampings, steps = jnp.asarray([0.0, 0.1, -1.0]), []
    with pytest.raises(ValueError, match=r"`proximal` must be at least 0.*got -1"):
        il.train_lanes(make, dampings, DATA, num_steps=4, drive=drive, progress=lambda *done: steps.append(done))
    assert not steps
