"""The studies kernel and width, on made-up records with answers known beforehand."""

import math

import numpy as np
import polars as pl
import pytest
from frequency_records import period_of
from scipy import stats

from relin.studies.kernel.conclude import conclude as conclude_kernel, constancy
from relin.studies.kernel.settings import KernelSpec
from relin.studies.kernel.verdict import spelled
from relin.studies.width.conclude import conclude as conclude_width, log_slopes
from relin.studies.width.settings import WidthSpec
from relin.study._result import Interval

STEPS = (0, 100, 200, 300, 400)


def run(schedule, seed, *, accuracy=0.95, rate=0.1, moved=0.2, frozen=None, diverged_at=None, study="kernel", **more):
    """A run whose kernel moves by equal parts at each feature update, and reaches `moved` with the last of them."""
    period = period_of(schedule)
    last = [0 if math.isinf(period) or step == 0 else math.ceil(step / period) - 1 for step in STEPS]
    rows, before = [], 0.0
    for place, (step, updates) in enumerate(zip(STEPS, last, strict=True)):
        distance = moved * updates / max(last[-1], 1)
        dead = diverged_at is not None and step >= diverged_at
        rows.append(
            {
                "study": study,
                "data": "digits",
                "model": "mlp",
                "schedule": schedule,
                "period": period,
                "learning_rate": rate,
                "seed": seed,
                "num_steps": STEPS[-1],
                "run_steps": STEPS[-1],
                "batch_size": 64,
                "step": step,
                "feature_updates": updates,
                "validation_loss": 0.1,
                "validation_accuracy": math.nan if dead else 0.9,
                "test_accuracy": math.nan if dead else accuracy,
                "network_test_accuracy": math.nan if dead else accuracy,
                "kernel_distance": math.nan if dead else distance,
                "kernel_change": math.nan if dead else 3 * distance,
                "kernel_cka": math.nan if dead else 1 - distance,
                "kernel_distance_last": math.nan if dead else distance - before,
                "kernel_change_last": math.nan if dead else 3 * (distance - before),
                "kernel_velocity": math.nan if dead else (distance - before) / 100,
                "target_alignment": math.nan if dead else 0.5 + distance / 2 + 0.01 * seed,
                "effective_rank": math.nan if dead else 12.0 + 10 * distance,
                "frozen_kernel_accuracy": None if frozen is None else frozen[place],
                "frozen_kernel_loss": None if frozen is None else 0.1,
                "result": "successful" if diverged_at is None else "diverged",
                "diverged_at": diverged_at,
            }
            | more
        )
        before = distance
    return rows


def frame(*groups):
    rows = [row for group in groups for row in group]
    schema = {"frozen_kernel_accuracy": pl.Float64, "frozen_kernel_loss": pl.Float64, "diverged_at": pl.Int64}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=schema).sample(
        fraction=1.0, shuffle=True, seed=0
    )


def conclude(*groups, **settings):
    spec = KernelSpec(**{"periods": [1, 100, math.inf], "learning_rates": [0.1], **settings})
    return conclude_kernel(spec, {"equal-steps": frame(*groups)}, 0.1)


def steady(schedule, seeds=range(3), **options):
    return [row for seed in seeds for row in run(schedule, seed, **options)]


def moving():
    taken = [[0.90, math.nan, 0.93, math.nan, 0.94], [0.91, math.nan, 0.93, math.nan, 0.96]]
    ordinary = [run("every-1", 0, moved=0.1), run("every-1", 1, moved=0.2, frozen=taken[0])]
    return [*ordinary, run("every-1", 2, moved=0.3, frozen=taken[1])]


