"""From stored records to how every schedule came out, beside ordinary training.

The contract is the section *"On par"* of docs/method.md: runs paired by seed, rates chosen on validation data, a
one-sided bound against the margin, Holm's correction, and runs that did not train as outcomes that count.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from relin._common.words import listed
from relin.study._condition import parse_condition
from relin.study._judged import DIVERGED, FAILED, trained
from relin.study._measure import ACCURACY
from relin.study._measured import ACCURACIES, CONSTANTS, at_untrained, is_lower, scale_of, scored
from relin.study._result import Interval, ScheduleOutcome
from relin.study._scale import R_SQUARED, Scale
from relin.study._settings import Comparison, GridSpec
from relin.study._statistics import (
    INTERVAL_CONFIDENCE,
    holm,
    lower_bound,
    mean_interval,
    p_value_not_worse,
)

_SETTINGS = ("study", "data", "model", "num_steps", "batch_size")
_RUN = ("schedule", "learning_rate", "seed")
_COLUMNS = (*_SETTINGS, *_RUN, "period", "step", "feature_updates", "validation_loss", *ACCURACIES, "result")


@dataclass(frozen=True)
class Compared:
    """Every schedule at the learning rate chosen for it, beside ordinary training."""

    outcomes: list[ScheduleOutcome]
    """In the order of the periods, the schedules without a period after them."""
    chosen: dict[str, pl.DataFrame]
    """The runs of each schedule at its rate, one row a run."""
    runs: pl.DataFrame
    """All runs, one row each: the last record, those that did not train at chance accuracy and infinite loss."""
    num_paired: tuple[int, int]
    """The fewest and the most seeds a schedule has in common with ordinary training."""
    scale: Scale
    """What the accuracies are; its margin, of values its relative margin, is the largest acceptable loss."""
    confidence: float
    """Of one-sided bounds, such as 0.95."""
    chance: float
    """The accuracy, or score, at which a run that did not train counts."""
    has_yardstick: bool = True
    """Whether a run of ordinary training trained and, but for accuracy, its mean is better than a constant's."""

    @property
    def margin(self) -> float:
        """The largest acceptable loss, in scores."""
        return self.scale.margin

    @property
    def relative_margin(self) -> float | None:
        """Of values: the largest acceptable rise of the error, as a part of that of ordinary training."""
        return self.scale.relative_margin

    def margin_at(self, accuracy: float) -> float:
        """The margin of what is compared with ordinary training of this mean accuracy."""
        return self.scale.beside(accuracy).margin

    def outcome(self, schedule: str) -> ScheduleOutcome | None:
        """The outcome of a schedule by name; `None` where it was not studied."""
        return next((outcome for outcome in self.outcomes if outcome.schedule == schedule), None)

    def versus(self, schedule: str, other: str) -> Float[np.ndarray, " n"]:
        """Test accuracy of a schedule minus that of another, over the seeds both have."""
        return paired_differences(schedule, self.chosen[schedule], self.chosen[other], other)

    def interval(self, values: Float[np.ndarray, " n"]) -> Interval:
        """Mean and two-sided interval of differences, or of scores, one a seed."""
        return _interval(np.asarray(values), self.scale)

    def p_value(self, differences: Float[np.ndarray, " n"]) -> float:
        """Of the hypothesis that the mean of differences, one a seed, is a loss of the margin or more."""
        return _p_value(differences, self.scale)

    @property
    def shared(self) -> dict[str, Any]:
        """What every result of a study of schedules holds, its verdict still to be written."""
        return {
            **self.runs.select("study", "data", "model", "num_steps").row(0, named=True),
            "num_seeds": self.num_paired[0],
            "measure": self.scale.measure,
            "unit": self.scale.unit,
            "better": self.scale.better,
            "relative_margin": self.relative_margin,
            "margin": self.margin,
            "confidence": self.confidence,
            "chance": self.chance,
            "outcomes": self.outcomes,
            "lazy_gap": _lazy_gap(self.outcomes),
            "verdict": "",
        }


