"""The studies essential, layers, timing and stability, on made-up records with answers known beforehand."""

import math

import polars as pl
import pytest
from frequency_records import records, runs, steady
from made_up_kernels import kernel, width
from made_up_studies import SPEC, stability

from relin.report._records import StudyRecords
from relin.report._text import NOTHING_TO_COMPARE as NOTHING
from relin.studies.essential.conclude import conclude as conclude_essential
from relin.studies.essential.settings import EssentialSpec
from relin.studies.kernel import page as of_kernel
from relin.studies.kernel.figures import METRICS
from relin.studies.layers.conclude import conclude as conclude_layers
from relin.studies.layers.settings import LayersSpec
from relin.studies.stability import page as of_stability
from relin.studies.stability.conclude import conclude as conclude_stability, pareto_front
from relin.studies.stability.data import descent
from relin.studies.stability.settings import StabilitySpec
from relin.studies.timing.conclude import conclude as conclude_timing
from relin.studies.timing.settings import TimingSpec
from relin.studies.width import page as of_width

RATES = [0.1, 0.01]


def conclude(conclusion, spec, *rows, **columns):
    frame = records(steady("every-1", 0.95), *rows).with_columns(**columns)
    return conclusion(spec, {"equal-steps": frame}, 0.1)


def essential(*rows, **settings):
    spec = EssentialSpec(frozen_after=[1, 16, 64], learnt_from=[16, 64, 256], learning_rates=RATES, **settings)
    return conclude(conclude_essential, spec, *rows)


def test_essential_answers_with_the_last_that_is_on_par_together_with_all_before():
    frozen = [steady("until-1", 0.95), steady("until-16", 0.9), steady("until-64", 0.95)]
    late = [steady("after-16", 0.95), steady("after-64", 0.95), steady("after-256", 0.8)]
    result = essential(*frozen, *late, steady("never", 0.9))
    assert result.enough_updates == 64  # 1 is on par too, but 16, which does more, is not
    assert result.latest_start == 64
    assert result.lazy_gap.mean == pytest.approx(0.05)
    assert result.verdict == (
        "On digits, feature learning is essential: without feature learning (K = ∞) accuracy is 5.00 points lower, "
        "95 % interval [5.00, 5.00]; features may be frozen after 64 updates, one a step from the start; features may "
        "stay as they were initialised until step 64 of 1000 (on par: test accuracy at most 1 percentage point below "
        "ordinary training, one-sided 95 % confidence, Holm-corrected over schedules of a kind, 3 paired seeds)."
    )


def test_essential_without_anything_on_par():
    rows = [steady(name, 0.9) for name in ("until-1", "until-16", "until-64", "after-16", "after-64", "after-256")]
    result = essential(*rows, steady("never", 0.95))
    assert result.enough_updates is None
    assert result.latest_start is None
    assert (
        "feature learning is not shown to matter: without feature learning (K = ∞) accuracy is 0.00" in result.verdict
    )
    assert "features frozen after 64 updates, one a step from the start, are not shown to be on par" in result.verdict
    assert "features that start to move at step 16 are not shown to be on par" in result.verdict


def test_essential_where_ordinary_training_diverged():
    frame = records(runs("every-1", [0.9, 0.9], diverged_at=3), steady("never", 0.9), steady("until-1", 0.9))
    spec = EssentialSpec(frozen_after=[1], learnt_from=[], learning_rates=RATES)
    result = conclude_essential(spec, {"equal-steps": frame}, 0.1)
    assert "no run of ordinary training (K = 1) trained" in result.verdict


def timing(*rows, tolerances=(0.1, 0.3, 0.5)):
    spec = TimingSpec(
        feature_updates=[8], placements=["early", "even"], tolerances=list(tolerances), learning_rates=RATES
    )
    return conclude(conclude_timing, spec, *rows, steady("never", 0.9))


def adaptive(tolerance, accuracy, updates):
    return [row | {"feature_updates": updates} for row in steady(f"when-error-{tolerance}", accuracy)]


