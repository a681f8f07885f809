"""The phase study: what n feature updates in T steps reach, and how many suffice in each T."""

import math

import numpy as np
import polars as pl
from jaxtyping import Float

from relin.studies.phase.result import FEWEST_SEEDS, FEWEST_TOTALS, PhaseCell, PhaseResult, TotalOutcome
from relin.studies.phase.settings import PhaseSpec
from relin.studies.phase.verdict import phase_verdict
from relin.study._outcomes import Compared, compare_by, paired_differences
from relin.study._result import Interval, ScheduleOutcome
from relin.study._settings import Comparison
from relin.study._statistics import INTERVAL_CONFIDENCE, holm, mean_interval

_ORDINARY = "every-1"


def conclude(spec: PhaseSpec, records: dict[Comparison, pl.DataFrame], chance: float) -> PhaseResult:
    """The map of accuracy over T and n, n* of each T, and how the number of updates needed grows with T.

    Each T is compared as the schedules of a study are, its K above 1 a family of Holm's correction. Ordinary
    training of the best T, chosen on validation data, is what all cells are compared with as well, in one family.

    How the number needed grows is read where the mean loss reaches the margin, since n* jumps between the n tested;
    for the interval each seed is left out in turn (Tukey's jackknife: Miller 1974, *The jackknife, a review*,
    Biometrika 61, 1–15).

    **Arguments:**

    - `spec`: the settings.
    - `records`: those of each comparison, one row per run and recorded step, T as `run_steps`.
    - `chance`: accuracy at which a run that did not train counts.
    """
    own = records["equal-steps"]
    compared = {total: compare_by(spec, own.filter(run_steps=total), chance) for total in spec.totals}
    best, longest = _best_total(compared), compared[spec.totals[-1]]
    losses = {total: Losses(at) for total, at in compared.items()}
    totals = [_total(total, at, losses[total]) for total, at in compared.items()]
    growth, misfit = _growth({own.total: losses[own.total] for own in totals if own.crossing is not None})
    result = PhaseResult(
        **longest.shared
        | {
            "num_seeds": min(at.num_paired[0] for at in compared.values()),
            "outcomes": [labelled(outcome, total) for total, at in compared.items() for outcome in at.outcomes],
        },
        cells=_cells(compared, best),
        totals=totals,
        best_total=best,
        growth=growth,
        misfit=misfit,
    )
    return result.model_copy(update={"verdict": phase_verdict(result)})


def labelled(outcome: ScheduleOutcome, total: int) -> ScheduleOutcome:
    """The outcome with T in its label, which alone tells it from those of other T."""
    return outcome.model_copy(update={"label": f"T = {total}, {outcome.label}"})


def updates_of(total: int, period: float) -> int:
    """Re-linearisations after step 0 of T steps: ⌈T/K⌉ − 1, and none for K = ∞."""
    return 0 if math.isinf(period) else math.ceil(total / period) - 1


def _periodic(compared: Compared) -> list[tuple[float, ScheduleOutcome]]:
    """The schedules of the map, by increasing K."""
    return [(outcome.period, outcome) for outcome in compared.outcomes if outcome.period is not None]


def _best_total(compared: dict[int, Compared]) -> int | None:
    """By mean validation accuracy of ordinary training; of equals the shorter one."""
    best, highest = None, -math.inf
    for total, at in compared.items():
        accuracy = float(np.mean(at.chosen[_ORDINARY]["validation_accuracy"].to_numpy()))
        if at.has_yardstick and accuracy > highest + at.scale.resolution:
            best, highest = total, accuracy
    return best


def _cells(compared: dict[int, Compared], best: int | None) -> list[PhaseCell]:
    """Every place of the map; the comparisons with the best T are one family of Holm's correction."""
    places = [(t, k, o) for t, at in compared.items() for k, o in reversed(_periodic(at))]
    reference = None if best is None else compared[best].chosen[_ORDINARY]
    tested = [] if reference is None else [place for place in places if (place[0], place[1]) != (best, 1)]
    differences = {
        (total, period): paired_differences(
            outcome.schedule, compared[total].chosen[outcome.schedule], reference, f"K = 1 of T = {best}"
        )
        for total, period, outcome in tested
        if reference is not None
    }
    of_best = compared[places[0][0] if best is None else best]
    p_values = holm(np.array([of_best.p_value(values) for values in differences.values()]))
    adjusted = dict(zip(differences, p_values.tolist(), strict=True))
    return [
        PhaseCell(
            total=total,
            updates=updates_of(total, period),
            outcome=outcome,
            versus_best=of_best.interval(differences[total, period]) if (total, period) in differences else None,
            p_value_best=adjusted.get((total, period)),
            reaches_best=adjusted[total, period] < 1 - of_best.confidence if (total, period) in adjusted else None,
        )
        for total, period, outcome in places
    ]


