"""The phase study on made-up maps: how many updates suffice, and how that grows with T."""

import math

import numpy as np
import polars as pl
import pytest
from made_up_phase import CHANCE, made_up, made_up_records
from scipy import stats

from relin.studies.phase.conclude import conclude, crossing, power
from relin.studies.phase.settings import PhaseSpec, period_of

GROWING = {64: 2, 256: 4, 1024: 8}
"""Windows that are needed: the square root of T/16."""


def star(result):
    return {own.total: own.enough_updates for own in result.totals}


def test_periods_of_updates():
    spec = PhaseSpec(totals=[10, 100], updates=[0, 1, 3, 4, 9, 99, 500], learning_rates=[0.1])
    small, large = spec.cells()
    assert [c.period for c in small.all_conditions()] == [1, 2, 3, 5, math.inf]
    assert [c.period for c in large.all_conditions()] == [1, 10, 20, 25, 50, math.inf]
    assert (small.steps, large.steps, spec.steps) == (10, 100, 100)
    assert small.place == ("run_steps", 10)
    for total in (2, 7, 30, 997):
        for updates in range(1, total):
            period = period_of(updates, total)
            assert period == math.ceil(total / (updates + 1))
            assert math.ceil(total / period) - 1 <= updates
    assert PhaseSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"totals": [10, 20], "steps": 10}, "steps are set by totals, to the largest, 20; leave them out"),
        ({"totals": []}, "at least one is needed"),
        ({"updates": []}, "at least one is needed"),
        ({"totals": [1]}, "greater than or equal to 2"),
        ({"methods": ["every-4"]}, "periods follow from updates, got every-4; set updates instead"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PhaseSpec(**settings)


def test_the_fewest_updates_of_each_total():
    _, _, result = made_up(GROWING)
    assert star(result) == {64: 1, 256: 3, 1024: 7}
    assert [own.period for own in result.totals] == [32, 64, 128]
    assert "the feature updates that suffice are 1 in 64 steps, 3 in 256, 7 in 1,024" in result.verdict
    assert "Holm-corrected over the n of each T, 4 paired seeds" in result.verdict
    places = {(cell.total, cell.updates): cell for cell in result.cells}
    assert places[256, 0].outcome.difference.mean == pytest.approx(-0.08)
    assert places[256, 0].outcome.on_par is False
    assert places[256, 255].outcome.difference is None
    assert [cell.updates for cell in result.at(64)] == [0, 1, 3, 7, 15, 31, 63]
    assert result.outcomes[0].label == "T = 64, K = 1"
    assert result.num_steps == 1024


def test_growth_is_the_slope_of_the_crossings_with_a_jackknife_over_seeds():
    """Where halving n below the number needed costs 4 points, the margin of 1 is reached at 2^(−1/4) of it."""
    _, records, result = made_up(GROWING, seeds=6)
    for own in result.totals:
        assert own.crossing == pytest.approx(GROWING[own.total] * 2**-0.25, rel=1e-9)
    assert result.growth.mean == pytest.approx(0.5, abs=1e-3)
    assert result.misfit == pytest.approx(1.0, abs=1e-2)

    def slope(without):
        found = []
        for total in GROWING:
            own = records.filter(pl.col("seed") != without, run_steps=total, step=total)
            means = {p: g["test_accuracy"].mean() for (p,), g in own.group_by("period")}
            losses = sorted((total if math.isinf(p) else p, means[1.0] - mean) for p, mean in means.items())
            inside = max(p for p, lost in losses if lost < 0.01)
            (before, low), (after, high) = [pair for pair in losses if pair[0] in (inside, 2 * inside)]
            at = np.log(before) + (0.01 - low) / (high - low) * np.log(after / before)
            found.append(np.log(total) - at)
        return np.polyfit(np.log(list(GROWING)), found, 1)[0]

    whole, left_out = slope(-1), [slope(seed) for seed in range(6)]
    pseudo = 6 * whole - 5 * np.array(left_out)
    half = stats.t.ppf(0.975, 5) * np.std(pseudo, ddof=1) / math.sqrt(6)
    assert result.growth.mean == pytest.approx(np.mean(pseudo), rel=1e-9)
    assert result.growth.high - result.growth.mean == pytest.approx(half, rel=1e-9)
    assert "grows as T to the power 0.500" in result.verdict
    assert "more slowly than T (3 T, each within a factor of 1 of that" in result.verdict


@pytest.mark.parametrize(
    ("windows", "losses", "expected"),
    [
        ([8, 4, 2, 1], [0, 0.005, 0.015, 0.03], math.sqrt(8)),
        ([8, 4, 2, 1], [0, 0.02, 0.0, 0.03], math.sqrt(32)),  # the first time counts
        ([8, 4, 2, 1], [0, 0.0, 0.0, 0.005], None),
        ([8, 1], [0, 0.01], 1.0),
        ([8], [0], None),
    ],
)
def test_crossing(windows, losses, expected):
    found = crossing(np.array(windows, float), np.array(losses, float), 0.01)
    assert found == (None if expected is None else pytest.approx(expected))


def test_power_is_that_of_least_squares():
    generator = np.random.default_rng(0)
    totals, values = np.array([10.0, 30, 400]), np.exp(generator.standard_normal(3))
    assert power(totals, values) == pytest.approx(np.polyfit(np.log(totals), np.log(values), 1)[0])


def test_totals_in_which_none_or_all_are_needed():
    _, _, result = made_up({64: 64, 256: 1, 1024: 1})
    assert star(result) == {64: 63, 256: 0, 1024: 0}
    assert result.totals[1].crossing is None
    assert result.growth is result.misfit is None
    assert "the feature updates that suffice are 0 in 256 steps, 0 in 1,024" in result.verdict
    assert "no fewer than ordinary training’s are shown to suffice in 64" in result.verdict
    assert "in 1 of 3 T does the mean loss reach the margin at an n, and 3 are needed" in result.verdict


def test_a_gap_in_parity_is_not_stepped_over():
    """At T = 256 n = 7 fails, and the fewer updates that would be on par do not count."""
    _, _, result = made_up({256: 1}, dead={(256, 7)})
    assert star(result) == {256: 15}
    (cell,) = [cell for cell in result.cells if cell.updates == 7]
    assert cell.outcome.test_accuracy.mean == CHANCE
    assert cell.outcome.on_par is False
    assert (
        "4 of the 28 runs at the chosen learning rates diverged and count at chance accuracy (10 %)" in result.verdict
    )


def test_ordinary_training_that_did_not_train():
    _, _, result = made_up({64: 2, 256: 4}, dead={(64, 63)})
    assert star(result) == {64: None, 256: 3}
    assert result.best_total == 256
    assert "in 64 steps no run of ordinary training (K = 1) trained" in result.verdict
    _, _, result = made_up({64: 2}, dead={(64, 63)})
    assert result.best_total is None
    assert all(cell.versus_best is None for cell in result.cells)
    assert "there is nothing to compare with" in result.verdict


def test_the_best_total_is_chosen_on_validation_data_and_compared_with():
    needed = {64: 2.2, 256: 4.4}
    _, records, result = made_up(needed, accuracies={64: 0.905, 256: 0.9}, spread=0.002)
    assert result.best_total == 64
    places = {(cell.total, cell.updates): cell for cell in result.cells}
    assert places[64, 63].versus_best is places[64, 63].p_value_best is None
    assert places[256, 255].versus_best.mean == pytest.approx(-0.005)
    assert places[256, 255].reaches_best is True
    assert places[256, 0].reaches_best is False
    ends = records.filter(records["step"] == records["run_steps"]).sort("seed")
    accuracy = {
        (total, cell.updates): ends.filter(run_steps=total, schedule=cell.outcome.schedule)["test_accuracy"].to_numpy()
        for total in needed
        for cell in result.at(total)
    }
    differences = {place: values - accuracy[64, 63] for place, values in accuracy.items() if place != (64, 63)}
    raw = {
        place: stats.ttest_1samp(values, -0.01, alternative="greater").pvalue if np.ptp(values) > 1e-9 else 0.0
        for place, values in differences.items()
    }
    assert sum(0.001 < p < 0.999 for p in raw.values()) >= 2
    least = 0.0
    for rank, place in enumerate(sorted(raw, key=lambda place: raw[place])):
        least = max(least, min(1.0, raw[place] * (len(raw) - rank)))
        assert places[place].p_value_best == pytest.approx(least, abs=1e-12)
        assert places[place].versus_best.mean == pytest.approx(np.mean(differences[place]))
    assert "on par with ordinary training of the best T, 64, are at the fewest 3 updates in 64 steps" in result.verdict


def test_schedules_without_a_period_stand_beside_the_map():
    _, _, result = made_up({64: 2}, methods=["when-error-0.1"])
    assert [outcome.schedule for outcome in result.outcomes][-1] == "when-error-0.1"
    assert len(result.cells) == len(result.outcomes) - 1
    assert star(result) == {64: 1}


def of_values(needed, accuracies, margin=10.0, **options):
    """The same map with R² in the place of accuracy, each seed's shifted by as much under all schedules."""
    spec, records = made_up_records(needed, accuracies=accuracies, margin=margin, **options)
    shifted = [(pl.col(name) + 0.01 * pl.col("seed")).alias(name) for name in ("test_accuracy", "validation_accuracy")]
    records = records.with_columns(*shifted, measure=pl.lit("R²"))
    return conclude(spec, {"equal-steps": records}, 0.0)


def test_of_values_the_margin_of_each_total_is_a_part_of_its_own_error():
    totals = {64: 8, 256: 8}
    result = of_values(totals, {64: 0.485, 256: 0.885})  # and 0.015 of the seeds
    assert (result.measure, result.relative_margin) == ("R²", 0.1)
    assert star(result) == {64: 3, 256: 7}  # halving costs 0.04, of errors of 0.5 and 0.1
    assert [own.crossing for own in result.totals] == pytest.approx([8 * 2**-1.25, 8 * 2**-0.25])
    assert "test error at most 10 % above that of ordinary training of the same T" in result.verdict
    assert result.best_total == 256
    reaching = [(cell.total, cell.updates) for cell in result.cells if cell.reaches_best]
    assert reaching == [(256, n) for n in (7, 15, 31)]  # n = 3 loses less than the margin of 64 steps


def test_of_values_the_jackknife_leaves_a_seed_out_of_the_margin_too():
    result = of_values(GROWING, dict.fromkeys(GROWING, 0.8), margin=20.0)

    def power_without(seed):
        kept = [s for s in range(4) if s != seed]
        losses = [0, *(0.04 * halvings + 0.001 * (np.mean(kept) - 1.5) for halvings in (1, 2, 3))]
        halved = np.interp(0.2 * (1 - 0.8 - 0.01 * np.mean(kept)), losses, range(4))
        crossings = [max(needed * 2.0**-halved, 1) for needed in GROWING.values()]
        return np.polyfit(np.log(list(GROWING)), np.log(crossings), 1)[0]

    pseudo = [4 * power_without(None) - 3 * power_without(seed) for seed in range(4)]
    assert result.growth.mean == pytest.approx(np.mean(pseudo), abs=1e-3)


def test_of_values_nothing_is_compared_with_what_is_no_better_than_a_constant():
    result = of_values({64: 2, 256: 4}, {64: -0.5, 256: 0.5})
    assert star(result) == {64: None, 256: 1}
    assert result.best_total == 256
    assert "in 64 steps ordinary training (K = 1) is no better on test data than the constant" in result.verdict
    result = of_values({64: 2}, {64: -0.5})
    assert result.best_total is None
    assert "ordinary training (K = 1) is no better on test data than the constant predictor" in result.verdict
