"""The runs behind docs/windows.md, on a tiny network: what is measured where, and the theory they are compared with."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import relin as il

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.windows.experiments import COLUMNS, Network, Plan, Subject, detailed, everything, exact, momentum
from tools.windows.observe import At
from tools.windows.records import Records
from tools.windows.theory import LIMIT, growth

pytestmark = pytest.mark.slow

PLAN = Plan(
    rates=(0.05,),
    period=4,
    batch=5,
    detailed_steps=8,
    implicit_batch=20,
    excesses=(1.1,),
    exact_start=(0.05, 2),
    exact_steps=30,
)


def apply(params, x):
    return jnp.tanh(x @ params["first"]) @ params["last"]


@pytest.fixture(scope="module")
def tiny():
    draw = np.random.default_rng(0)
    params = {"first": jnp.asarray(draw.normal(size=(3, 4))), "last": jnp.asarray(draw.normal(size=(4, 2)))}
    data = jnp.asarray(draw.normal(size=(20, 3))), jnp.asarray(draw.integers(0, 2, 20))
    return Subject(Network("tiny", distance=0.4), apply, params, data, jax.tree.map(lambda a: a[:8], data), data, 2)


@pytest.mark.parametrize("excess", [0.3, 0.95, 1.0, 1.02, 1.5])
def test_growth_is_that_of_the_iteration(excess):
    x, velocity, sizes = 1.0, 0.0, []
    for _ in range(600):
        velocity = 0.9 * velocity + x
        x -= excess * LIMIT * velocity
        sizes.append(np.hypot(x, velocity))
        if sizes[-1] > 1e200:
            break
    half = len(sizes) // 2
    assert growth(excess) == pytest.approx((max(sizes[half:]) / max(sizes[:half])) ** (1 / half), rel=0.02)
    assert (growth(excess) > 1.001) == (excess > 1)


def test_a_context_is_measured_at_its_steps_and_at_its_parameters(tiny):
    draw = np.random.default_rng(1)
    displacement = jax.tree.map(lambda a: jnp.asarray(0.3 * draw.normal(size=a.shape)), tiny.params)
    context = il.Context(tiny.problem(), tiny.params, displacement, jnp.asarray(6), jnp.asarray(0), traced=False)
    x, _ = tiny.probe
    here = jax.tree.map(jnp.add, tiny.params, displacement)
    flat, unflatten = jax.flatten_util.ravel_pytree(here)
    J = np.asarray(jax.jacobian(lambda v: apply(unflatten(v), x))(flat))
    p = np.asarray(jax.nn.softmax(apply(here, x)))
    G = sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(J, p, strict=True)) / len(p)
    record, _ = At(il.Sharpness(tiny.probe, 1e-8), every=3, here=True).compute(context, ())
    assert record["sharpness"] == pytest.approx(np.linalg.eigvalsh(G)[-1], rel=1e-6)
    for observer in (At(il.Sharpness(tiny.probe), every=4), At(il.Sharpness(tiny.probe), first=7)):
        assert np.isnan(observer.compute(context, ())[0]["sharpness"])


def test_windows_begin_with_the_network_and_end_with_the_linear_model(tiny, tmp_path):
    pl.concat(list(detailed(tiny, PLAN))).with_columns(period=pl.col("period") * 4).write_parquet(
        tmp_path / "t.parquet"
    )
    records = Records(tmp_path)
    whole = records.windows(way="detailed")
    assert whole.is_empty()  # of 16 steps
    own = records.run("tiny", "detailed", 0.05, 16)
    problem, options = tiny.problem(), {"num_steps": 4, "batch_size": 5, "key": jax.random.key(1)}
    end = il.train(problem, il.WeightSpace(momentum(0.05)), 4, tiny.params, tiny.train, **options)
    x, y = tiny.probe
    linear = problem.linearise(end.anchor).value(end.displacement, x)
    at = own.filter(step=4)
    assert at["probe_loss"][0] == pytest.approx(float(problem.loss.mean(linear, y)), rel=1e-5)
    assert at["network_probe_loss"][0] == pytest.approx(float(problem.loss.mean(apply(end.params, x), y)), rel=1e-5)


def test_descent_beyond_the_limit_grows_as_theory_says(tiny, tmp_path):
    next(exact(tiny, PLAN)).write_parquet(tmp_path / "t.parquet")
    measured = Records(tmp_path).measured_growth("tiny", "SquaredError", 1.1)
    assert measured == pytest.approx(growth(1.1), rel=0.02)


def test_a_network_not_in_detail_has_each_way_and_no_single_windows(tiny):
    ways = pl.concat(list(everything(tiny, PLAN)))[["way", "rate", "period"]].unique()
    changed = [("adam", 0.01, 4), ("cap", 0.05, 4), ("clip", 0.05, 4), ("gauss-newton", 0.05, 4)]
    assert sorted(ways.iter_rows()) == [*changed, ("momentum", 0.05, 1), ("momentum", 0.05, 4)]


@pytest.mark.parametrize(
    ("linear", "lead", "rise"),
    [((1, 1, 4, 90), 2, 0.5), ((1, 1, 9, 9), 1, 0.5), ((1, 4, 4, 9), 0, 2.0), ((1, 1, 1, 1), None, 0.5)],
)
def test_windows_later_the_linear_model_fails_too(tmp_path, linear, lead, rise):
    rows = {"network": "cnn", "way": "momentum", "rate": 0.1, "period": 16, "sharpness": 38.0, "diverged_at": 70}
    losses = zip((2, *linear), (2, 2, 5, 50, 90), strict=True)
    table = [rows | {"step": 16 * i, "probe_loss": a, "network_probe_loss": b} for i, (a, b) in enumerate(losses)]
    pl.DataFrame(table, schema=COLUMNS).write_parquet(tmp_path / "t.parquet")
    (found,) = Records(tmp_path).failures(diverged=True)
    assert (found["step"], found["lead"], found["rise"]) == (16, lead, rise)
    assert found["anchor_excess"] == pytest.approx(1)