def _total(total: int, compared: Compared, losses: "Losses") -> TotalOutcome:
    tested = [(period, outcome) for period, outcome in _periodic(compared) if period != 1]
    star = None
    if tested and tested[0][1].on_par is not None:
        star = 1.0
        for period, outcome in tested:
            if not outcome.on_par:
                break
            star = period
    trained = star is not None
    return TotalOutcome(
        total=total,
        enough_updates=None if star is None else updates_of(total, star),
        period=star,
        crossing=losses.crossing() if trained else None,
    )


class Losses:
    """What each n of a T loses against its ordinary training, seed by seed."""

    def __init__(self, compared: Compared):
        total = int(compared.shared["num_steps"])
        frame = compared.chosen[_ORDINARY].select("seed", ordinary="test_accuracy")
        for period, outcome in _periodic(compared):
            own = compared.chosen[outcome.schedule].select("seed", pl.col("test_accuracy").alias(f"{period}"))
            frame = frame.join(own, on="seed")
        periods = [period for period, _ in _periodic(compared)]
        losses = [(pl.col("ordinary") - pl.col(f"{period}")).alias(f"{period}") for period in periods]
        self._frame, self._margin_at = frame.sort("seed").select("seed", "ordinary", *losses), compared.margin_at
        self.windows = np.array([updates_of(total, period) + 1 for period in periods], float)
        """n + 1, from ordinary training downwards."""

    @property
    def seeds(self) -> set[int]:
        return set(self._frame["seed"].to_list())

    def crossing(self, without: int | None = None) -> float | None:
        """n + 1 at which the mean loss over seeds reaches the margin; `without` leaves a seed out."""
        kept = self._frame if without is None else self._frame.filter(pl.col("seed") != without)
        ordinary, *losses = kept.drop("seed").mean().row(0)
        return crossing(self.windows, np.array(losses), self._margin_at(ordinary))


def crossing(windows: Float[np.ndarray, " m"], losses: Float[np.ndarray, " m"], margin: float) -> float | None:
    """The n + 1 at which the loss reaches the margin for the first time from ordinary training downwards.

    Interpolated linearly against the logarithm of n + 1; none where the loss of every n stays below the margin.

    **Arguments:**

    - `windows`: n + 1, decreasing, the first of ordinary training.
    - `losses`: of accuracy against ordinary training, 0 for itself.
    - `margin`: in the unit of the losses; 0 where ordinary training's error is.
    """
    beyond = np.flatnonzero((losses >= margin) & (losses > 0))
    if not beyond.size:
        return None
    after = int(beyond[0])
    before = after - 1
    share = (margin - losses[before]) / (losses[after] - losses[before])
    return float(np.exp((1 - share) * np.log(windows[before]) + share * np.log(windows[after])))


def _growth(losses: dict[int, Losses]) -> tuple[Interval | None, float | None]:
    """The power of T in the crossings, of these T that have one, with its jackknife interval over the common seeds.

    The second is the largest factor between a crossing and the fitted power.
    """
    if len(losses) < FEWEST_TOTALS:
        return None, None
    seeds = sorted(set.intersection(*(own.seeds for own in losses.values())))
    if len(seeds) < FEWEST_SEEDS:
        return None, None
    totals, number = np.array(list(losses), float), len(seeds)

    def crossings(without: int | None) -> Float[np.ndarray, " m"]:
        found = [own.crossing(without) or min(own.windows) for own in losses.values()]
        return np.array(found, float)

    whole = crossings(None)
    slopes = [power(totals, crossings(seed)) for seed in seeds]
    growth = mean_interval(
        np.array([number * power(totals, whole) - (number - 1) * slope for slope in slopes]), INTERVAL_CONFIDENCE
    )
    rest = np.log(whole) - growth.mean * np.log(totals)
    return growth, float(np.exp(np.max(np.abs(rest - np.mean(rest)))))


def power(totals: Float[np.ndarray, " m"], values: Float[np.ndarray, " m"]) -> float:
    """Least-squares slope of log value against log T."""
    x = np.log(totals) - np.mean(np.log(totals))
    return float(np.log(values) @ x / (x @ x))
