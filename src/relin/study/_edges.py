"""Where a schedule's best learning rate is the outermost that it was offered, and which one lies beyond."""

from collections.abc import Mapping, Sequence

import polars as pl

from relin.study._judged import DIVERGED, trained
from relin.study._settings import LARGEST_RATE, SMALLEST_RATE


def rates_beyond(records: pl.DataFrame, ranked: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The next learning rate of each schedule whose best one is at an end of those that it was run with.

    It is as far beyond as the outermost two are apart, to three digits. Of a schedule that trained at no rate, it is a
    smaller one where runs at the smallest diverged, and a larger one where none did at the largest.

    **Arguments:**

    - `records`: one row per run and recorded step, as `judged` has them; of one comparison and cell.
    - `ranked`: the rates of each schedule by name, the best first.
    """
    diverged = pl.col("result") == DIVERGED
    ends = records.group_by("schedule", "learning_rate").agg(trained().any().alias("trained"), diverged=diverged.any())
    beyond = dict[str, float]()
    for schedule, rates in ranked.items():
        own = ends.filter(schedule=schedule).sort("learning_rate")
        offered, any_trained = own["learning_rate"].to_list(), own["trained"].any()
        down = rates[0] == offered[0] if any_trained else own["diverged"][0]
        up = rates[0] == offered[-1] if any_trained else not own["diverged"][-1]
        if (found := _beyond(offered, down, up)) is not None:
            beyond[schedule] = found
    return beyond


def _beyond(offered: Sequence[float], down: bool, up: bool) -> float | None:
    """Of rates in increasing order, below the smallest or above the largest."""
    if not (down or up):
        return None
    end, second = (offered[0], offered[1]) if down else (offered[-1], offered[-2])
    exact = end * (end / second)
    rounded = float(f"{exact:.3g}")
    found = exact if rounded in offered else rounded
    return found if SMALLEST_RATE <= found <= LARGEST_RATE else None
