"""A made-up frequency study with the shape of a real one: deterministic, no training, statistics from SciPy.

Eleven periods, lazy training and two adaptive schedules; 12 seeds at the chosen learning rate and 3 at the others;
middle periods diverge at high rates, as linearised training does. A second study, of fewer periods, has those of the
preset `sparse` beside them and compares both with equal steps and with equal learning rate × steps.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from scipy import stats

from relin.studies.frequency.result import FrequencyResult
from relin.study._result import Interval, ScheduleOutcome

NUM_STEPS = 2000
BATCH_SIZE = 128
NUM_SEEDS = 12
NUM_TUNING_SEEDS = 3
MARGIN = 0.01
CHANCE = 0.1
REFERENCE_RATE = 1.0
MAX_STEPS = 9000
RATES = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16)
STEPS = np.unique(np.concatenate([[0, 1, 2, 5, 10, 20, 50], np.linspace(100, NUM_STEPS, 20)])).astype(int)
SPEC = {
    "study": "frequency",
    "data": {"name": "mnist1d", "validation": 1000},
    "model": {"name": "cnn", "width": 64},
    "periods": [2**k for k in range(11)],
    "learning_rates": list(RATES),
    "seeds": {"tuning": NUM_TUNING_SEEDS, "final": NUM_SEEDS},
    "num_steps": NUM_STEPS,
    "batch_size": BATCH_SIZE,
}
ENVIRONMENT = {
    "command": "relin run frequency --out results/frequency",
    "relin": "0.1.0",
    "jax": "0.10.2",
    "python": "3.11.2",
    "device": "1 × made-up accelerator",
}


@dataclass(frozen=True)
class Regime:
    """What a schedule does to training in this made-up world."""

    schedule: str
    label: str
    period: float | None
    updates: float
    laziness: float
    """0 learns features as ordinary training does, 1 is lazy."""
    stable_rate: float
    """Above it runs diverge."""


def _regimes() -> list[Regime]:
    regimes = []
    for k in range(11):
        K = 2**k
        laziness = 1 / (1 + math.exp(-(k - 7.4) * 1.15))
        stable = 10.0 if K <= 2 else (1.1 if K <= 8 else (0.35 if K <= 512 else 1.1))
        label = f"K = {K}"
        updates = math.ceil(NUM_STEPS / K) - 1
        regimes.append(Regime(f"every-{K}", label, float(K), updates, laziness if K > 1 else 0.0, stable))
    regimes.append(Regime("never", "K = ∞ (lazy)", math.inf, 0, 1.0, 10.0))
    regimes.append(Regime("when-error-0.1", "error ≤ 0.1", None, 61, 0.01, 3.5))
    regimes.append(Regime("when-error-0.5", "error ≤ 0.5", None, 14, 0.09, 3.5))
    return regimes


def _regimes_of_both() -> list[Regime]:
    plain = [regime for regime in _regimes() if regime.period in (1, 4, 16, 64, 256, math.inf)]
    sparse = [
        Regime(f"every-{K}+sparse", f"K = {K}, sparse", None, math.ceil(NUM_STEPS / K) - 1, laziness, 10.0)
        for K, laziness in ((16, 0.005), (64, 0.02), (256, 0.09))
    ]
    clipped = Regime("every-64+clip-1", "K = 64, clipped at 1", None, 31, 0.03, 1.1)
    return [*plain, *sparse, clipped, Regime("when-error-0.1", "error ≤ 0.1", None, 29, 0.01, 3.5)]


def steps_at(rate: float, comparison: str) -> int:
    """Steps of a run: smaller rates take more of them where learning rate × steps is equal."""
    return (
        NUM_STEPS if comparison == "equal-steps" else min(MAX_STEPS, round(NUM_STEPS * max(1.0, REFERENCE_RATE / rate)))
    )


def _run_rows(regime: Regime, rate: float, seed: int, rng: np.random.Generator, run_steps: int) -> list[dict]:
    longer = run_steps / NUM_STEPS
    seed_effect = 0.004 * math.sin(3.0 * seed)
    unlucky = regime.period == 128 and seed == 7  # one diverged run at the chosen rate
    diverges = unlucky or rate > regime.stable_rate * (1 + 0.5 * (seed % 3))
    diverged_at = int(rng.integers(40, 600)) if diverges else None
    quality = -0.005 * (math.log10(rate) - math.log10(0.316)) ** 2 * (2 + 4 * regime.laziness)
    final = 0.943 - 0.20 * regime.laziness / longer + quality + seed_effect + 0.0025 * rng.standard_normal()
    gap = 0.02 * regime.laziness + (0.004 if regime.period not in (1.0, math.inf) else 0.0)
    rows = []
    for step in np.rint(STEPS * longer).astype(int):
        dead = diverged_at is not None and step >= diverged_at
        progress = 1 - math.exp(-((step / 140) ** 0.6) * (rate / 0.316) ** 0.3)
        accuracy = math.nan if dead else CHANCE + (final - CHANCE) * progress + 0.002 * rng.standard_normal()
        network = accuracy - gap * progress
        loss = math.nan if dead else 2.3 * math.exp(-3.2 * progress * (1 - 0.55 * regime.laziness)) + 0.01
        error = 0.0 if regime.period == 1.0 else 0.9 * regime.laziness**0.35 * progress
        rows.append(
            {
                "study": "frequency",
                "data": "mnist1d",
                "model": "cnn",
                "schedule": regime.schedule,
                "period": regime.period,
                "learning_rate": rate,
                "seed": seed,
                "num_steps": NUM_STEPS,
                "run_steps": run_steps,
                "batch_size": BATCH_SIZE,
                "step": int(step),
                "feature_updates": round(regime.updates * int(step) / NUM_STEPS),
                "train_loss": loss,
                "validation_loss": loss * 1.1,
                "validation_accuracy": accuracy - 0.001,
                "test_loss": loss * 1.12,
                "test_accuracy": accuracy,
                "network_test_loss": loss * 1.15,
                "network_test_accuracy": network,
                "linearisation_error": math.nan if dead else error,
                "parameter_movement": math.nan if dead else 0.4 * progress * (1.2 - 0.8 * regime.laziness),
                "result": "diverged" if diverges else "successful",
                "diverged_at": diverged_at,
            }
        )
    return rows


def _final(runs: pl.DataFrame, column: str) -> np.ndarray:
    """The last recorded value of each run in the order of seeds, chance where the run diverged."""
    last = runs.filter(pl.col("step") == pl.col("run_steps")).sort("seed")
    value = pl.when(pl.col("result") == "diverged").then(CHANCE).otherwise(pl.col(column))
    return last.select(value.alias("value"))["value"].to_numpy()


def _interval(values: np.ndarray) -> Interval:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(mean=values.mean(), low=values.mean() - half, high=values.mean() + half)


def _outcome(regime: Regime, runs: pl.DataFrame, rate: float, reference: np.ndarray | None) -> ScheduleOutcome:
    chosen = runs.filter(pl.col("learning_rate") == rate)
    test = _final(chosen, "test_accuracy")
    last = runs.filter(pl.col("step") == pl.col("run_steps"))
    diverged = last.filter(pl.col("result") == "diverged")
    tested = {}
    if reference is not None:
        difference = test - reference
        error = difference.std(ddof=1) / math.sqrt(len(difference))
        bound = difference.mean() - stats.t.ppf(0.95, len(difference) - 1) * error
        p_value = float(stats.t.sf((difference.mean() + MARGIN) / error, len(difference) - 1))
        tested = {"difference": _interval(difference), "bound": bound, "p_value": p_value}
    return ScheduleOutcome(
        schedule=regime.schedule,
        label=regime.label,
        period=regime.period,
        learning_rate=rate,
        num_seeds=len(test),
        num_diverged=len(diverged.filter(pl.col("learning_rate") == rate)),
        num_diverged_all_rates=len(diverged),
        num_runs_all_rates=len(last),
        feature_updates=chosen.filter(pl.col("step") == pl.col("run_steps"))["feature_updates"].mean(),
        validation_accuracy=float(_final(chosen, "validation_accuracy").mean()),
        test_accuracy=_interval(test),
        network_test_accuracy=_interval(_final(chosen, "network_test_accuracy")),
        **({"difference": None, "bound": None, "p_value": None} | tested),
        p_value_holm=None,
        on_par=None,
    )


def _with_holm(outcomes: list[ScheduleOutcome]) -> list[ScheduleOutcome]:
    order = sorted((o for o in outcomes if o.p_value is not None), key=lambda o: o.p_value)
    largest, corrected = 0.0, {}
    for rank, outcome in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * outcome.p_value))
        corrected[outcome.schedule] = largest
    return [
        o.model_copy(update={"p_value_holm": corrected[o.schedule], "on_par": corrected[o.schedule] < 0.05})
        if o.schedule in corrected
        else o
        for o in outcomes
    ]


@cache
def sample_study() -> tuple[FrequencyResult, pl.DataFrame]:
    """The result and the records of the made-up study."""
    (result,), records = _study(_regimes(), ("equal-steps",))
    return result, records


@cache
def sample_of_both() -> tuple[FrequencyResult, pl.DataFrame]:
    """The result, with the other answer beside it, and the records of the study of both comparisons."""
    (first, second), records = _study(_regimes_of_both(), ("equal-steps", "equal-distance"))
    return first.model_copy(update={"equal_distance": second}), records


def _study(regimes: list[Regime], comparisons: tuple[str, ...]) -> tuple[list[FrequencyResult], pl.DataFrame]:
    rng = np.random.default_rng(0)
    outcomes, frames, reference = {comparison: [] for comparison in comparisons}, [], {}
    for regime in regimes:
        frame, rates = _runs(regime, comparisons, rng)
        frames.append(frame)
        for comparison, rate in rates.items():
            own = _of_comparison(frame, comparison)
            outcomes[comparison].append(_outcome(regime, own, rate, reference.get(comparison)))
            if regime.period == 1.0:
                reference[comparison] = _final(own.filter(pl.col("learning_rate") == rate), "test_accuracy")
    return [_result(_with_holm(outcomes[comparison]), comparison) for comparison in comparisons], pl.concat(frames)


def _runs(
    regime: Regime, comparisons: tuple[str, ...], rng: np.random.Generator
) -> tuple[pl.DataFrame, dict[str, float]]:
    """The records of a schedule, and the learning rate chosen for it in each comparison."""

    def rows(rate: float, seeds: range, those: tuple[str, ...]) -> list[dict]:
        lengths = sorted({steps_at(rate, comparison) for comparison in those})
        return [row for steps in lengths for seed in seeds for row in _run_rows(regime, rate, seed, rng, steps)]

    tuning = [row for rate in RATES for row in rows(rate, range(NUM_TUNING_SEEDS), comparisons)]
    frame = pl.DataFrame(tuning, infer_schema_length=None)
    chosen = {}
    for comparison in comparisons:
        own = _of_comparison(frame, comparison)
        means = {r: _final(own.filter(pl.col("learning_rate") == r), "validation_accuracy").mean() for r in RATES}
        chosen[comparison] = max(means, key=means.__getitem__)
    others = range(NUM_TUNING_SEEDS, NUM_SEEDS)
    final = []
    for rate in dict.fromkeys(chosen.values()):
        final += rows(rate, others, tuple(comparison for comparison in comparisons if chosen[comparison] == rate))
    frame = pl.DataFrame(tuning + final, infer_schema_length=None)
    return frame.cast({"diverged_at": pl.Int64, "period": pl.Float64}), chosen


def _of_comparison(records: pl.DataFrame, comparison: str) -> pl.DataFrame:
    """The rule the runs were made by, not the one that a report finds them by."""
    steps = pl.col("learning_rate").replace_strict(RATES, [steps_at(rate, comparison) for rate in RATES])
    return records.filter(pl.col("run_steps") == steps)


def _result(outcomes: list[ScheduleOutcome], comparison: str) -> FrequencyResult:
    on_par = [o.period for o in outcomes if o.period is not None and o.period > 1 and o.on_par]
    k_star = max(K for K in on_par if all(o.on_par for o in outcomes if o.period and 1 < o.period <= K))
    lazy = next(o for o in outcomes if o.schedule == "never").difference
    updates = math.ceil(NUM_STEPS / k_star) - 1
    if comparison == "equal-distance":
        updates = round(next(o.feature_updates for o in outcomes if o.period == k_star))
    fewest = min((o for o in outcomes if o.on_par), key=lambda o: o.feature_updates)
    return FrequencyResult(
        study="frequency",
        data="mnist1d",
        model="cnn",
        num_steps=NUM_STEPS,
        num_seeds=NUM_SEEDS,
        margin=MARGIN,
        confidence=0.95,
        chance=CHANCE,
        outcomes=outcomes,
        comparison=comparison,
        k_star=k_star,
        sufficient_feature_updates=updates,
        fewest_updates=fewest.schedule,
        lazy_gap=Interval(mean=-lazy.mean, low=-lazy.high, high=-lazy.low),
        verdict=f"{updates} feature updates in {NUM_STEPS} steps suffice: up to K = {k_star:g} the loss of test "
        f"accuracy to ordinary training is less than {100 * MARGIN:g} percentage point.",
    )
