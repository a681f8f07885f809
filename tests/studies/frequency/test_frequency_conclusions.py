import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from frequency_records import (
    CHANCE,
    NUM_STEPS,
    accuracies,
    answer,
    by_name,
    chosen,
    records,
    run,
    runs,
    steady,
    textbook_holm,
)

from relin.studies.frequency.result import FrequencyResult
from relin.study._outcomes import rank_learning_rates


@pytest.fixture
def study():
    """Ordinary training at 95 %; K = 4 and 16 lose nothing, K = 64 two points, lazy training five."""
    means = {"every-1": 0.95, "every-4": 0.951, "every-16": 0.949, "every-64": 0.93, "never": 0.9}
    tests = {name: accuracies(mean, seed=i) for i, (name, mean) in enumerate(means.items())}
    adaptive = {"when-error-0.1": accuracies(0.95, seed=8), "when-error-0.9": accuracies(0.91, seed=9)}
    rows = [runs(name, values) for name, values in tests.items()]
    rows += [runs(name, values, feature_updates=7) for name, values in adaptive.items()]
    return records(*rows), tests, adaptive


def test_outcomes_agree_with_scipy(study):
    frame, periodic, adaptive = study
    outcomes = by_name(answer(frame))
    for family in ({name: values for name, values in periodic.items() if name != "every-1"}, adaptive):
        tests = {
            name: scipy.stats.ttest_rel(values + 0.01, periodic["every-1"], alternative="greater")
            for name, values in family.items()
        }
        adjusted = textbook_holm({name: float(test.pvalue) for name, test in tests.items()})
        for name, values in family.items():
            outcome, differences = outcomes[name], values - periodic["every-1"]
            two_sided = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
            got = [outcome.p_value, outcome.p_value_holm, outcome.bound]
            expected = [tests[name].pvalue, adjusted[name], tests[name].confidence_interval(0.95).low - 0.01]
            np.testing.assert_allclose(got, expected, rtol=1e-9)
            interval = [outcome.difference.mean, outcome.difference.low, outcome.difference.high]
            np.testing.assert_allclose(interval, [differences.mean(), two_sided.low, two_sided.high], rtol=1e-9)
            assert outcome.on_par == (adjusted[name] < 0.05)


def test_answer_of_a_study_with_known_losses(study):
    frame, tests, _ = study
    result = answer(frame)
    assert [outcome.schedule for outcome in result.outcomes] == [
        *("every-1", "every-4", "every-16", "every-64", "never"),
        *("when-error-0.1", "when-error-0.9"),
    ]
    assert [outcome.on_par for outcome in result.outcomes] == [None, True, True, False, False, True, False]
    assert (result.k_star, result.sufficient_feature_updates) == (16, 62)
    assert (result.study, result.data, result.model) == ("frequency", "digits", "mlp")
    assert (result.num_steps, result.num_seeds, result.chance) == (NUM_STEPS, 8, CHANCE)
    gap = scipy.stats.ttest_rel(tests["every-1"], tests["never"]).confidence_interval(0.95)
    np.testing.assert_allclose([result.lazy_gap.low, result.lazy_gap.high], [gap.low, gap.high], rtol=1e-9)
    ordinary = by_name(result)["every-1"]
    assert ordinary.difference is ordinary.bound is ordinary.p_value is ordinary.p_value_holm is None


def test_each_schedule_is_described(study):
    frame, tests, _ = study
    outcome = by_name(answer(frame))["every-4"]
    expected = scipy.stats.ttest_1samp(tests["every-4"], 0).confidence_interval(0.95)
    interval = outcome.test_accuracy
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], rtol=1e-10)
    np.testing.assert_allclose(outcome.network_test_accuracy.mean, tests["every-4"].mean() - 0.02, rtol=1e-10)
    assert (outcome.label, outcome.period, outcome.learning_rate) == ("K = 4", 4.0, 0.1)
    assert (outcome.num_seeds, outcome.num_runs_all_rates, outcome.feature_updates) == (8, 8, 249)
    np.testing.assert_allclose(outcome.validation_accuracy, 0.9, rtol=1e-12)


