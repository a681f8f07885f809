"""Made-up studies whose answers are known: final accuracies are set, and records lead to them without training."""

import numpy as np
import polars as pl

from relin.studies.essential.result import EssentialResult
from relin.studies.stability.result import RateLimit, StabilityResult
from relin.studies.timing.result import Placement, TimingResult
from relin.study._condition import parse_condition
from relin.study._result import Interval, ScheduleOutcome

NUM_STEPS = 400
STEPS = (0, 100, 200, 300, 400)
OFFSETS = np.array([-0.004, 0.0, 0.004])  # of the seeds
RATES = (0.03, 0.1, 0.3)
COMMON = {"data": "digits", "model": "mlp", "num_steps": NUM_STEPS, "num_seeds": 3, "margin": 0.01, "confidence": 0.95}
COMMON |= {"chance": 0.1, "lazy_gap": Interval(mean=0.08, low=0.07, high=0.09)}
SPEC = {"data": "digits", "momentum": 0.9, "decay": "linear", "learning_rates": list(RATES)}
ENVIRONMENT = {"command": "relin study made-up --out here", "jax": "0.0", "device": "1 × made-up accelerator"}


def outcome(schedule: str, accuracy: float, updates: float, on_par: bool | None = False, rate: float = 0.1):
    """A schedule whose interval is 0.9 points to either side, and that is compared with an accuracy of 95 %."""
    method = parse_condition(schedule)
    ordinary = schedule == "every-1"
    difference = accuracy - 0.95
    near = Interval(mean=difference, low=difference - 0.012, high=difference + 0.012)
    return ScheduleOutcome(
        schedule=schedule,
        label=method.label,
        period=method.period,
        learning_rate=rate,
        num_seeds=3,
        num_diverged=0,
        num_diverged_all_rates=0,
        num_runs_all_rates=9,
        feature_updates=updates,
        validation_accuracy=accuracy - 0.002,
        test_accuracy=Interval(mean=accuracy, low=accuracy - 0.009, high=accuracy + 0.009),
        network_test_accuracy=Interval(mean=accuracy, low=accuracy - 0.01, high=accuracy + 0.01),
        difference=None if ordinary else near,
        bound=None if ordinary else near.low + 0.001,
        p_value=None if ordinary else 0.01,
        p_value_holm=None if ordinary else 0.02,
        on_par=None if ordinary else on_par,
    )


def records_of(study: str, outcomes: list[ScheduleOutcome]) -> pl.DataFrame:
    """Accuracy rises in equal steps from chance to its end; sharpness halves twice; no run diverges."""
    rows = []
    for each in outcomes:
        for rate in RATES:
            for seed, offset in enumerate(OFFSETS):
                final = each.test_accuracy.mean + float(offset) - (0.0 if rate == each.learning_rate else 0.01)
                for step in STEPS:
                    share = step / NUM_STEPS
                    accuracy = 0.1 + share * (final - 0.1)
                    rows.append(
                        {
                            "study": study,
                            "data": "digits",
                            "model": "mlp",
                            "schedule": each.schedule,
                            "period": each.period,
                            "learning_rate": rate,
                            "seed": seed,
                            "num_steps": NUM_STEPS,
                            "step": step,
                            "feature_updates": round(each.feature_updates * share),
                            "train_loss": 2.0 * 0.5 ** (4 * share),
                            "validation_accuracy": accuracy - 0.002,
                            "test_accuracy": accuracy,
                            "sharpness": 8.0 * 0.5 ** (2 * share),
                            "result": "successful",
                            "diverged_at": None,
                        }
                    )
    return pl.DataFrame(rows, infer_schema_length=None).cast({"period": pl.Float64, "diverged_at": pl.Int64})


