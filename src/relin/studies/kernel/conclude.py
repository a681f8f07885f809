"""The kernel study: how the NTK moves in training, and whether kernels taken later are better to train on."""

import polars as pl

from relin.studies.kernel.result import FrozenKernel, KernelOutcome, KernelResult
from relin.studies.kernel.settings import KernelSpec
from relin.studies.kernel.verdict import kernel_verdict
from relin.study._judged import DIVERGED
from relin.study._kernel import METRICS, constancy, final_records
from relin.study._outcomes import Compared, compare_by
from relin.study._result import ScheduleOutcome
from relin.study._settings import Comparison
from relin.study._statistics import finite_interval


def conclude(spec: KernelSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> KernelResult:
    """How far the kernel of each schedule moved, whether it stood still where it must, and what kernels are worth.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step.
    - `chance`: accuracy at which a run that did not train counts.
    """
    own = records["equal-steps"]
    compared = compare_by(spec, own, chance)
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


def _kernel(outcome: ScheduleOutcome, records: pl.DataFrame) -> KernelOutcome:
    last = final_records(outcome, records)
    metrics = {field: finite_interval(last[column].to_numpy()) for field, column in METRICS.items()}
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
        accuracy=[compared.interval(column) for column in values.T],
        gain=compared.interval(values[:, -1] - values[:, 0]),
    )