def test_the_order_of_records_and_copies_of_them_change_nothing(study):
    frame, _, _ = study
    shuffled = pl.concat([frame.sample(fraction=1.0, shuffle=True, seed=5), frame.head(20)])
    assert answer(shuffled) == answer(frame)


def test_schedules_without_a_period_do_not_touch_the_family_of_periods(study):
    frame, _, _ = study
    alone = by_name(answer(frame.filter(pl.col("period").is_not_null())))
    together = by_name(answer(frame))
    assert all(alone[name] == together[name] for name in alone)


def test_correction_can_decide():
    # Differences ±s around 0: with 2 seeds, 1 degree of freedom and t = margin/s, p = ½ − atan(t)/π = 0.03.
    spread = 0.01 / math.tan(math.pi * 0.47)
    rarer = [0.9 - spread, 0.9 + spread]
    one = answer(records(runs("every-1", [0.9, 0.9]), runs("every-2", rarer)))
    two = answer(records(runs("every-1", [0.9, 0.9]), runs("every-2", rarer), runs("every-4", rarer)))
    np.testing.assert_allclose(by_name(one)["every-2"].p_value_holm, 0.03, rtol=1e-9)
    np.testing.assert_allclose([outcome.p_value_holm for outcome in two.outcomes[1:]], 0.06, rtol=1e-9)
    assert (one.k_star, two.k_star) == (2, 1)
    assert two.outcomes[1].bound > -0.01  # the bound itself is not corrected


def test_k_star_needs_every_smaller_period_to_be_on_par():
    lossy, equal, base = accuracies(0.9), accuracies(0.95, seed=2), runs("every-1", accuracies(0.95, seed=1))
    gap = answer(records(base, runs("every-2", equal), runs("every-4", lossy), runs("every-8", equal)))
    assert [outcome.on_par for outcome in gap.outcomes] == [None, True, False, True]
    assert (gap.k_star, gap.sufficient_feature_updates) == (2, 499)
    none = answer(records(base, runs("every-2", lossy), runs("every-4", equal)))
    assert (none.k_star, none.sufficient_feature_updates, none.lazy_gap) == (1, 999, None)
    lazy = answer(records(base, runs("every-2", equal), runs("never", equal)))
    assert (lazy.k_star, lazy.sufficient_feature_updates) == (math.inf, 0)
    alone = answer(records(base, runs("when-error-0.1", equal)))
    assert (alone.k_star, alone.sufficient_feature_updates, alone.num_seeds) == (None, None, 8)


def test_infinite_periods_survive_json(study):
    lazy = answer(study[0], margin=0.2)
    assert lazy.k_star == math.inf
    assert FrequencyResult.model_validate_json(lazy.model_dump_json()) == lazy


@pytest.mark.parametrize(("period", "updates"), [(2, 499), (3, 333), (7, 142), (999, 1), (1000, 0), (1024, 0)])
def test_sufficient_updates_count_the_relinearisations_after_step_0(period, updates):
    assert updates == len(range(0, NUM_STEPS, period)) - 1
    result = answer(records(runs("every-1", [0.9, 0.91]), runs(f"every-{period}", [0.9, 0.91])))
    assert (result.k_star, result.sufficient_feature_updates) == (period, updates)


def test_only_seeds_run_at_both_chosen_rates_are_paired():
    base = [row for seed in (1, 2, 3, 7) for row in run("every-1", seed, 0.9 + seed / 1000)]
    rarer = [row for seed in (0, 1, 2, 3) for row in run("every-2", seed, 0.9 + seed / 500)]
    result = answer(records(base, rarer))
    expected = scipy.stats.ttest_1samp([0.001, 0.002, 0.003], 0).confidence_interval(0.95)
    difference = by_name(result)["every-2"].difference
    np.testing.assert_allclose([difference.low, difference.high], [expected.low, expected.high], rtol=1e-8)
    assert (result.num_seeds, by_name(result)["every-2"].num_seeds) == (3, 4)


