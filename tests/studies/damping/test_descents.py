"""The studies of full-batch descent: what they conclude from made-up records, and what they train."""

import math

import jax
import numpy as np
import polars as pl
import pytest
from scipy import stats

import relin as il
from relin.studies.damping.conclude import conclude as conclude_damping
from relin.studies.damping.settings import DampingSpec
from relin.studies.interpolation import Interpolation
from relin.studies.interpolation.conclude import conclude as conclude_interpolation
from relin.studies.interpolation.settings import InterpolationSpec
from relin.study import run_study, stored_study

pytestmark = pytest.mark.slow

TINY = {"model_options": {"width": 4, "depth": 1}, "train_limit": 12, "seeds": 2, "probe_size": 20}
DAMPING = DampingSpec(**TINY, periods=[1, 8, 64], outer_steps=2, compared_after=[1, 2], kernel_probe=8)
INTERPOLATION = InterpolationSpec(**TINY, steps=60, rate=0.5, periods=[1, 7, 60], stepped_up_to=1)
SHARED = {"study": "damping", "data": "made-up", "model": "mlp", "num_classes": 4, "result": "successful"}


def damping_records(spec, factor=1.0, power=1.0, accuracy=lambda kappa: 0.8, distance=lambda kappa: 0.1):
    """Outputs on a curve that K steps reach at log K, and damping at log of factor κ to a power."""

    def outputs(place, seed):
        return [math.cos(0.1 * place), math.sin(0.1 * place), 1.0, 0.01 * seed]

    rows = []
    for seed in range(spec.seeds):
        for way, numbers in (("every", spec.periods), ("gauss-newton", spec.kappas)):
            for number in numbers:
                own = number if way == "every" else factor * number**power
                place = math.log2(own) + 20
                for step in range(spec.outer_steps + 1):
                    rows.append({
                        **SHARED, "way": way, "number": float(number), "seed": seed, "step": step,
                        "outputs": outputs(place if step else 0.0, seed) if step in (0, 1, 2) else None,
                        "train_loss": 1.0 / (1 + 40 * step), "test_accuracy": accuracy(number) + 0.01 * seed,
                        "validation_accuracy": accuracy(number), "kernel_distance": distance(number) + 0.001 * seed,
                    })  # fmt: skip
    return pl.DataFrame(rows)


@pytest.mark.parametrize("factor", [1.0, 1.4, 0.2])
def test_the_ridge_is_where_the_records_put_it(factor):
    spec = DAMPING.model_copy(update={"seeds": 3})
    result = conclude_damping(spec, damping_records(spec, factor))
    ridge = result.ridges[0]
    found = [interval for interval in ridge.nearest if interval is not None]
    assert len(found) >= 2
    assert all(interval.mean == pytest.approx(-math.log2(factor), abs=0.05) for interval in found)
    assert ("acts like Gauss–Newton" in result.verdict) == (factor > 0.25)
    if factor == 1:
        assert ridge.slope.mean == pytest.approx(1, abs=0.02)
        assert 2**ridge.factor.mean == pytest.approx(1, abs=0.05)
        assert all(interval.mean == pytest.approx(0, abs=1e-9) for interval in ridge.on_line)


def test_a_ridge_of_another_slope_is_told():
    spec = DAMPING.model_copy(update={"periods": [4.0, 16.0, 64.0, 256.0]})
    result = conclude_damping(spec, damping_records(spec, 1.0, 1.25))
    assert result.ridges[0].slope.mean == pytest.approx(0.8, abs=0.03)
    assert "does not act like Gauss–Newton" in result.verdict


def test_what_damping_does_to_the_network_is_told_in_either_direction():
    worse = conclude_damping(DAMPING, damping_records(DAMPING, accuracy=lambda k: 0.9 - abs(math.log2(k / 8)) / 20))
    assert worse.gauss_newton.best == 8
    assert worse.gauss_newton.least == 256
    assert worse.gauss_newton.difference.mean == pytest.approx(-0.25)
    assert "nearly undamped Gauss–Newton generalises worse than at its best damping, by 25.00" in worse.verdict
    better = conclude_damping(DAMPING, damping_records(DAMPING, accuracy=lambda k: 0.5 + math.log2(k) / 100))
    assert "nearly undamped Gauss–Newton is the best on validation data" in better.verdict
    moving = conclude_damping(DAMPING, damping_records(DAMPING, distance=lambda k: 0.1 + k / 1000))
    assert "moves the NTK more than any damped one" in moving.verdict
    still = conclude_damping(DAMPING, damping_records(DAMPING, distance=lambda k: 0.1 / k))
    assert "the damping that moves it most (κ = 0.25) to" in still.verdict
    assert still.run("every", 8).reached.mean == pytest.approx(0.805)