def test_a_kernel_that_moves_is_told_with_its_intervals():
    result = conclude(*moving(), steady("every-100", moved=0.5), steady("never"))
    ordinary, rare, lazy = (result.kernel(name) for name in ("every-1", "every-100", "never"))
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert ordinary.distance.mean == pytest.approx(0.2)
    assert ordinary.distance.high - ordinary.distance.mean == pytest.approx(half)
    assert ordinary.change.mean == pytest.approx(0.6)
    assert ordinary.cka.mean == pytest.approx(0.8)
    assert ordinary.alignment.mean == pytest.approx(0.61)
    assert ordinary.effective_rank.mean == pytest.approx(14.0)
    assert rare.distance == Interval(mean=0.5, low=0.5, high=0.5)
    assert lazy.distance == lazy.change == Interval(mean=0.0, low=0.0, high=0.0)
    assert result.initial_alignment.mean == pytest.approx(0.51)
    assert result.initial_rank.mean == pytest.approx(12.0)
    assert "the NTK did not stay constant in ordinary training: it ended at distance 0.20 [−0.05, 0.45]" in (
        result.verdict
    )
    assert "at K = 100 (3 feature updates) at 0.500 [0.500, 0.500]" in result.verdict
    assert "at K = ∞ it did not move at all" in result.verdict
    assert "at K = 200 (1 feature update) at 0.200" in conclude(*moving(), steady("every-200", moved=0.2)).verdict
    assert result.verdict.endswith("(95 % intervals over 3 paired seeds; distance is 1 − ⟨K, K₀⟩/(‖K‖‖K₀‖)).")


def test_frozen_kernels_are_compared_seed_by_seed():
    result = conclude(*moving(), steady("never"))
    (frozen,) = result.frozen
    assert frozen.steps == [0, 200, 400]
    assert frozen.num_seeds == 2  # the third took no kernel
    assert [round(interval.mean, 6) for interval in frozen.accuracy] == [0.905, 0.93, 0.95]
    half = stats.t.ppf(0.975, 1) * 0.01 / math.sqrt(2) / math.sqrt(2)
    assert frozen.gain.mean == pytest.approx(0.045)  # of 0.04 and 0.05
    assert frozen.gain.high - frozen.gain.mean == pytest.approx(half)
    assert "frozen kernels taken later are not shown to do better" in result.verdict
    assert "on the one of step 400 reaches 95.00 % against 90.50 %" in result.verdict


def test_frozen_kernels_of_values_with_small_errors_have_intervals():
    """Of R² errors of 1e-8 are told apart where ordinary training's are as small."""

    def of_values(schedule, **options):
        errors = [1e-8 * (1 + 0.1 * seed) for seed in range(3)]
        taken = [{"frozen": [1 - 4 * e, math.nan, 1 - 2 * e, math.nan, 1 - e]} if options else {} for e in errors]
        rows = [run(schedule, seed, accuracy=1 - e, measure="R²", **taken[seed]) for seed, e in enumerate(errors)]
        return [row for own in rows for row in own]

    (frozen,) = conclude(of_values("every-1", taken=True), of_values("never")).frozen
    half = stats.t.ppf(0.975, 2) * 3e-9 / math.sqrt(3)  # a gain of 3 errors, whose s is 1e-9
    assert frozen.gain.high - frozen.gain.mean == pytest.approx(half, rel=1e-4)
    assert frozen.accuracy[-1].high - frozen.accuracy[-1].mean == pytest.approx(half / 3, rel=1e-4)


@pytest.mark.parametrize(
    ("last", "words"), [(0.95, "taken later do better"), (0.85, "taken later do worse"), (0.9, "not shown to do bet")]
)
def test_frozen_kernels_in_words(last, words):
    taken = [0.9, math.nan, 0.9, math.nan, last]
    result = conclude(steady("every-1", frozen=taken), steady("never"))
    assert words in result.verdict


def test_lazy_training_on_a_kernel_that_diverged_counts_at_chance():
    rows = steady("every-1", frozen=[0.9, math.nan, 0.9, math.nan, 0.9])
    for row in rows:
        if row["step"] == 400 and row["seed"] == 0:
            row |= {"frozen_kernel_accuracy": 0.0, "frozen_kernel_loss": math.inf}
    (frozen,) = conclude(rows, steady("never")).frozen
    assert frozen.accuracy[-1].mean == pytest.approx((0.9 + 0.9 + 0.1) / 3)


def test_a_kernel_that_never_moves():
    result = conclude(steady("every-1", moved=0.0), steady("never"))
    assert result.verdict.startswith("On digits, the NTK stayed exactly constant in ordinary training; at K = ∞ it did")
    nearly = conclude(steady("every-1", moved=0.003), steady("never"))
    assert "the NTK stayed constant within 1 % in ordinary training" in nearly.verdict