def test_timing_takes_the_adaptive_schedule_that_spends_most_within_the_budget():
    placed = [runs("early-8", [0.92, 0.93, 0.94], feature_updates=8), runs("even-8", [0.93, 0.94, 0.95])]
    result = timing(*placed, adaptive(0.1, 0.96, 30), adaptive(0.3, 0.945, 7), adaptive(0.5, 0.99, 2))
    chosen = {placement.placement: placement for placement in result.placements}
    assert chosen["adaptive"].schedule == "when-error-0.3"
    assert chosen["adaptive"].feature_updates == 7
    assert result.best == {8: "adaptive"}
    assert chosen["even"].versus_even is None
    assert chosen["early"].versus_even.mean == pytest.approx(-0.01)
    assert chosen["early"].versus_even.low == pytest.approx(-0.01)
    # Differences of adaptive to even: 0.944 − 0.93, 0.945 − 0.94, 0.946 − 0.95: mean 0.5 points, s = 0.9.
    assert chosen["adaptive"].versus_even.low == pytest.approx(0.005 - 4.302653 * 0.009 / math.sqrt(3))
    assert result.verdict.startswith(
        "On digits, 8 feature updates in 1000 steps are best spent adaptively (7 of them), 94.50 % against 95.00 % of "
        "ordinary training, 0.50 points above evenly [−1.74, 2.74], which contains zero, on par with it (differences"
    )


def test_timing_without_an_adaptive_schedule_within_the_budget():
    result = timing(steady("early-8", 0.9), steady("even-8", 0.94), adaptive(0.1, 0.96, 30), tolerances=[0.1])
    assert [placement.placement for placement in result.placements] == ["early", "even"]
    assert "best spent evenly, 94.00 % against 95.00 %" in result.verdict


def test_stability_finds_the_largest_rate_without_divergence_and_the_front():
    spec = StabilitySpec(periods=[1, 4, math.inf], parts=["clip-1"], tolerances=[], learning_rates=RATES, momentum=0.9)
    rows = [
        runs("every-1", [0.8, 0.8, 0.8], validation=0.8, rate=0.01),
        runs("every-4", [0.9, 0.91, 0.92], validation=0.9, rate=0.01),
        [*runs("every-4", [0.9, 0.9]), *runs("every-4", [0.9, 0.9, 0.9], diverged_at=500)[4:]],
        [row | {"feature_updates": 249} for row in steady("every-4+clip-1", 0.94)],
        runs("every-4+clip-1", [0.5, 0.5, 0.5], validation=0.5, rate=0.01),
        steady("never", 0.85),
        runs("never", [0.5, 0.5, 0.5], validation=0.5, rate=0.01),
    ]
    sharpness = pl.when(pl.col("step") == 500).then(4.0).otherwise(10.0 + pl.col("seed"))
    start = [row | {"step": 0} for row in rows[0][::2]]
    result = conclude(conclude_stability, spec, *rows, start, sharpness=sharpness)
    limits = {limit.schedule: limit for limit in result.limits}
    assert result.rates == [0.01, 0.1]
    assert limits["every-1"].largest_rate == 0.1
    assert limits["every-4"].largest_rate == 0.01
    assert limits["every-4"].num_diverged == [0, 1]
    assert limits["every-4"].num_runs == [3, 3]
    assert limits["every-4+clip-1"].largest_rate == 0.1
    assert limits["never"].stable_rate.mean == pytest.approx((2 / 10 + 2 / 11 + 2 / 12) / 3)
    assert result.stable_rate_at_start == pytest.approx((2 / 10 + 2 / 11 + 2 / 12) / 3)
    assert result.pareto == ["never", "every-4+clip-1", "every-1"]
    assert "ordinary training trains up to rate 0.1, 2/λ_max at the initial parameters being 0.183" in result.verdict
    assert "a fixed K alone at 0 of 1" in result.verdict
    assert "clipped at 1 at 1 of 1" in result.verdict