def rank_learning_rates(
    records: pl.DataFrame, chance: float, comparison: Comparison = "equal-steps", margin: float = 0.01
) -> dict[str, list[float]]:
    """Learning rates of every schedule, the best first: highest mean validation accuracy at the end of training.

    The rates that were run with the most seeds compete, the very most-run one aside, over the seeds they share: so the
    choice stays the same when the chosen rate is later run with more seeds, and rates left out after a first round
    do not come back. Runs that did not train count at chance accuracy and at infinite loss. Ties go to the
    lower mean validation loss, then to the larger rate.

    **Arguments:**

    - `records`: one row per run and recorded step, as `judged` has them, with the measure's own values.
    - `chance`: the accuracy at which a run that did not train counts.
    - `comparison`: whether all runs that did not diverge end at the same step, or only those at the same rate.
    - `margin`: as that of `compare`, of a measure of one's own: what is far smaller is no difference.

    **Returns:** the competing rates by schedule name.
    """
    records, chance = _as_scores(records, chance)
    return _rank_rates(_final_runs(records, chance, comparison), scale_of(records, margin).resolution)


def compare(
    records: pl.DataFrame,
    *,
    margin: float,
    confidence: float,
    chance: float,
    comparison: Comparison = "equal-steps",
    family: Callable[[str], Hashable] = lambda schedule: parse_condition(schedule).period is None,
) -> Compared:
    """How every schedule came out at its own learning rate, and whether it is on par with ordinary training, K = 1.

    A schedule is on par where the Holm-adjusted p-value of *the mean difference is −margin or less* is below
    1 − `confidence`. Intervals of means and differences are two-sided at 95 %. Whether any is on par is not said where
    no run of ordinary training trained, or, of values and of a measure of one's own, where its mean is not better than
    the constant predictor's.

    **Arguments:**

    - `records`: one row per run and recorded step, as `judged` has them, with the measure's own values; the last
      recorded step of a run is its outcome.
    - `margin`: the largest acceptable loss of test accuracy, a fraction (0.01 is one percentage point), or of a measure
      of one's own in its unit, a fraction too if that is %; where the
      records hold R² of values, the largest acceptable rise of the test error as a part of ordinary training's mean
      error, which is margin · (1 − its R²) in R².
    - `confidence`: of the one-sided bounds, and 1 − the family-wise error; a fraction such as 0.95.
    - `chance`: accuracy at which a run that did not train counts, such as 1/C.
    - `comparison`: with `equal-distance`, runs at different learning rates may end at different steps.
    - `family`: schedules with equal values are corrected together; by default those with a period, and the others.

    **Raises:** `ValueError` without K = 1, with fewer than two paired seeds of a schedule, or with records of
    more than one setting.
    """
    records, chance = _as_scores(records, chance)
    scale = scale_of(records, margin)
    _check_arguments(scale, confidence, chance)
    runs = _final_runs(records, chance, comparison)
    rates = {name: ranked[0] for name, ranked in _rank_rates(runs, scale.resolution).items()}
    chosen = {name: runs.filter(schedule=name, learning_rate=rate) for name, rate in rates.items()}
    ordinary = _ordinary_schedule(chosen)
    reached = float(np.mean(chosen[ordinary]["test_accuracy"].to_numpy()))
    has_yardstick = not chosen[ordinary]["untrained"].all() and not (scale.measure != ACCURACY and reached <= chance)
    scale = scale.beside(reached)
    others = sorted(chosen.keys() - {ordinary})
    differences = {name: paired_differences(name, chosen[name], chosen[ordinary]) for name in others}
    compared = {name: _compare(values, confidence, scale) for name, values in differences.items()}
    for kind in {family(name) for name in others}:
        members = [name for name in others if family(name) == kind]
        adjusted = holm(np.array([compared[name]["p_value"] for name in members]))
        for name, p_value in zip(members, adjusted.tolist(), strict=True):
            on_par = p_value < 1 - confidence if has_yardstick else None
            compared[name] |= {"p_value_holm": p_value, "on_par": on_par}
    compared[ordinary] = dict.fromkeys(("difference", "bound", "p_value", "p_value_holm", "on_par"))
    outcomes = [
        ScheduleOutcome(**_describe(name, chosen[name], runs.filter(schedule=name), scale), **compared[name])
        for name in sorted(chosen, key=lambda name: _order(name, _period(chosen[name])))
    ]
    periodic = [differences[name].size for name in others if _period(chosen[name]) is not None]
    paired = periodic or [differences[name].size for name in others] or [chosen[ordinary].height]
    num_paired = min(paired), max(paired)
    return Compared(outcomes, chosen, runs, num_paired, scale, confidence, chance, has_yardstick)


