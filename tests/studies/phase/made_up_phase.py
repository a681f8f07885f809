"""Made-up maps over T and n with known answers."""

import math

import polars as pl

from relin.studies.phase.conclude import conclude, updates_of
from relin.studies.phase.settings import PhaseSpec

CHANCE = 0.1


def loss(total, updates, needed):
    """Accuracy that n updates lose: nothing from n + 1 = `needed` on, and 4 points for each halving below."""
    return max(0.0, 0.04 * math.log2(needed / (updates + 1)))


def rows(spec, needed, accuracies=None, seeds=4, spread=0.001, dead=()):
    """A run of every seed and place: `needed` windows in each T, `dead` places (T, n) of which no run trained.

    Seeds differ by `spread` in what they lose, in proportion, so that every mean loss is as told.
    """
    for cell in spec.cells():
        total = cell.steps
        top = (accuracies or {}).get(total, 0.9)
        for condition in cell.all_conditions():
            updates = updates_of(total, condition.period) if condition.period else 5
            lost = loss(total, updates, needed[total]) if condition.period else 0.2
            for seed in range(seeds):
                away = spread * (seed - (seeds - 1) / 2) * (lost > 0)
                failed = (total, updates) in dead
                for step in (0, total):
                    accuracy = 0.1 if step == 0 else top - lost - away
                    yield {
                        "study": "phase",
                        "data": "digits",
                        "model": "mlp",
                        "schedule": condition.name,
                        "period": condition.period,
                        "learning_rate": 0.1,
                        "seed": seed,
                        "num_steps": total,
                        "run_steps": total,
                        "batch_size": 64,
                        "step": step,
                        "feature_updates": updates * (step > 0),
                        "train_loss": math.nan if failed else 0.2,
                        "validation_loss": 0.2,
                        "validation_accuracy": accuracy,
                        "test_accuracy": math.nan if failed else accuracy,
                        "network_test_accuracy": accuracy,
                        "result": "diverged" if failed else "successful",
                        "diverged_at": total if failed else None,
                    }


def made_up(needed, **options):
    """Settings, records in an order of their own, and what is concluded from them."""
    spec, records = made_up_records(needed, **options)
    return spec, records, conclude(spec, {"equal-steps": records}, CHANCE)


def made_up_records(needed, updates=(0, 1, 3, 7, 15, 31), methods=(), margin=1.0, **options):
    spec = PhaseSpec(
        totals=list(needed), updates=list(updates), learning_rates=[0.1], methods=list(methods), margin=margin
    )
    schema = {"diverged_at": pl.Int64, "period": pl.Float64}
    found = list(rows(spec, needed, **options))
    records = pl.DataFrame(found, infer_schema_length=None, schema_overrides=schema)
    return spec, records.sample(fraction=1.0, shuffle=True, seed=0)