def test_seeds_of_different_number_are_told():
    few = runs("every-2", [0.9, 0.91])
    result = answer(records(runs("every-1", [0.9, 0.91, 0.92]), few, runs("every-4", [0.9, 0.91, 0.92])))
    assert result.num_seeds == 2
    assert "2 to 3 paired seeds" in result.verdict
    # Seeds of a schedule without a period have no part in K*.
    adaptive = runs("when-error-0.1", [0.9, 0.91])
    result = answer(records(runs("every-1", [0.9, 0.91, 0.92]), runs("every-2", [0.9, 0.91, 0.92]), adaptive))
    assert result.num_seeds == 3
    assert ", 3 paired seeds" in result.verdict


# Learning rates


def test_the_rate_with_the_best_validation_accuracy_is_chosen_not_the_best_on_test():
    frame = records(
        *(
            runs("every-1", [0.9, 0.9], rate=0.1, validation=0.8),
            runs("every-1", [0.7, 0.7], rate=0.2, validation=0.81),
        ),
        *(
            runs("every-2", [0.9, 0.9], rate=0.1, validation=0.8),
            runs("every-2", [0.7, 0.7], rate=0.3, validation=0.7),
        ),
    )
    assert chosen(frame, CHANCE) == {"every-1": 0.2, "every-2": 0.1}
    outcomes = by_name(answer(frame))
    assert outcomes["every-1"].test_accuracy.mean == pytest.approx(0.7)
    assert (outcomes["every-1"].learning_rate, outcomes["every-1"].num_runs_all_rates) == (0.2, 4)
    assert outcomes["every-2"].difference.mean == pytest.approx(0.2)


def test_rates_are_compared_over_the_seeds_all_of_them_share():
    shared = [
        row
        for rate, accuracy in ((0.1, 0.85), (0.2, 0.8))
        for row in runs("every-1", [0.9, 0.9], rate=rate, validation=accuracy)
    ]
    # Stage two: the chosen rate with more seeds, which turn out worse and must not change the choice.
    more = [row for seed in (2, 3, 4) for row in run("every-1", seed, 0.9, rate=0.1, validation=0.2)]
    assert chosen(records(shared), CHANCE) == {"every-1": 0.1}
    assert chosen(records(shared, more), CHANCE) == {"every-1": 0.1}


def test_rates_left_out_after_a_first_round_do_not_come_back():
    first = [(0.1, 0.8), (0.2, 0.7), (0.3, 0.6), (0.4, 0.9)]
    screened = [row for rate, v in first for row in run("every-1", 0, 0.9, rate=rate, validation=v)]
    assert rank_learning_rates(records(screened), CHANCE) == {"every-1": [0.4, 0.1, 0.2, 0.3]}
    finals = [row for rate, v in ((0.1, 0.9), (0.4, 0.5)) for row in run("every-1", 1, 0.9, rate=rate, validation=v)]
    assert rank_learning_rates(records(screened, finals), CHANCE) == {"every-1": [0.1, 0.4]}
    more = [row for seed in (2, 3) for row in run("every-1", seed, 0.9, rate=0.1, validation=0.1)]
    assert rank_learning_rates(records(screened, finals, more), CHANCE) == {"every-1": [0.1, 0.4]}


def test_ties_go_to_the_lower_loss_then_to_the_larger_rate():
    def at(rate, validation, loss):
        return [
            row
            for seed, v in enumerate(validation)
            for row in run("never", seed, 0.5, rate=rate, validation=v, loss=loss)
        ]

    # The means of these are 0.8, but not in the last bits of accuracies kept in float32.
    first, second = np.float32([0.9, 0.7]).astype(float), np.float32([0.8, 0.8]).astype(float)
    assert first.mean() < second.mean()
    assert chosen(records(at(0.1, first, 0.2), at(0.4, second, 0.3)), CHANCE) == {"never": 0.1}
    assert chosen(records(at(0.1, second, 0.3), at(0.4, first, 0.2)), CHANCE) == {"never": 0.4}
    three = records(at(0.2, first, 0.3), at(0.4, second, 0.3), at(0.1, first, 0.3))
    assert chosen(three, CHANCE) == {"never": 0.4}