def test_small_errors_of_values_have_intervals():
    """Of R² errors of 1e-9 are told apart, and so are their differences."""
    error = 1e-9 * (1 + pl.col("seed")) * (1 + pl.col("number").fill_null(1.0) / 64)
    values = {"measure": pl.lit("R²"), "constant_accuracy": 0.0, "test_accuracy": 1 - error}
    spec = DAMPING.model_copy(update={"seeds": 3})
    result = conclude_damping(spec, damping_records(spec).with_columns(**values))
    half = stats.t.ppf(0.975, 2) * 1e-9 / math.sqrt(3)  # s of the seeds is 1e-9 times a factor of the damping
    run = next(run for run in result.runs if (run.way, run.number) == ("every", 64))
    for interval in (run.test_accuracy, run.reached):
        assert interval.high - interval.mean == pytest.approx(2 * half, rel=1e-4)
    difference = result.descent.difference
    assert (result.descent.best, result.descent.least) == (1, 64)
    assert difference.high - difference.mean == pytest.approx(63 / 64 * half, rel=1e-4)
    spec = InterpolationSpec(seeds=3, steps=1000, periods=[1, 10])
    records = interpolation_records(spec, {1: 0.0, 10: 0.25, math.inf: 1.0}.get)
    values["test_accuracy"] = 1 - 1e-9 * (1 + pl.col("seed"))
    result = conclude_interpolation(spec, records.with_columns(**values))
    assert result.measure == "R²"
    assert result.ordinary_accuracy.high - result.ordinary_accuracy.mean == pytest.approx(half, rel=1e-4)


def test_diverged_runs_count_at_chance_and_have_no_distance():
    records = damping_records(DAMPING)
    lost = (pl.col("way") == "gauss-newton") & (pl.col("number") == 256) & (pl.col("seed") == 1)
    records = records.with_columns(result=pl.when(lost).then(pl.lit("diverged")).otherwise("result"))
    result = conclude_damping(DAMPING, records)
    run = result.run("gauss-newton", 256)
    assert (run.num_diverged, result.num_diverged) == (1, 1)
    assert run.test_accuracy.mean == pytest.approx((0.8 + 0.25) / 2)
    assert run.kernel_distance is None
    assert "1 of the 24 runs diverged and counts" in result.verdict
    everything = conclude_damping(DAMPING, records.with_columns(result=pl.lit("diverged")))
    assert "too few runs ended without diverging to say which damping" in everything.verdict


def interpolation_records(spec, place):
    """Outputs on the line from ordinary training (0) to NTK regression (1)."""
    rows = []
    for seed in range(spec.seeds):
        ends = {"ordinary": 0.0, "regression": 1.0, "limit": 1.5}
        runs = [(way, None, at) for way, at in ends.items()] + [("every", k, place(k)) for k in spec.periods]
        for way, number, at in runs:
            outputs = None if at is None else [at + seed, 3.0, 1.0]
            rows.append({
                **SHARED, "study": "interpolation", "way": way, "number": number, "seed": seed, "step": spec.steps,
                "outputs": outputs, "network_outputs": outputs, "test_accuracy": 0.5, "network_test_accuracy": 0.5,
                "result": "diverged" if at is None else "successful",
            })  # fmt: skip
    return pl.DataFrame(rows)


def test_an_interpolation_is_told_with_its_ends():
    spec = InterpolationSpec(seeds=2, steps=1000, periods=[1, 10, 100])
    where = {1: 0.0, 10: 0.25, 100: 0.75, math.inf: 1.0}
    result = conclude_interpolation(spec, interpolation_records(spec, where.get))
    assert [at.to_ordinary.mean for at in result.periods] == pytest.approx(list(where.values()))
    assert [at.to_regression.mean for at in result.periods] == pytest.approx([1 - w for w in where.values()])
    assert (result.farther, result.nearer, result.compared, result.half_way) == (3, 3, 3, 100)
    assert result.limit_apart.mean == pytest.approx(0.5)
    assert "K = 1 is ordinary training (relative distance 0) and K = ∞ is NTK regression (0)" in result.verdict
    assert "K interpolates steadily" in result.verdict
    back = {1: 1e-6, 10: 0.75, 100: 0.5, math.inf: 0.9}
    result = conclude_interpolation(spec, interpolation_records(spec, back.get))
    assert "K = 1 is not ordinary training" in result.verdict
    assert "K = ∞ is not NTK regression" in result.verdict
    assert "K does not interpolate steadily: from one K to the next the predictor moves away" in result.verdict
    assert (result.farther, result.nearer) == (2, 2)
    gone = {1: 0.0, 10: None, 100: 0.75, math.inf: 1.0}
    result = conclude_interpolation(spec, interpolation_records(spec, gone.get))
    assert result.periods[1].to_ordinary is None
    assert "2 of the 8 runs diverged and count at chance accuracy" in result.verdict


