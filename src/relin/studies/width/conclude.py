"""The width study: how far the NTK moves, and what feature learning is worth, in wider and wider networks."""

from collections.abc import Callable

import numpy as np
import polars as pl
from jaxtyping import Float

from relin._common.words import listed
from relin.studies.width.result import WidthOutcome, WidthResult
from relin.studies.width.settings import WidthSpec
from relin.studies.width.verdict import width_verdict
from relin.study._kernel import constancy, final_records
from relin.study._outcomes import Compared, compare_by
from relin.study._result import Interval, ScheduleOutcome
from relin.study._settings import Comparison
from relin.study._statistics import INTERVAL_CONFIDENCE, finite_interval, mean_interval


def conclude(spec: WidthSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> WidthResult:
    """Kernel change, lazy gap and the initial kernel's distance from its limit at every width, with their slopes.

    A slope is that of the straight line through log value against log width, fitted to each seed's runs by least
    squares; seeds are independent, so that its interval is the t interval over them.

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step, with the width as a column.
    - `chance`: accuracy at which a run that did not train counts.
    """
    own = records["equal-steps"]
    compared = {width: compare_by(spec, own.filter(width=width), chance) for width in spec.widths}
    widths = [_at_width(width, at, own.filter(width=width)) for width, at in compared.items()]
    result = WidthResult(
        **compared[spec.widths[-1]].shared
        | {
            "num_seeds": min(min(outcome.ordinary.num_seeds, outcome.lazy.num_seeds) for outcome in widths),
            "outcomes": [labelled(outcome, at.width) for at in widths for outcome in (at.ordinary, at.lazy)],
            "lazy_gap": widths[-1].gap,
        },
        widths=widths,
        change_slope=_slope(widths, own, final_records, "kernel_change"),
        deviation_slope=_slope(widths, own, _first_records, "analytic_deviation"),
        constancy=constancy(own),
    )
    return result.model_copy(update={"verdict": width_verdict(result)})


def labelled(outcome: ScheduleOutcome, width: int) -> ScheduleOutcome:
    """The outcome with its width in its label, which alone tells it from those of other widths."""
    return outcome.model_copy(update={"label": f"width {width}, {outcome.label}"})


def _at_width(width: int, compared: Compared, records: pl.DataFrame) -> WidthOutcome:
    ordinary, lazy = compared.outcome("every-1"), compared.outcome("never")
    if ordinary is None or lazy is None:
        raise ValueError(
            f"Expected runs of K = 1 and of K = ∞ at width {width}, got {listed(compared.chosen)}; please run both."
        )
    gap = compared.interval(compared.versus("every-1", "never"))
    last = final_records(ordinary, records)
    deviation = None
    if "analytic_deviation" in records.columns:
        deviation = finite_interval(_first_records(ordinary, records)["analytic_deviation"].to_numpy())
    return WidthOutcome(
        width=width,
        ordinary=ordinary,
        lazy=lazy,
        gap=gap,
        num_seeds=last.height,
        change=finite_interval(last["kernel_change"].to_numpy()),
        distance=finite_interval(last["kernel_distance"].to_numpy()),
        deviation=deviation,
    )


def _first_records(outcome: ScheduleOutcome, records: pl.DataFrame) -> pl.DataFrame:
    """The record at step 0 of each run of a schedule at its learning rate, by seed."""
    own = records.filter(schedule=outcome.schedule, learning_rate=outcome.learning_rate, step=0)
    return own.unique("seed").sort("seed")


def _slope(
    widths: list[WidthOutcome],
    records: pl.DataFrame,
    select: Callable[[ScheduleOutcome, pl.DataFrame], pl.DataFrame],
    column: str,
) -> Interval | None:
    """Slope of log column against log width, over the seeds that have a value above 0 at every width."""
    if column not in records.columns:
        return None
    rows = [
        select(at.ordinary, records.filter(width=at.width)).select("seed", "width", pl.col(column).alias("value"))
        for at in widths
    ]
    positive = pl.concat(rows).filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    complete = positive.filter(pl.len().over("seed") == len(widths)).sort("seed", "width")
    if complete["seed"].n_unique() < 2:
        return None
    values = complete["value"].to_numpy().reshape(-1, len(widths))
    return mean_interval(log_slopes(np.array([at.width for at in widths]), values), INTERVAL_CONFIDENCE)


def log_slopes(widths: Float[np.ndarray, " m"], values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Least-squares slopes of log value against log width, one a row."""
    x = np.log(widths) - np.mean(np.log(widths))
    return np.log(values) @ x / np.sum(x**2)