def test_a_diverged_run_counts_at_chance_in_the_choice():
    steady = runs("every-1", [0.5, 0.5], rate=0.1, validation=0.5)
    # Mean (0.95 + 0.1)/2 = 0.525 wins, (0.85 + 0.1)/2 = 0.475 loses; without the diverged run both win.
    for validation, best in ((0.95, 0.9), (0.85, 0.1)):
        risky = run("every-1", 0, 0.9, rate=0.9, validation=validation) + run("every-1", 1, 0, rate=0.9, diverged_at=3)
        assert chosen(records(steady, risky), CHANCE) == {"every-1": best}


def test_a_rate_that_diverges_loses_a_tie_at_chance():
    bad = runs("never", [0.1, 0.1], rate=0.1, validation=CHANCE, loss=5.0)
    diverged = runs("never", [0, 0], rate=9.0, diverged_at=1)
    assert chosen(records(bad, diverged), CHANCE) == {"never": 0.1}
    assert chosen(records(diverged), CHANCE) == {"never": 9.0}


def test_rates_without_a_common_seed_are_refused():
    frame = records(run("every-1", 0, 0.9, rate=0.1), run("every-1", 1, 0.9, rate=0.2))
    with pytest.raises(ValueError, match=r"one seed run at every learning rate of every-1, got none for \[0.1, 0.2\]"):
        chosen(frame, CHANCE)


# Divergence


def test_diverged_runs_count_at_chance_and_are_counted():
    base = [0.9, 0.92, 0.91, 0.93]
    rarer = runs("every-2", [0.9, 0.92, 0.91]) + run("every-2", 3, 0, diverged_at=17)
    worse = runs("every-2", [0, 0], rate=0.5, diverged_at=2)
    result = answer(records(runs("every-1", base), rarer, worse))
    outcome = by_name(result)["every-2"]
    assert (outcome.learning_rate, outcome.num_seeds, outcome.num_diverged) == (0.1, 4, 1)
    assert (outcome.num_diverged_all_rates, outcome.num_runs_all_rates) == (3, 6)
    assert outcome.test_accuracy.mean == pytest.approx((0.9 + 0.92 + 0.91 + CHANCE) / 4)
    assert outcome.network_test_accuracy.mean == pytest.approx((0.88 + 0.9 + 0.89 + CHANCE) / 4)
    assert outcome.validation_accuracy == pytest.approx((0.9 * 3 + CHANCE) / 4)
    differences = np.array([0, 0, 0, CHANCE - 0.93])
    assert outcome.difference.mean == pytest.approx(differences.mean())
    assert outcome.p_value == pytest.approx(scipy.stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue)
    assert outcome.on_par is False
    assert (
        "1 of the 8 runs at the chosen learning rates diverged and counts at chance accuracy (10 %)" in result.verdict
    )


def test_nothing_is_on_par_with_ordinary_training_that_always_diverged():
    failed = runs("every-1", [0, 0, 0], diverged_at=5)
    result = answer(records(failed, steady("every-2", 0.9), steady("never", 0.9)))
    assert (result.k_star, result.sufficient_feature_updates) == (None, None)
    assert [outcome.on_par for outcome in result.outcomes] == [None, None, None]
    assert result.verdict == (
        "On digits, no run of ordinary training (K = 1) trained even at the best of its learning rates, so there is "
        "nothing to compare with and other rates must be offered; 3 of the 9 runs at the chosen learning rates "
        "diverged and count at chance accuracy (10 %)."
    )
    # One run that trains is something to compare with.
    partly = runs("every-1", [0, 0], diverged_at=5) + run("every-1", 2, 0.9)
    assert answer(records(partly, steady("every-2", 0.9))).k_star is not None


def leaves(tree):
    children = tree.values() if isinstance(tree, dict) else tree
    return [leaf for child in children for leaf in (leaves(child) if isinstance(child, dict | list) else [child])]