def essential() -> tuple[EssentialResult, pl.DataFrame]:
    """16 updates are enough and 4 are not; step 64 is early enough and 256 is not."""
    outcomes = [
        outcome("every-1", 0.95, 399),
        outcome("never", 0.87, 0),
        outcome("after-64", 0.948, 336, on_par=True),
        outcome("after-256", 0.90, 144),
        outcome("until-4", 0.89, 4),
        outcome("until-16", 0.947, 16, on_par=True, rate=0.3),
        outcome("until-64", 0.949, 64, on_par=True),
    ]
    result = EssentialResult(
        study="essential",
        **COMMON,
        outcomes=outcomes,
        enough_updates=16,
        latest_start=64,
        verdict="On digits, feature learning is essential; features may be frozen after 16 updates (made up).",
    )
    return result, records_of("essential", outcomes)


def timing() -> tuple[TimingResult, pl.DataFrame]:
    """Adaptive is best for 8 updates, of which it spends 6; even is best for 2. Late is far below all others."""
    outcomes = [
        outcome("every-1", 0.95, 399),
        outcome("never", 0.87, 0),
        outcome("early-2", 0.88, 2),
        outcome("early-8", 0.91, 8),
        outcome("even-2", 0.93, 2),
        outcome("even-8", 0.94, 8),
        outcome("geometric-8", 0.945, 8, on_par=True),
        outcome("late-8", 0.30, 8),
        outcome("when-error-0.3", 0.949, 6, on_par=True),
    ]
    accuracy = {each.schedule: each.test_accuracy.mean for each in outcomes}

    def placement(budget: int, name: str, schedule: str, updates: float) -> Placement:
        gain = accuracy[schedule] - accuracy[f"even-{budget}"]
        versus = None if name == "even" else Interval(mean=gain, low=gain - 0.004, high=gain + 0.004)
        place = {"budget": budget, "placement": name, "schedule": schedule}
        return Placement(**place, feature_updates=updates, versus_even=versus)

    placements = [
        placement(2, "early", "early-2", 2),
        placement(2, "even", "even-2", 2),
        placement(8, "early", "early-8", 8),
        placement(8, "even", "even-8", 8),
        placement(8, "geometric", "geometric-8", 8),
        placement(8, "late", "late-8", 8),
        placement(8, "adaptive", "when-error-0.3", 6),
    ]
    result = TimingResult(
        study="timing",
        **COMMON,
        outcomes=outcomes,
        placements=placements,
        best={2: "even", 8: "adaptive"},
        verdict="On digits, 8 feature updates in 400 steps are best spent adaptively (made up).",
    )
    return result, records_of("timing", outcomes)


def stability() -> tuple[StabilityResult, pl.DataFrame]:
    """K = 16 trains to 0.03 alone and to 0.1 with clipping, K = 64 to no rate alone and to 0.3 with clipping."""
    outcomes = [
        outcome("every-1", 0.95, 399, rate=0.3),
        outcome("every-16", 0.93, 24, rate=0.03),
        outcome("every-64", 0.91, 6, rate=0.03),
        outcome("never", 0.87, 0),
        outcome("when-error-0.1", 0.946, 12, on_par=True),
        outcome("every-16+clip-1", 0.935, 24),
        outcome("every-64+clip-1", 0.942, 6, on_par=True, rate=0.3),
    ]
    counts = ([0, 0, 0], [0, 1, 3], [2, 3, 3], [0, 0, 0], [0, 0, 3], [0, 0, 1], [0, 0, 0])
    largest = (0.3, 0.03, None, 0.3, 0.1, 0.1, 0.3)
    limits = [
        RateLimit(
            schedule=each.schedule,
            largest_rate=rate,
            num_diverged=diverged,
            num_failed=[0, 0, 0],
            num_runs=[3, 3, 3],
            stable_rate=Interval(mean=0.2, low=0.15, high=0.25) if each.schedule != "every-64" else None,
        )
        for each, diverged, rate in zip(outcomes, counts, largest, strict=True)
    ]
    result = StabilityResult(
        study="stability",
        **COMMON,
        outcomes=outcomes,
        limits=limits,
        rates=list(RATES),
        stable_rate_at_start=0.25,
        pareto=["never", "every-64+clip-1", "when-error-0.1", "every-1"],
        verdict="On digits, ordinary training trains up to rate 0.3 (made up).",
    )
    return result, records_of("stability", outcomes)