def test_seeds_in_which_ordinary_training_diverges_are_compared_with_nothing():
    spec = InterpolationSpec(seeds=3, steps=1000, periods=[1, 10], rate=0.25)
    records = interpolation_records(spec, {1: 0.0, 10: 0.25, math.inf: 1.0}.get)
    lost = (pl.col("way") == "ordinary") & (pl.col("seed") == 1)
    one = records.with_columns(result=pl.when(lost).then(pl.lit("diverged")).otherwise("result"))
    result = conclude_interpolation(spec, one)
    assert (result.num_ordinary_diverged, result.periods[1].to_ordinary.mean) == (1, pytest.approx(0.25))
    assert result.ordinary_accuracy.mean == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    ordinary = pl.when(pl.col("way") == "ordinary").then(pl.lit("diverged")).otherwise("result")
    result = conclude_interpolation(spec, records.with_columns(result=ordinary))
    assert "ordinary training diverged in 3 of 3 seeds, at 0.25 of the largest stable rate" in result.verdict
    assert result.periods[0].to_ordinary is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folders = {spec.study: tmp_path_factory.mktemp(spec.study) / "study" for spec in (DAMPING, INTERPOLATION)}
    return {
        spec.study: (folders[spec.study], *run_study(spec, folders[spec.study])) for spec in (DAMPING, INTERPOLATION)
    }


def test_both_methods_are_trained_as_they_say(trained):
    """A damped step against a dense solve; K steps against stepping; at K = 1 and tiny κ they agree."""
    folder, result, records = trained["damping"]
    dataset = il.datasets.load("digits", limit=12)
    x, y = np.asarray(dataset.train.x, float), np.eye(10)[dataset.train.y]
    with jax.enable_x64(False):  # the initial network does not depend on the precision
        model = il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(1), width=4, depth=1)
    apply, params = il.from_equinox(model)
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda a: np.asarray(a, float), params))

    def network(theta, inputs):
        return apply(unravel(theta), inputs)

    jacobian = np.asarray(jax.jacobian(network)(flat, x)).reshape(120, -1)
    residual = np.asarray(network(flat, x) - y).reshape(-1)
    rate = records.filter(seed=1).item(0, "rate")
    curvature = jacobian.T @ jacobian / 12
    assert rate == pytest.approx(0.5 * 2 / np.linalg.eigvalsh(curvature)[-1], rel=1e-3)
    kappa = DAMPING.kappas[4]
    newton = -np.linalg.solve(curvature + np.eye(len(flat)) / (rate * kappa), jacobian.T @ residual / 12)
    descent, delta = residual.copy(), np.zeros(len(flat))
    for _ in range(8):
        delta -= rate * jacobian.T @ descent / 12
        descent = residual + jacobian @ delta
    probe = np.asarray(dataset.test.x[:20], float)
    for way, number, step in (("gauss-newton", kappa, newton), ("every", 8.0, delta)):
        own = records.filter(way=way, number=number, seed=1, step=1)
        np.testing.assert_allclose(
            own.item(0, "outputs"), np.asarray(network(flat + step, probe)).reshape(-1), atol=1e-7
        )
    assert result.num_diverged == 0
    assert all(interval.mean < 0.5 for interval in result.ridges[0].on_line)
    _, again, _ = stored_study(folder)
    assert again == result


def test_the_ends_of_the_interpolation_coincide_and_either_way_of_taking_steps_is_the_same(trained, tmp_path):
    folder, result, records = trained["interpolation"]
    assert result.at_ordinary == 0
    assert result.at_regression < 1e-9
    assert [at.period for at in result.periods] == [1, 7, 60, math.inf]
    assert "K = 1 is ordinary training (relative distance 0) and K = ∞ is NTK regression" in result.verdict
    _, again, _ = stored_study(folder)
    assert again == result
    stepped = INTERPOLATION.model_copy(update={"stepped_up_to": 7})
    plan = Interpolation(stepped)
    job = next(p for p in plan.jobs("run", [], lambda jobs: records, 1) if p.number == 7)
    walked = plan.trainer(None)(job, lambda done, total: None)
    at_once = records.filter(schedule="every-7", seed=job.seed)
    assert not walked.equals(at_once)
    np.testing.assert_allclose(walked.item(0, "outputs"), at_once.item(0, "outputs"), rtol=1e-7)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DampingSpec, {"periods": [1, 4]}, "at least three finite periods"),
        (DampingSpec, {"periods": [1, 4, "inf"]}, "at least three finite periods"),
        (DampingSpec, {"outer_steps": 3}, "compared_after must be at most outer_steps, 3"),
        (DampingSpec, {"compared_after": []}, "at least one number"),
        (InterpolationSpec, {"periods": [2, 4]}, "the periods must include 1"),
        (InterpolationSpec, {"batch_size": 3}, "Extra inputs are not permitted"),
        (InterpolationSpec, {"rate": 0}, "greater than or equal to 0.000000001"),
    ],
)
def test_settings_that_make_no_sense(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_the_filters_are_nearest_in_the_maximum_norm_where_the_page_says():
    x, ratios = np.geomspace(1e-4, 1e4, 2000), np.geomspace(1, 4, 301)
    apart = [np.abs(-np.expm1(-x) - x / (x + 1 / ratio)).max() for ratio in ratios]
    assert ratios[np.argmin(apart)] == pytest.approx(1.9, abs=0.05)
