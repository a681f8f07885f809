"""Studies of the kernel with known answers: records are set, and concluded from without training."""

import math

import polars as pl

from relin.studies.kernel.conclude import conclude as conclude_kernel
from relin.studies.kernel.result import KernelResult
from relin.studies.kernel.settings import KernelSpec
from relin.studies.width.conclude import conclude as conclude_width
from relin.studies.width.result import WidthResult
from relin.studies.width.settings import WidthSpec
from relin.study._condition import parse_condition

NUM_STEPS = 400
STEPS = (0, 100, 200, 300, 400)
RATES = (0.03, 0.1)
TAKEN = {0: 0.87, 200: 0.93, 400: 0.94}
"""Accuracy on kernels taken from ordinary training."""


def run(schedule, seed, rate, accuracy, moved, study="kernel", diverged=False, **more):
    """A run whose kernel moves from the first update on by as much at every record; not at all at K = ∞."""
    period = parse_condition(schedule).period
    rows, before = [], 0.0
    for step in STEPS:
        updates = 0 if math.isinf(period) or step == 0 else math.ceil(step / period) - 1
        distance = moved * updates * period / NUM_STEPS if updates else 0.0
        dead = diverged and step >= 200
        own = {
            "feature_updates": updates,
            "train_loss": 2.0 * 0.5 ** (step / 100),
            "validation_loss": 0.2,
            "validation_accuracy": accuracy - 0.002 - (0.01 if rate != 0.1 else 0),
            "test_accuracy": 0.1 + (accuracy + 0.004 * (seed - 1) - 0.1) * step / NUM_STEPS,
            "network_test_accuracy": accuracy,
            "kernel_distance": distance,
            "kernel_change": 4 * distance,
            "kernel_cka": 1 - distance,
            "kernel_distance_last": distance - before,
            "kernel_change_last": 4 * (distance - before),
            "kernel_velocity": (distance - before) / 100,
            "target_alignment": 0.5 + distance / 2 + 0.01 * seed,
            "effective_rank": 12.0 + seed + 10 * distance,
        }
        before = distance
        if dead:
            own |= {name: math.nan for name in own if name != "feature_updates"}
        taken = schedule == "every-1" and study == "kernel" and step in TAKEN and seed > 0
        own["frozen_kernel_accuracy"] = TAKEN[step] + 0.002 * seed if taken else None
        own["frozen_kernel_loss"] = 0.2 if taken else None
        rows.append(
            {
                "study": study,
                "data": "digits",
                "model": "mlp",
                "schedule": schedule,
                "period": period,
                "learning_rate": rate,
                "seed": seed,
                "num_steps": NUM_STEPS,
                "run_steps": NUM_STEPS,
                "batch_size": 64,
                "step": step,
                "result": "diverged" if diverged else "successful",
                "diverged_at": 150 if diverged else None,
                **own,
                **more,
            }
        )
    return rows


def frame(rows):
    names = ("frozen_kernel_accuracy", "frozen_kernel_loss", "period")
    schema = dict.fromkeys(names, pl.Float64) | {"diverged_at": pl.Int64}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=schema)


def kernel(diverged=False, violated=False) -> tuple[KernelResult, pl.DataFrame]:
    """The kernel moves by 0.1 at K = 1 and by 0.2 at K = 100; frozen kernels taken at the end are 7 points better."""
    kinds = (("every-1", 0.95, 0.1), ("every-100", 0.93, 0.2), ("never", 0.87, 0.0))
    rows = [
        row
        for name, accuracy, moved in kinds
        for rate in RATES
        for seed in range(3)
        for row in run(name, seed, rate, accuracy, moved * (1 + 0.2 * (seed - 1)), diverged=diverged)
    ]
    if violated:
        broken = next(row for row in rows if row["schedule"] == "never" and row["step"] == 300)
        broken["kernel_change"] = 1e-12
    records = frame(rows)
    spec = KernelSpec(periods=[1, 100, math.inf], learning_rates=list(RATES), steps=NUM_STEPS)
    return conclude_kernel(spec, {"equal-steps": records}, 0.1), records


def width(diverged=False, deviation=True) -> tuple[WidthResult, pl.DataFrame]:
    """Kernel change ∝ 1/√width, 5 points between K = 1 and K = ∞ at width 16 and 1 at 256."""
    more = {"deviation": deviation, "diverged": diverged}
    rows = [row for at, gap in ((16, 0.05), (64, 0.03), (256, 0.01)) for row in _at_width(at, gap, **more)]
    spec = WidthSpec(widths=[16, 64, 256], learning_rates=[0.1], steps=NUM_STEPS)
    records = frame(rows)
    return conclude_width(spec, {"equal-steps": records}, 0.1), records


def _at_width(at, gap, deviation, diverged):
    for seed in range(3):
        more = {"width": at, "study": "width"}
        if deviation:
            more["analytic_deviation"] = (1 + 0.1 * seed) / math.sqrt(at)
        moved = (1 + 0.2 * seed) / math.sqrt(at)
        yield from run("every-1", seed, 0.1, 0.95, moved, diverged=diverged, **more)
        yield from run("never", seed, 0.1, 0.95 - gap + 0.001 * seed, 0.0, diverged=diverged, **more)
