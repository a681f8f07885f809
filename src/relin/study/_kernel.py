"""The kernel study: how the NTK moves in training, and whether kernels taken later are better to train on."""

from typing import cast

import polars as pl

from relin.study._judged import DIVERGED, trained
from relin.study._kernel_result import Constancy, FrozenKernel, KernelOutcome, KernelResult
from relin.study._kernel_specs import KernelSpec
from relin.study._kernel_verdict import kernel_verdict
from relin.study._outcomes import Compared, compare
from relin.study._result import ScheduleOutcome
from relin.study._settings import Comparison, GridSpec
from relin.study._statistics import INTERVAL_CONFIDENCE, finite_interval, mean_interval

_METRICS = {
    "distance": "kernel_distance",
    "change": "kernel_change",
    "cka": "kernel_cka",
    "alignment": "target_alignment",
    "effective_rank": "effective_rank",
}
"""The fields of an outcome, and the columns of the records they come from."""
_STILL = ("kernel_distance_last", "kernel_change_last")
"""Columns that are exactly 0 where the kernel did not move since the last record."""
_RUN = ("schedule", "learning_rate", "seed")


def conclude_kernel(spec: GridSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> KernelResult:
    """How far the kernel of each schedule moved, whether it stood still where it must, and what kernels are worth.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    spec, own = cast(KernelSpec, spec), records["equal-steps"]
    compared = compare(own, margin=spec.margin / 100, confidence=spec.confidence, chance=chance)
    start = own.filter(pl.col("step") == 0).unique("seed").sort("seed")
    taken = [_frozen(name, compared, own, chance) for name in spec.frozen_methods]
    result = KernelResult(
        **compared.shared,
        kernels=[_kernel(outcome, own) for outcome in compared.outcomes],
        initial_alignment=finite_interval(start["target_alignment"].to_numpy()),
        initial_rank=finite_interval(start["effective_rank"].to_numpy()),
        constancy=constancy(own),
        frozen=[frozen for frozen in taken if frozen is not None],
    )
    return result.model_copy(update={"verdict": kernel_verdict(result)})


def final_records(outcome: ScheduleOutcome, records: pl.DataFrame) -> pl.DataFrame:
    """The last record of each run of a schedule at its learning rate that trained, by seed."""
    own = records.filter(schedule=outcome.schedule, learning_rate=outcome.learning_rate)
    last = own.filter(pl.col("step") == pl.max("step").over("seed"))
    return last.filter(trained()).unique("seed").sort("seed")


def constancy(records: pl.DataFrame) -> Constancy:
    """Whether the kernel is exactly the same at consecutive records without a feature update between them.

    Compared are all metrics of the kernel, to the last bit; what is not defined equals itself. At K = ∞ there is no
    feature update, so that every record is compared with the one at step 0.
    """
    run = [*_RUN, "run_steps"] if "run_steps" in records.columns else [*_RUN]
    run += ["width"] if "width" in records.columns else []
    columns = [*_METRICS.values(), *_STILL]
    ordered = records.unique([*run, "step"]).with_columns(pl.col(columns).fill_nan(None)).sort(*run, "step")
    same = [pl.col(name).eq_missing(pl.col(name).shift().over(run)) for name in _METRICS.values()]
    still = [(pl.col(name).is_null() | (pl.col(name) == 0)) for name in _STILL]
    pairs = ordered.with_columns(
        held=(pl.col("feature_updates") == pl.col("feature_updates").shift().over(run)),
        constant=pl.all_horizontal(*same, *still),
    ).filter("held")
    broken = pairs.filter(~pl.col("constant"))
    first = None
    if not broken.is_empty():
        row = broken.row(0, named=True)
        width = f", width {row['width']}" if "width" in row else ""
        first = f"{row['schedule']} at rate {row['learning_rate']:g}, seed {row['seed']}{width}, step {row['step']}"
    return Constancy(num_checked=pairs.height, num_violated=broken.height, first_violation=first)


def _kernel(outcome: ScheduleOutcome, records: pl.DataFrame) -> KernelOutcome:
    last = final_records(outcome, records)
    metrics = {field: finite_interval(last[column].to_numpy()) for field, column in _METRICS.items()}
    return KernelOutcome(schedule=outcome.schedule, num_seeds=last.height, **metrics)


def _frozen(name: str, compared: Compared, records: pl.DataFrame, chance: float) -> FrozenKernel | None:
    """Over the seeds of which kernels were taken; lazy training that diverged counts at chance, like the other runs."""
    outcome = compared.outcome(name)
    if outcome is None or "frozen_kernel_accuracy" not in records.columns:
        return None
    rows = records.filter(schedule=name, learning_rate=outcome.learning_rate).unique(["seed", "step"])
    loss, accuracy = pl.col("frozen_kernel_loss"), pl.col("frozen_kernel_accuracy")
    measured = rows.filter(accuracy.is_not_null() & (accuracy.is_not_nan() | (pl.col("result") == DIVERGED)))
    if measured.is_empty():
        return None
    counted = measured.with_columns(pl.when(loss.is_finite()).then(accuracy).otherwise(chance).alias("counted"))
    first = counted.filter(pl.col("step") == 0)
    steps = sorted(counted.filter(accuracy.is_not_nan())["step"].unique().to_list())
    wide = counted.filter(pl.col("step").is_in(steps)).pivot("step", index="seed", values="counted").sort("seed")
    values = wide.select(map(str, steps)).fill_null(chance).to_numpy()  # none after a divergence of the run itself
    if first.height < 2 or values.shape[0] < 2:
        return None
    return FrozenKernel(
        schedule=name,
        learning_rate=outcome.learning_rate,
        num_seeds=values.shape[0],
        steps=steps,
        accuracy=[mean_interval(column, INTERVAL_CONFIDENCE) for column in values.T],
        gain=mean_interval(values[:, -1] - values[:, 0], INTERVAL_CONFIDENCE),
    )
