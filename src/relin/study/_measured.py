"""What the accuracies of records are: accuracies, R², or values of a measure of the user's own; and these as scores."""

import numpy as np
import polars as pl
from jaxtyping import Float

from relin.study._interval import Interval
from relin.study._measure import Measure
from relin.study._scale import R_SQUARED, Scale
from relin.study._statistics import INTERVAL_CONFIDENCE, mean_interval

ACCURACIES = ("validation_accuracy", "test_accuracy", "network_test_accuracy")
UNIT, BETTER = "measure_unit", "measure_better"
"""Columns of records of a measure of the user's own, beside its name as `measure`."""
CONSTANTS = ("constant_accuracy", "constant_validation_accuracy")
"""At what runs that did not train count, on test and on validation data; the second where it is not the first."""
_NO_LOSS = 0.01
"""The margin that stands for none where studies have none, in scores, and of R² a part of the error."""


def told_of(measure: Measure) -> dict[str, pl.Expr]:
    """The columns that say what the values are."""
    return {"measure": pl.lit(measure.name), UNIT: pl.lit(measure.unit), BETTER: pl.lit(measure.better)}


def scale_of(records: pl.DataFrame, margin: float) -> Scale:
    """How the records' accuracies are read.

    **Arguments:**

    - `margin`: in the unit of the records, a fraction of accuracies.
    """
    if BETTER in records.columns:
        name, unit, better = records.select("measure", UNIT, BETTER).row(0)
        return Scale(name, unit, "higher" if better == "higher" else "lower", margin)
    if "measure" in records.columns and (records["measure"] == R_SQUARED).all():
        return Scale(R_SQUARED, margin=margin)
    return Scale(margin=margin)


def interval_of(
    values: Float[np.ndarray, " n"], records: pl.DataFrame, near: Float[np.ndarray, " n"] | None = None
) -> Interval:
    """Mean and two-sided interval of accuracies, or of differences, in a study without a margin.

    **Arguments:**

    - `values`: one per seed.
    - `records`: say what the accuracies are.
    - `near`: accuracies of which these are differences: those of R² are equal where their difference is nothing beside
      the error.
    """
    scale = scale_of(records, margin=_NO_LOSS).beside(float(np.max(values if near is None else near)))
    return mean_interval(values, INTERVAL_CONFIDENCE, scale.resolution)


def is_lower(records: pl.DataFrame) -> bool:
    """Whether lower values of the measure are better."""
    return BETTER in records.columns and not records.is_empty() and records.item(0, BETTER) == "lower"


def scored(records: pl.DataFrame) -> pl.DataFrame:
    """Records as stored, with scores, which are higher the better, in the place of accuracies."""
    if not is_lower(records):
        return records
    there = [name for name in (*ACCURACIES, *CONSTANTS) if name in records.columns]
    return records.with_columns(*(-pl.col(name) for name in there))


def at_untrained(records: pl.DataFrame, accuracy: str, chance: float) -> pl.Expr:
    """What a run that did not train counts at in a column of accuracies: `chance`, unless the records say it."""
    own = CONSTANTS[1]
    return pl.col(own) if accuracy.startswith("validation") and own in records.columns else pl.lit(chance)