def compare_by(
    spec: GridSpec,
    records: pl.DataFrame,
    chance: float,
    family: Callable[[str], Hashable] = lambda schedule: parse_condition(schedule).period is None,
    comparison: Comparison = "equal-steps",
) -> Compared:
    """`compare` with the margin and the confidence of a study's settings."""
    return compare(
        records,
        margin=margin_of(spec, records),
        confidence=spec.confidence,
        chance=chance,
        comparison=comparison,
        family=family,
    )


def margin_of(spec: GridSpec, records: pl.DataFrame) -> float:
    """The margin of a study's settings as `compare` takes it."""
    return scale_of(records, margin=1.0).of_setting(spec.margin)


def _as_scores(records: pl.DataFrame, chance: float) -> tuple[pl.DataFrame, float]:
    return (scored(records), -chance) if is_lower(records) else (records, chance)


def _lazy_gap(outcomes: list[ScheduleOutcome]) -> Interval | None:
    """Test accuracy of K = 1 minus that of K = ∞, paired by seed; none where K = ∞ was not tested."""
    for outcome in outcomes:
        if outcome.period == math.inf and outcome.difference is not None:
            return -outcome.difference
    return None


def schedule_label(schedule: str) -> str:
    """Name of a schedule for people; the name itself where it is not known."""
    try:
        return parse_condition(schedule).label
    except ValueError:
        return schedule


def _check_arguments(scale: Scale, confidence: float, chance: float) -> None:
    if scale.is_own and not (0 < scale.margin < math.inf):
        raise ValueError(f"Expected a margin above 0 in the unit of {scale.measure}, got {scale.margin}.")
    if not scale.is_own and not 0 <= scale.margin < 1:
        raise ValueError(
            f"Expected a margin between 0 and 1, got {scale.margin}; please give a fraction (0.01 is one percentage "
            "point)."
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"Expected a confidence between 0 and 1, got {confidence}; please give a fraction such as 0.95."
        )
    if scale.is_own and not math.isfinite(chance):
        raise ValueError(f"Expected the {scale.measure} at which a run that did not train counts, got {chance}.")
    if not scale.is_own and not (0 < chance <= 1 or (scale.measure == R_SQUARED and chance == 0)):
        raise ValueError(
            f"Expected a chance accuracy above 0 and at most 1, got {chance}; please give 1/C for C classes alike."
        )


def _final_runs(records: pl.DataFrame, chance: float, comparison: Comparison) -> pl.DataFrame:
    """One row per run, its last record, with runs that did not train at chance accuracy and infinite loss."""
    missing = [name for name in _COLUMNS if name not in records.columns]
    if missing:
        raise ValueError(
            f"Expected records with the columns {listed(_COLUMNS)}, got none named {listed(missing)}; "
            "please pass the records of a study as stored."
        )
    diverged, failed = (pl.col("result") == name for name in (DIVERGED, FAILED))
    of_validation = [name for name in CONSTANTS[1:] if name in records.columns]
    runs = (
        records.select(*_COLUMNS, *of_validation)
        .filter(pl.col("step") == pl.col("step").max().over(*_RUN, *_SETTINGS))
        .unique()  # the same run stored twice is one run
        .with_columns(diverged=diverged, failed=failed, untrained=~trained())
        .with_columns(pl.col("period").cast(pl.Float64).fill_nan(None))
        .with_columns(
            pl.when("untrained").then(at_untrained(records, name, chance)).otherwise(pl.col(name)).alias(name)
            for name in ACCURACIES
        )
        .drop(of_validation)
        .with_columns(pl.when("untrained").then(math.inf).otherwise("validation_loss").alias("validation_loss"))
        .sort(_RUN)
    )
    _check_runs(runs, comparison, scale_of(records, margin=1.0))
    return runs


