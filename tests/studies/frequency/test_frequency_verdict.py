from frequency_records import answer, records, runs, steady, verdict

from relin.studies.frequency.data import frequency_records
from relin.studies.frequency.page import plots
from relin.study._outcomes import schedule_label


def test_labels():
    assert schedule_label("every-1") == "K = 1"
    assert schedule_label("every-1024") == "K = 1024"
    assert schedule_label("never") == "K = ∞ (lazy)"
    assert schedule_label("when-error-0.1") == "error ≤ 0.1"
    assert schedule_label("freeze-after-100") == "freeze-after-100"


def test_verdict_of_a_finite_k_star():
    rows = (steady("every-128", 0.95), steady("every-256", 0.9), runs("never", [0.939, 0.942, 0.945]))
    # The lazy differences are 0.010, 0.008 and 0.006: mean 0.8 points, ± 4.30265 · 0.2/√3 = 0.4968.
    assert verdict(*rows, margin=0.005) == (
        "On digits, K* = 128: 7 feature updates in 1000 steps suffice (test accuracy at most 0.5 "
        "percentage points below ordinary training, one-sided 95 % confidence, Holm-corrected over 3 K, "
        "3 paired seeds); without feature learning (K = ∞) accuracy is 0.80 points lower, 95 % interval "
        "[0.30, 1.30]."
    )


def test_verdict_of_lazy_training_on_par():
    rows = (steady("every-2", 0.95), runs("never", [0.951, 0.952, 0.953]))
    assert verdict(*rows, confidence=0.99) == (
        "On digits, K* = ∞: no feature update in 1000 steps is needed (test accuracy at most 1 percentage "
        "point below ordinary training, one-sided 99 % confidence, Holm-corrected over 2 K, 3 paired seeds); "
        "without feature learning (K = ∞) accuracy is 0.20 points higher, 95 % interval [0.20, 0.20]."
    )


def test_verdict_without_a_rarer_schedule_on_par():
    assert verdict(steady("every-2", 0.9), steady("every-4", 0.9)).startswith(
        "On digits, K* = 1: no K tested above 1 was shown to be on par, so all 999 feature updates in 1000 steps stay ("
    )
    assert verdict(steady("every-2", 0.9), steady("every-4", 0.95)).startswith(
        "On digits, K* = 1: K = 2, the smallest K tested above 1, was not shown to be on par, so all 999 "
    )


def test_verdict_where_the_largest_k_tested_is_on_par():
    assert "K* = 8, the largest K tested: 124 feature updates" in verdict(steady("every-8", 0.95))
    assert "K* = 500, the largest K tested: 1 feature update in 1000 steps suffices" in verdict(
        steady("every-500", 0.95)
    )
    assert "no feature update in 1000 steps is needed" in verdict(steady("every-1000", 0.95))
    assert "∞" not in verdict(steady("every-8", 0.95))


def test_verdict_tells_an_interval_that_contains_zero():
    # Differences 0.001, 0.003 and −0.001 in favour of K = 1: mean 0.1 points, ± 4.30265 · 0.2/√3 = 0.4968.
    assert verdict(runs("never", [0.948, 0.947, 0.952])).endswith(
        "accuracy is 0.10 points lower, 95 % interval [−0.40, 0.60], which contains zero."
    )
    assert verdict(runs("never", [0.950, 0.953, 0.950])).endswith(
        "accuracy is 0.10 points higher, 95 % interval [−0.40, 0.60], which contains zero."
    )
    assert verdict(steady("never", 0.95)).endswith(
        "accuracy is 0.00 points lower, 95 % interval [0.00, 0.00], which contains zero."
    )


def test_verdict_without_any_k_tested():
    assert verdict() == ("On digits, no K above 1 was tested, so nothing is known about rarer feature updates.")


def test_verdict_of_schedules_without_a_period():
    def updates(schedule, test, number):
        return steady(schedule, test, feature_updates=number)

    rule = (
        "(on par: test accuracy at most 1 percentage point below ordinary training, one-sided 95 % confidence, "
        "Holm-corrected over schedules of a kind, 3 paired seeds)"
    )
    low, fine = updates("equal-time-19", 0.9, 19), updates("equal-time-30", 0.95, 30)
    assert verdict(low) == (
        "On digits, the feature updates of 19 updates, equal time, 19 in 1000 steps, were not shown to be on par with "
        f"ordinary training {rule}; accuracy is 5.00 points lower, 95 % interval [5.00, 5.00]."
    )
    assert verdict(low, updates("when-error-0.1", 0.8, 7.5)) == (
        f"On digits, no schedule tested was shown to be on par with ordinary training {rule}; nearest is 19 updates, "
        "equal time, 19 in 1000 steps: accuracy is 5.00 points lower, 95 % interval [5.00, 5.00]."
    )
    assert verdict(low, fine) == (
        "On digits, the fewest feature updates on par with ordinary training are those of 30 updates, equal time, 30 "
        f"in 1000 steps {rule}; with them accuracy is 0.00 points lower, 95 % interval [0.00, 0.00], which contains "
        "zero."
    )
    told = "With 19 updates, equal time, test accuracy is 5.00 points lower, "
    assert titles(low) == [f"{told}not shown to be on par with ordinary training"] * 2
    assert titles(low, fine)[0].endswith("accuracy is 0.00 points lower, on par with ordinary training")
    assert titles() == ["No schedule but ordinary training (K = 1) was tested"] * 2


def titles(*rows):
    frame = records(steady("every-1", 0.95), *rows).with_columns(run_steps=1000)
    drawn = plots([frequency_records(answer(frame), frame)])[:2]
    return [plot.title.replace("\u00a0", " ") for plot in drawn]