def test_no_nan_of_a_diverged_run_leaks():
    frame = records(
        runs("every-1", [0.9, 0.91]) + run("every-1", 2, 0, diverged_at=5),
        runs("every-2", [0, 0, 0], diverged_at=1),
        runs("never", [0.5, 0.6, 0.55]),
    )
    result = answer(frame)
    numbers = [value for value in leaves(result.model_dump()) if isinstance(value, float)]
    assert len(numbers) > 40
    assert not any(math.isnan(number) for number in numbers)
    assert list(by_name(result)["every-2"].test_accuracy.model_dump().values()) == pytest.approx([0.1] * 3)
    assert "4 of the 9 runs at the chosen learning rates diverged and count at chance" in result.verdict


def test_chance_is_what_the_caller_says():
    frame = records(runs("every-1", [0.9, 0.91]), runs("every-2", [0, 0], diverged_at=4))
    result = answer(frame, chance=0.25)
    assert result.chance == by_name(result)["every-2"].test_accuracy.mean == 0.25


# Refusals


def test_missing_ordinary_training_is_refused():
    with pytest.raises(ValueError, match=r"runs of K = 1 to compare with, got only every-2; please add .* every-1"):
        answer(records(runs("every-2", [0.9, 0.91])))


def test_a_single_seed_is_refused():
    with pytest.raises(
        ValueError, match=r"at least 2 seeds paired between every-2 and K = 1 .* got 1; please run more"
    ):
        answer(records(runs("every-1", [0.9, 0.91]), runs("every-2", [0.9])))
    with pytest.raises(ValueError, match=r"at least 2 seeds of every-1 .* got 1; please run more seeds"):
        answer(records(runs("every-1", [0.9])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mnist"}, r"records of one data, got \['digits', 'mnist'\]; please filter"),
        ({"num_steps": 7}, r"records of one num_steps, got \[7, 1000\]; please filter"),
        (
            {"step": 999},
            "end at step 1000, got step 999 for every-2 at learning rate 0.1, seed 5; please finish",
        ),
        (
            {"test_accuracy": math.nan},
            "accuracies between 0 and 1 of every-2 .* seed 5, .*'test_accuracy': nan",
        ),
        ({"network_test_accuracy": None}, "accuracies between 0 and 1 of every-2 .* seed 5"),
        ({"validation_accuracy": 93.0}, "accuracies between 0 and 1 of every-2 .* seed 5"),
        ({"seed": 0}, "one outcome per run, got different ones for every-2 at learning rate 0.1, seed 0"),
    ],
)
def test_records_that_would_mislead_are_refused(change, message):
    odd = run("every-2", 5, 0.9)[-1:]
    frame = records(runs("every-1", [0.9, 0.91]), runs("every-2", [0.91, 0.92]), [odd[0] | change])
    with pytest.raises(ValueError, match=message):
        answer(frame)


def test_missing_columns_are_refused():
    frame = records(runs("every-1", [0.9, 0.91])).drop("period", "seed")
    with pytest.raises(ValueError, match="got none named seed, period; please pass the records"):
        answer(frame)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"margin": -0.01}, "margin between 0 and 1, got -0.01"),
        ({"margin": 1.0}, "margin between 0 and 1, got 1.0; please give a fraction"),
        ({"confidence": 95.0}, "confidence between 0 and 1, got 95.0; please give a fraction"),
        ({"chance": 0}, "chance accuracy above 0 and at most 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(option, message, study):
    with pytest.raises(ValueError, match=message):
        answer(study[0], **option)


@pytest.mark.slow
def test_wrong_answers_are_as_rare_as_stated():
    """End to end: with every K losing exactly the margin, K* exceeds 1 in at most 5 % of studies."""
    trials, num_seeds, names = 400, 6, ("every-1", "every-2", "never")
    rng = np.random.default_rng(11)
    frame = records(*(runs(name, np.zeros(num_seeds)) for name in names)).filter(step=NUM_STEPS)
    loss = pl.when(pl.col("schedule") == "every-1").then(0.0).otherwise(0.01)
    wrong = 0
    for _ in range(trials):
        noise = pl.Series("noise", rng.normal(0.9, 0.01, frame.height))
        trial = frame.with_columns(test_accuracy=noise - loss, network_test_accuracy=noise)
        wrong += any(outcome.on_par for outcome in answer(trial).outcomes)
    assert 0 < wrong <= scipy.stats.binom.ppf(1 - 1e-4, trials, 0.05)
