"""What the studies of the neural tangent kernel share."""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from relin.study._judged import trained
from relin.study._records import RUN, in_order
from relin.study._result import ScheduleOutcome

METRICS = {
    "distance": "kernel_distance",
    "change": "kernel_change",
    "cka": "kernel_cka",
    "alignment": "target_alignment",
    "effective_rank": "effective_rank",
}
"""What is said of a kernel, and the columns of the records it comes from."""
_STILL = ("kernel_distance_last", "kernel_change_last")
"""Columns that are exactly 0 where the kernel did not move since the last record."""


class Constancy(BaseModel):
    """Whether the kernel was exactly constant where it must be: between feature updates, and always at K = ∞."""

    model_config = ConfigDict(frozen=True)

    num_checked: int = Field(description="Pairs of consecutive records without a feature update between them.")
    num_violated: int = Field(description="Of these, those in which the kernel changed, if ever so little.")
    first_violation: str | None = Field(description="The run and the step of the first of them.")


def constancy(records: pl.DataFrame) -> Constancy:
    """Whether the kernel is exactly the same at consecutive records without a feature update between them.

    Compared are all metrics of the kernel, to the last bit; what is not defined equals itself. At K = ∞ there is no
    feature update, so that every record is compared with the one at step 0.
    """
    run = [name for name in ("width", *RUN) if name in records.columns]
    columns = [*METRICS.values(), *_STILL]
    ordered = in_order(records.unique([*run, "step"]), "width").with_columns(pl.col(columns).fill_nan(None))
    same = [pl.col(name).eq_missing(pl.col(name).shift().over(run)) for name in METRICS.values()]
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


def final_records(outcome: ScheduleOutcome, records: pl.DataFrame) -> pl.DataFrame:
    """The last record of each run of a schedule at its learning rate that trained, by seed."""
    own = records.filter(schedule=outcome.schedule, learning_rate=outcome.learning_rate)
    last = own.filter(pl.col("step") == pl.max("step").over("seed"))
    return last.filter(trained()).unique("seed").sort("seed")


def violated(constancy: Constancy) -> str:
    """What is said before anything else where the kernel changed without a feature update."""
    if not constancy.num_violated:
        return ""
    return (
        f"THE KERNEL CHANGED WITHOUT A FEATURE UPDATE, first in {constancy.first_violation}: that cannot be, so the "
        "numbers must not be relied on. "
    )


def constancy_clause(constancy: Constancy) -> str:
    if not constancy.num_checked:
        return "no two consecutive records lie between the same feature updates, so that constancy was not checked"
    if constancy.num_violated:
        return (
            f"between feature updates it was not exactly constant, in {constancy.num_violated:,} of "
            f"{constancy.num_checked:,} pairs of consecutive records"
        )
    return (
        "between feature updates it was exactly constant, bit for bit in all "
        f"{constancy.num_checked:,} pairs of consecutive records without one"
    )