def _check_runs(runs: pl.DataFrame, comparison: Comparison, scale: Scale) -> None:
    for name in _SETTINGS:
        if runs[name].n_unique() > 1:
            raise ValueError(
                f"Expected records of one {name}, got {runs[name].unique().sort().to_list()}; please filter them first."
            )
    twice = runs.filter(pl.struct(_RUN).is_duplicated())
    if not twice.is_empty():
        raise ValueError(
            f"Expected one outcome per run, got different ones for {_run_name(twice)}; please remove all but one."
        )
    finished = runs.filter(~pl.col("diverged"))
    last = pl.max("step").over("learning_rate") if comparison == "equal-distance" else pl.max("step")
    early = finished.with_columns(last=last).filter(pl.col("step") < pl.col("last"))
    if not early.is_empty():
        alike = "at the same learning rate " if comparison == "equal-distance" else ""
        raise ValueError(
            f"Expected all runs {alike}that did not diverge to end at step {early['last'][0]}, got "
            f"step {early['step'][0]} for {_run_name(early)}; please finish the study first."
        )
    least = 0 if scale.measure == ACCURACY else -math.inf
    most = math.inf if scale.is_own else 1
    valid = pl.all_horizontal(
        (pl.col(name).is_finite() & pl.col(name).is_between(least, most)).fill_null(False) for name in ACCURACIES
    )
    wrong = finished.filter(~valid)
    if not wrong.is_empty() and scale.is_own:
        shown = {name: scale.shown(value) for name, value in wrong.select(ACCURACIES).row(0, named=True).items()}
        raise ValueError(
            f"Expected a finite {scale.measure} of {_run_name(wrong)}, which did not diverge, got {shown}; correct the "
            "measure, so that it is finite for outputs that are."
        )
    if not wrong.is_empty():
        raise ValueError(
            f"Expected accuracies between 0 and 1 of {_run_name(wrong)}, which did not diverge, got "
            f"{wrong.select(ACCURACIES).row(0, named=True)}; please run it again."
        )


def _run_name(runs: pl.DataFrame) -> str:
    schedule, rate, seed = runs.select(_RUN).row(0)
    return f"{schedule} at learning rate {rate:g}, seed {seed}"


def _rank_rates(runs: pl.DataFrame, resolution: float) -> dict[str, list[float]]:
    names = runs["schedule"].unique(maintain_order=True)
    return {name: _rank(name, runs.filter(schedule=name), resolution) for name in names}


def _rank(schedule: str, runs: pl.DataFrame, resolution: float) -> list[float]:
    num_seeds = pl.col("seed").n_unique().over("learning_rate")
    counts = runs.group_by("learning_rate").agg(pl.n_unique("seed"))["seed"].sort(descending=True)
    competing = runs.filter(num_seeds >= counts[min(1, counts.len() - 1)])
    shared = competing.filter(pl.col("learning_rate").n_unique().over("seed") == competing["learning_rate"].n_unique())
    if shared.is_empty():
        raise ValueError(
            f"Expected at least one seed run at every learning rate of {schedule}, got none for "
            f"{competing['learning_rate'].unique().sort().to_list()}; please run one seed at all of them."
        )
    means = shared.group_by("learning_rate").agg(pl.mean("validation_accuracy"), pl.mean("validation_loss"))
    accuracy, ranked = pl.col("validation_accuracy"), list[float]()
    while not means.is_empty():
        alike = means.filter(accuracy >= accuracy.max() - resolution)
        best = alike.sort("validation_loss", "learning_rate", descending=[False, True], nulls_last=True)
        ranked.append(best["learning_rate"][0])
        means = means.filter(pl.col("learning_rate") != ranked[-1])
    return ranked