def test_stability_where_ordinary_training_is_no_better_than_a_constant():
    spec = StabilitySpec(periods=[1, 4], parts=[], tolerances=[], learning_rates=RATES)
    rows = [runs(name, [-0.1, -0.2, -0.1], rate=rate) for name in ("every-1", "every-4") for rate in RATES]
    frame = records(*rows).with_columns(measure=pl.lit("R²"), sharpness=4.0)
    start = frame.with_columns(step=pl.lit(0, pl.Int64))
    result = conclude_stability(spec, {"equal-steps": pl.concat([start, frame])}, 0.0)
    assert "ordinary training (K = 1) is no better on test data than the constant predictor even at" in result.verdict
    assert "so there is nothing to compare with" in result.verdict


def test_titles_where_there_is_nothing_to_compare_with():
    def titles(result, plots):
        outcomes = [outcome.model_copy(update={"on_par": None}) for outcome in result.outcomes]
        return {plot.name: plot.title for plot in plots(result.model_copy(update={"outcomes": outcomes}))}

    result, rows = stability()
    data, training = StudyRecords(result, rows, more_columns=("sharpness",)), descent(SPEC, result)
    assert titles(result, lambda r: of_stability.plots(r, data, training))["accuracy-against-updates"] == NOTHING
    result, rows = kernel()
    kernels = StudyRecords(result, rows, tuple(metric.column for metric in METRICS.values()))
    assert titles(result, lambda r: of_kernel.plots(r, kernels))["accuracy-and-alignment"] == NOTHING
    result, rows = width()
    assert titles(result, lambda r: of_width.plots(r, of_width._seeds(r, rows)))["accuracy"] == NOTHING


def test_the_pareto_front_has_no_schedule_that_another_beats_with_as_few_updates():
    result = essential(steady("until-1", 0.9), steady("until-16", 0.9), steady("after-16", 0.96), steady("never", 0.91))
    updates = {outcome.schedule: outcome.feature_updates for outcome in result.outcomes}
    front = pareto_front(result.outcomes)
    accuracy = {outcome.schedule: outcome.test_accuracy.mean for outcome in result.outcomes}
    for name in accuracy:
        beaten = [
            other for other in accuracy if updates[other] <= updates[name] and accuracy[other] > accuracy[name] + 1e-12
        ]
        assert (name in front) <= (not beaten)
    assert "after-16" in front


def test_layers_answers_with_the_layer_that_gains_most_and_those_that_may_stay_lazy():
    spec = LayersSpec(layers=["stem", "readout"], learning_rates=RATES)
    rows = [steady("rich-0", 0.93), steady("rich-1", 0.9), steady("lazy-0", 0.91), steady("lazy-1", 0.95)]
    result = conclude(conclude_layers, spec, *rows, steady("never", 0.89))
    assert [layer.layer for layer in result.layers] == ["stem", "readout"]
    assert result.layers[0].gain.mean == pytest.approx(0.04)
    assert result.layers[0].loss.mean == pytest.approx(-0.04)
    labels = {outcome.schedule: outcome.label for outcome in result.outcomes}
    assert labels["rich-0"] == "stem alone rich"
    assert labels["lazy-1"] == "readout alone lazy"
    assert labels["never"] == "K = ∞ (lazy)"
    assert result.verdict == (
        "On digits, without feature learning (K = ∞) accuracy is 6.00 points lower, 95 % interval [6.00, 6.00]; "
        "feature updates of stem alone bring most, 4.00 points over none [4.00, 4.00]; each of readout may alone "
        "stay lazy (on par: test accuracy at most 1 percentage point below ordinary training, one-sided 95 % "
        "confidence, Holm-corrected over schedules of a kind, 3 paired seeds)."
    )


def test_layers_with_nothing_on_par():
    spec = LayersSpec(layers=["stem", "readout"], learning_rates=RATES)
    rows = [steady(name, 0.8) for name in ("rich-0", "rich-1", "lazy-0", "lazy-1", "never")]
    assert "no layer is shown to be one that may stay lazy" in conclude(conclude_layers, spec, *rows).verdict
