"""Records of made-up studies, and the answers they should give."""

import math

import numpy as np
import polars as pl

from relin.studies.frequency.conclude import family, frequency_result
from relin.study._outcomes import compare, rank_learning_rates

NUM_STEPS = 1000
CHANCE = 0.1


def chosen(frame, chance):
    return {name: rates[0] for name, rates in rank_learning_rates(frame, chance).items()}


def period_of(schedule):
    if schedule == "never":
        return math.inf
    number = schedule.removeprefix("every-")
    return float(number) if number != schedule and number.isdecimal() else None


def run(schedule, seed, test, *, validation=0.9, loss=0.3, rate=0.1, diverged_at=None, **other):
    """Records of one run: a row on the way, which must not count, and the final one."""
    period = period_of(schedule)
    diverged = diverged_at is not None
    last = diverged_at if diverged else NUM_STEPS
    row = {
        "study": "frequency",
        "data": "digits",
        "model": "mlp",
        "schedule": schedule,
        "period": period,
        "learning_rate": rate,
        "seed": seed,
        "num_steps": NUM_STEPS,
        "batch_size": 64,
        "step": last,
        "feature_updates": 0 if period is None else math.ceil(last / period) - 1,
        "train_loss": loss,
        "validation_loss": math.nan if diverged else loss,
        "validation_accuracy": math.nan if diverged else validation,
        "test_loss": loss,
        "test_accuracy": math.nan if diverged else test,
        "network_test_loss": loss,
        "network_test_accuracy": math.nan if diverged else test - 0.02,
        "linearisation_error": 0.1,
        "parameter_movement": 0.1,
        "result": "diverged" if diverged else "successful",
        "diverged_at": diverged_at,
        "spec": "{}",
        "versions": "{}",
        "device": "cpu",
    } | other
    early = {
        "step": last // 2,
        "test_accuracy": 0.99,
        "validation_accuracy": 0.999,
        "network_test_accuracy": 0.99,
    }
    return [row | early, row]


def runs(schedule, tests, **options):
    return [row for seed, test in enumerate(tests) for row in run(schedule, seed, test, **options)]


def records(*rows, shuffle=0):
    return pl.DataFrame([row for group in rows for row in group], infer_schema_length=None).sample(
        fraction=1.0, shuffle=True, seed=shuffle
    )


def answer(frame, *, margin=0.01, confidence=0.95, chance=CHANCE):
    return frequency_result(compare(frame, margin=margin, confidence=confidence, chance=chance, family=family))


def accuracies(mean, num_seeds=8, spread=0.002, seed=0):
    return mean + spread * np.random.default_rng(seed).standard_normal(num_seeds)


def textbook_holm(p_values):
    """Names to adjusted p-values, one rank at a time."""
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, (len(p_values) - rank) * p_values[name])
        adjusted[name] = min(highest, 1.0)
    return adjusted


def by_name(result):
    return {outcome.schedule: outcome for outcome in result.outcomes}


def steady(schedule, accuracy, **options):
    return runs(schedule, [accuracy - 0.001, accuracy, accuracy + 0.001], **options)


def verdict(*rows, **options):
    return answer(records(steady("every-1", 0.95), *rows), **options).verdict