def _ordinary_schedule(chosen: dict[str, pl.DataFrame]) -> str:
    for name, runs in chosen.items():
        if _period(runs) == 1:
            return name
    raise ValueError(
        f"Expected runs of K = 1 to compare with, got only {listed(chosen) or 'no runs'}; "
        "please add the schedule every-1 to the study."
    )


def _period(runs: pl.DataFrame) -> float | None:
    return runs["period"][0]


def _order(schedule: str, period: float | None) -> tuple[bool, bool, tuple[str, ...], str, float]:
    """Periods first, then what has none: by kind and modifiers, in the order of their numbers."""
    try:
        condition = parse_condition(schedule)
    except ValueError:
        return (period is None, True, (), schedule, 0.0)
    modifiers = tuple(modifier.name for modifier in condition.modifiers)
    return (period is None, False, modifiers, "" if period is not None else condition.kind, condition.value)


def paired_differences(
    schedule: str, runs: pl.DataFrame, reference: pl.DataFrame, name: str = "K = 1"
) -> Float[np.ndarray, " n"]:
    """Test accuracy minus that of the reference, over the seeds both have."""
    pairs = runs.join(reference, on="seed", suffix="_reference").sort("seed")
    if pairs.height < 2:
        raise ValueError(
            f"Expected at least 2 seeds paired between {schedule} and {name} at their chosen learning rates, "
            f"got {pairs.height}; please run more seeds."
        )
    return (pairs["test_accuracy"] - pairs["test_accuracy_reference"]).to_numpy()


def _interval(values: Float[np.ndarray, " n"], scale: Scale) -> Interval:
    return mean_interval(values, INTERVAL_CONFIDENCE, scale.resolution)


def _p_value(differences: Float[np.ndarray, " n"], scale: Scale) -> float:
    return p_value_not_worse(differences, scale.margin, scale.resolution)


def _compare(differences: Float[np.ndarray, " n"], confidence: float, scale: Scale) -> dict[str, Any]:
    return {
        "difference": _interval(differences, scale),
        "bound": lower_bound(differences, confidence, scale.resolution),
        "p_value": _p_value(differences, scale),
    }


def _describe(schedule: str, runs: pl.DataFrame, all_rates: pl.DataFrame, scale: Scale) -> dict[str, Any]:
    """What is known of a schedule by itself, without comparing it to K = 1."""
    if runs.height < 2:
        raise ValueError(
            f"Expected at least 2 seeds of {schedule} at its chosen learning rate, got {runs.height}; "
            "please run more seeds."
        )
    return {
        "schedule": schedule,
        "label": schedule_label(schedule),
        "period": _period(runs),
        "learning_rate": runs["learning_rate"][0],
        "num_seeds": runs.height,
        "rate_edge": _edge(runs, all_rates["learning_rate"].unique().to_list()),
        "num_diverged": int(runs["diverged"].sum()),
        "num_failed": int(runs["failed"].sum()),
        "num_diverged_all_rates": int(all_rates["diverged"].sum()),
        "num_failed_all_rates": int(all_rates["failed"].sum()),
        "num_runs_all_rates": all_rates.height,
        "feature_updates": float(np.mean(runs["feature_updates"].to_numpy())),
        "validation_accuracy": float(np.mean(runs["validation_accuracy"].to_numpy())),
        "test_accuracy": _interval(runs["test_accuracy"].to_numpy(), scale),
        "network_test_accuracy": _interval(runs["network_test_accuracy"].to_numpy(), scale),
    }


def _edge(runs: pl.DataFrame, offered: list[float]) -> Literal["largest", "smallest"] | None:
    """At which end of the rates offered to a schedule the chosen one is, if at either; none is best if none trained."""
    if len(offered) < 2 or runs["untrained"].all():
        return None
    rate = runs["learning_rate"][0]
    return "largest" if rate == max(offered) else "smallest" if rate == min(offered) else None