def test_constancy_is_checked_on_every_pair_without_a_feature_update():
    still = constancy(frame(steady("every-1"), steady("every-200"), steady("never")))
    # Of four pairs a run: none at K = 1 but the first, which has 99 updates; at K = 200 from 0 to 100 and to 200 (an
    # update comes before step 200, that is in records after it) and from 300 to 400; at K = ∞ all.
    assert (still.num_checked, still.num_violated, still.first_violation) == (3 * (3 + 4), 0, None)


@pytest.mark.parametrize("column", ["kernel_distance", "kernel_change", "kernel_cka", "target_alignment"])
def test_the_smallest_change_between_feature_updates_is_told_loudly(column):
    rows = [steady("every-1"), steady("every-200"), steady("never")]
    broken = next(row for row in rows[1] if row["seed"] == 1 and row["step"] == 400)
    broken[column] = np.nextafter(broken[column], 2.0)
    result = conclude(*rows, periods=[1, 200, math.inf])
    assert result.constancy.num_violated == 1
    assert result.constancy.first_violation == "every-200 at rate 0.1, seed 1, step 400"
    assert result.verdict.startswith(
        "THE KERNEL CHANGED WITHOUT A FEATURE UPDATE, first in every-200 at rate 0.1, seed 1, step 400"
    )
    assert "it was not exactly constant, in 1 of 21 pairs" in result.verdict


def test_a_lazy_kernel_that_moves_is_a_violation():
    rows = steady("never")
    rows[2]["kernel_distance_last"] = 1e-30
    result = conclude(steady("every-1"), rows)
    assert result.constancy.num_violated == 1
    assert "never at rate 0.1, seed 0, step 200" in result.verdict


def test_diverged_runs_have_no_kernel_but_count_in_accuracy():
    one = [run("every-1", 0, diverged_at=300), run("every-1", 1), run("every-1", 2)]
    result = conclude(*one, steady("never"))
    assert result.kernel("every-1").num_seeds == 2
    assert result.kernel("every-1").distance.mean == pytest.approx(0.2)
    assert result.outcome("every-1").test_accuracy.mean == pytest.approx((0.95 + 0.95 + 0.1) / 3)
    assert result.constancy.num_violated == 0  # not a number equals itself
    assert "1 of the 6 runs at the chosen learning rates diverged" in result.verdict
    all_dead = conclude(steady("every-1", diverged_at=100), steady("never"))
    assert all_dead.kernel("every-1").distance is None
    assert "fewer than two runs of ordinary training (K = 1) trained" in all_dead.verdict


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((0.136, 0.1213, 0.1507), "0.136 [0.121, 0.151]"),
        ((8.159, 6.732, 9.586), "8.2 [6.7, 9.6]"),
        ((0.0, 0.0, 0.0), "0"),
        ((0.5, 0.5, 0.5), "0.500 [0.500, 0.500]"),
        ((123.4, 100.0, 146.8), "123 [100, 147]"),
        ((-0.4, -12.0, 12.0), "0 [−12, 12]"),
    ],
)
def test_intervals_have_as_many_digits_as_tell_them_apart(interval, text):
    mean, low, high = interval
    assert spelled(Interval(mean=mean, low=low, high=high)) == text


def widths(*, power=-0.5, deviation=True, gaps=(0.05, 0.02, 0.0)):
    """Change ∝ width^power times a factor of the seed; the gap of accuracy shrinks."""
    groups = []
    for width, gap in zip((16, 64, 256), gaps, strict=True):
        for seed in range(3):
            more = {"width": width, "study": "width"}
            if deviation:
                more["analytic_deviation"] = (1 + 0.1 * seed) * width**-0.5
            moved = (1 + 0.2 * seed) * width**power / 3
            groups.append(run("every-1", seed, moved=moved, accuracy=0.95, **more))
            groups.append(run("never", seed, accuracy=0.95 - gap - 0.001 * seed, **more))
    return frame(*groups)


def conclude_widths(records):
    spec = WidthSpec(widths=[16, 64, 256], learning_rates=[0.1])
    return conclude_width(spec, {"equal-steps": records}, 0.1)


