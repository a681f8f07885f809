"""How each run of stored records ended: the one place where studies learn it.

Records of every age are judged when they are read, by the definition of *Outcomes of a run* in docs/method.md.
"""

from typing import Literal

import polars as pl

from relin._common.outcome import failed_to_train

TRAINED, FAILED, DIVERGED = "successful", "failed to train", "diverged"
"""The values of the column `result` after `judged`."""
_RUN = ("way", "number", "width", "schedule", "learning_rate", "run_steps", "seed")
"""The columns that name a run, of those that records have."""


def judged(records: pl.DataFrame, loss: Literal["cross-entropy", "squared-error"]) -> pl.DataFrame:
    """The records with how their run ended as `result`, and with what it was compared to as `constant_loss`.

    A run diverged where a batch's loss was not finite. Older records also call a run diverged, at its last step, that
    ended above the untrained network's loss: it is judged like all others. What has no training loss, such as a closed
    form, is not.

    **Arguments:**

    - `records`: one row a run and recorded step.
    - `loss`: what was minimised, of classes; it says `constant_loss` where the records do not: C equally frequent
      classes are taken, with cross-entropy ln C and with squared error half the variance of one-hot targets.
    """
    num_classes = pl.col("num_classes") if "num_classes" in records.columns else pl.lit(None, pl.Int64)
    num_classes = pl.when(num_classes > 1).then(num_classes).otherwise(None)  # one output stands for values
    balanced = num_classes.log() if loss == "cross-entropy" else (1 - 1 / num_classes) / 2
    known = [pl.col(name) for name in ("constant_loss",) if name in records.columns]
    final = [pl.col(name) for name in ("final_loss", "train_loss") if name in records.columns]
    if not final:
        return records
    records = records.with_columns(constant_loss=pl.coalesce(*known, balanced))
    run = [name for name in _RUN if name in records.columns]
    last = pl.col("step") == pl.col("step").max().over(run)
    ended = pl.coalesce(*final)
    only_above = ended.is_finite() & (pl.col("diverged_at") == pl.col("step"))
    diverged = (pl.col("result") == DIVERGED) & ~only_above.fill_null(value=False)
    result = (
        pl.when(diverged | ~ended.is_finite())
        .then(pl.lit(DIVERGED))
        .when(failed_to_train(ended, pl.col("constant_loss")))
        .then(pl.lit(FAILED))
        .otherwise(pl.lit(TRAINED))
    )
    at_end = pl.when(last).then(result).otherwise(None).max().over(run)
    records = records.with_columns(result=at_end)
    return records.with_columns(
        diverged_at=pl.when(pl.col("result") == DIVERGED).then(pl.col("diverged_at")).otherwise(None)
    )


def trained() -> pl.Expr:
    """Whether the run of a record trained."""
    return pl.col("result") == TRAINED


def chance_of(records: pl.DataFrame) -> float:
    """Accuracy at which a run that did not train counts: the constant predictor's.

    That is the most frequent class's share of the training set, or 1/C where records do not hold it.
    """
    share = records.item(0, "constant_accuracy") if "constant_accuracy" in records.columns else None
    return 1 / records.item(0, "num_classes") if share is None else float(share)