def test_width_fits_the_power_laws_seed_by_seed():
    result = conclude_widths(widths(power=-0.7))
    assert result.change_slope.mean == pytest.approx(-0.7)
    assert result.change_slope.high - result.change_slope.low < 1e-6
    assert result.deviation_slope.mean == pytest.approx(-0.5)
    assert [at.width for at in result.widths] == [16, 64, 256]
    assert result.widths[0].change.mean == pytest.approx(1.2 * 16**-0.7)
    assert result.widths[0].gap.mean == pytest.approx(0.051)
    assert result.lazy_gap == result.widths[-1].gap
    assert [outcome.label for outcome in result.outcomes[:2]] == ["width 16, K = 1", "width 16, K = ∞ (lazy)"]
    assert "the NTK moves less in wider networks" in result.verdict
    assert "faster than the −1/2 of theory" in result.verdict
    assert "above zero at 2 of 3 widths" in result.verdict
    assert "(theory: −1/2)" in result.verdict
    assert "exactly constant, bit for bit in all 36 pairs" in result.verdict


def test_width_of_values_has_a_margin_at_each_width():
    """The gap of 0.05 is above the margin where R² is 0.95, and below it where R² is 0.45."""
    records = widths(gaps=(0.05, 0.05, 0.05)).with_columns(measure=pl.lit("R²"))
    lower = pl.col("test_accuracy") - 0.5 * (pl.col("width") == 256)
    spec = WidthSpec(widths=[16, 64, 256], learning_rates=[0.1], margin=40.0)
    result = conclude_width(spec, {"equal-steps": records.with_columns(test_accuracy=lower)}, 0.0)
    assert (result.measure, result.relative_margin) == ("R²", 0.4)
    reached = [at.ordinary.test_accuracy.mean for at in result.widths]
    assert [result.margin_of(at.ordinary) for at in result.widths] == pytest.approx([0.4 * (1 - r) for r in reached])
    assert [at.lazy.on_par for at in result.widths] == [False, False, True]
    assert "higher in R² than lazy training (K = ∞), above zero at every width" in result.verdict


def test_width_where_lower_is_better_or_there_is_nothing_to_compare_with():
    error = {"test_accuracy": 1 - pl.col("test_accuracy"), "validation_accuracy": 1 - pl.col("validation_accuracy")}
    told = {"measure": pl.lit("MAE"), "measure_unit": pl.lit("s"), "measure_better": pl.lit("lower")}
    frame, spec = widths().with_columns(**error, **told), WidthSpec(widths=[16, 64, 256], learning_rates=[0.1])
    result = conclude_width(spec, {"equal-steps": frame}, 0.9)
    assert result.widths[0].gap.mean == pytest.approx(0.051)
    assert "better in MAE than lazy training (K = ∞), with zero below the interval at 2 of 3 widths" in result.verdict
    verdict = conclude_width(spec, {"equal-steps": frame}, 0.04).verdict
    assert "the NTK moves less in wider networks" in verdict
    assert "ordinary training (K = 1) is no better on test data than MAE 0.0 s, which stands for" in verdict
    assert "than lazy training" not in verdict


def test_width_without_a_limit_or_with_a_kernel_that_moves_more():
    result = conclude_widths(widths(power=0.3, deviation=False, gaps=(0.05, 0.05, 0.05)))
    assert result.deviation_slope is None
    assert result.widths[0].deviation is None
    assert "the NTK moves more in wider networks" in result.verdict
    assert "infinite width" not in result.verdict
    assert "above zero at every width" in result.verdict


def test_width_with_diverged_seeds():
    records = widths()
    dead = (pl.col("width") == 16) & (pl.col("schedule") == "every-1") & (pl.col("seed") < 2)
    records = records.with_columns(
        pl.when(dead).then(pl.lit("diverged")).otherwise("result").alias("result"),
        pl.when(dead).then(100).otherwise("diverged_at").alias("diverged_at"),
    )
    result = conclude_widths(records)
    assert result.widths[0].num_seeds == 1
    assert result.widths[0].change is None
    assert result.change_slope is None
    assert "too few runs of ordinary training (K = 1) trained" in result.verdict


def test_slopes_are_those_of_least_squares():
    generator = np.random.default_rng(0)
    x, values = np.array([4, 16, 100]), np.exp(generator.standard_normal((5, 3)))
    expected = [np.polyfit(np.log(x), np.log(row), 1)[0] for row in values]
    np.testing.assert_allclose(log_slopes(x, values), expected, rtol=1e-12)
