"""The conclusions of the interpolation study, from stored records only."""

import itertools
import math

import numpy as np
import polars as pl
from jaxtyping import Float

from relin.studies.interpolation.result import InterpolationResult, PeriodOutcome
from relin.studies.interpolation.settings import InterpolationSpec
from relin.studies.interpolation.verdict import interpolation_verdict
from relin.study._judged import DIVERGED, FAILED, chance_of, trained
from relin.study._measured import interval_of, scale_of
from relin.study._result import Interval
from relin.study._statistics import INTERVAL_CONFIDENCE, finite_interval, mean_interval

_ROUNDING = {"float64": 1e-9, "float32": 1e-3}
"""Relative distances up to these are rounding errors: ε of the type, amplified by up to 10⁶ steps."""
Outputs = dict[tuple[str, float | None, int], Float[np.ndarray, " MC"]]


def conclude(spec: InterpolationSpec, records: pl.DataFrame) -> InterpolationResult:
    """Distances of each K's predictor to the two ends, and whether K = 1 and K = ∞ coincide with them.

    **Arguments:**

    - `spec`: the settings.
    - `records`: one row a run, with its outputs on the probe.
    """
    lost = records.filter(way="ordinary", result=DIVERGED)["seed"]  # nothing can be compared with these
    seeds = sorted(set(records["seed"]) - set(lost))
    chance = chance_of(records)
    outputs, networks = _outputs(records, "outputs"), _outputs(records, "network_outputs")
    ordinary = [outputs["ordinary", None, seed] for seed in seeds]
    regression = [outputs["regression", None, seed] for seed in seeds]
    limit = [outputs["limit", None, seed] for seed in seeds]
    apart = np.array([_norm(r - o) for r, o in zip(regression, ordinary, strict=True)])
    periods = []
    for period in spec.periods:
        own = records.filter(way="every", number=period).sort("seed")
        found = [
            None if result == DIVERGED else outputs["every", period, seed]
            for seed, result in own.filter(pl.col("seed").is_in(seeds)).select("seed", "result").iter_rows()
        ]
        periods.append(
            PeriodOutcome(
                period=period,
                num_diverged=own.filter(result=DIVERGED).height,
                num_failed=own.filter(result=FAILED).height,
                test_accuracy=_accuracy(own, "test_accuracy", chance),
                network_test_accuracy=_accuracy(own, "network_test_accuracy", chance),
                to_ordinary=_distances(found, ordinary, apart),
                to_regression=_distances(found, regression, apart),
            )
        )
    different = [p for p in periods if p.period < spec.steps or math.isinf(p.period)]  # K ≥ T is lazy training
    known = [(p.to_ordinary.mean, p.to_regression.mean) for p in different if p.to_ordinary and p.to_regression]
    pairs = list(itertools.pairwise(known))
    shared = records.row(0, named=True)
    result = InterpolationResult(
        **{name: shared[name] for name in ("study", "data", "model")},
        measure=scale_of(records, margin=1.0).measure,
        num_steps=spec.steps,
        num_seeds=records["seed"].n_unique(),
        num_runs=records.filter(way="every").height,
        num_diverged=records.filter(way="every", result=DIVERGED).height,
        num_failed=records.filter(way="every", result=FAILED).height,
        num_ordinary_diverged=len(lost),
        chance=chance,
        num_examples=spec.num_examples(records),
        rate=spec.rate,
        periods=periods,
        ordinary_accuracy=_accuracy(records.filter(way="ordinary").sort("seed"), "test_accuracy", chance),
        regression_accuracy=_accuracy(records.filter(way="regression").sort("seed"), "test_accuracy", chance),
        at_ordinary=_coincides([networks.get(("every", 1.0, seed)) for seed in seeds], ordinary),
        at_regression=_coincides([outputs.get(("every", math.inf, seed)) for seed in seeds], regression),
        ends_apart=finite_interval(apart / np.array([_norm(o) for o in ordinary])),
        limit_apart=finite_interval(np.array([_norm(a - b) for a, b in zip(limit, regression, strict=True)]) / apart),
        rounding=_ROUNDING[spec.precision],
        farther=sum(after[0] > before[0] for before, after in pairs),
        nearer=sum(after[1] < before[1] for before, after in pairs),
        compared=len(pairs),
        half_way=_half_way(periods),
        verdict="",
    )
    return result.model_copy(update={"verdict": interpolation_verdict(result)})


def _half_way(periods: list[PeriodOutcome]) -> float | None:
    for at in periods:
        if at.to_ordinary and at.to_regression and at.to_regression.mean < at.to_ordinary.mean:
            return at.period
    return None


def _outputs(records: pl.DataFrame, column: str) -> Outputs:
    rows = records.filter(pl.col(column).is_not_null()).select("way", "number", "seed", column)
    return {(way, number, seed): np.asarray(values) for way, number, seed, values in rows.iter_rows()}


def _norm(values: Float[np.ndarray, " MC"]) -> float:
    return float(np.linalg.norm(values))


def _accuracy(own: pl.DataFrame, column: str, chance: float) -> Interval:
    """Over seeds, a run that did not train at chance."""
    values = own.select(pl.when(trained()).then(pl.col(column)).otherwise(chance)).to_series().to_numpy()
    return interval_of(values, own)


def _distances(
    found: list[Float[np.ndarray, " MC"] | None],
    others: list[Float[np.ndarray, " MC"]],
    unit: Float[np.ndarray, " seeds"],
) -> Interval | None:
    distances = [
        _norm(one - other) / own for one, other, own in zip(found, others, unit, strict=True) if one is not None
    ]
    return mean_interval(np.array(distances), INTERVAL_CONFIDENCE) if len(distances) >= 2 else None


def _coincides(found: list[Float[np.ndarray, " MC"] | None], others: list[Float[np.ndarray, " MC"]]) -> float:
    """The largest relative distance; infinite where a run is missing or diverged."""
    distances = [
        math.inf if one is None else _norm(one - other) / _norm(other) for one, other in zip(found, others, strict=True)
    ]
    return max((d if math.isfinite(d) else math.inf for d in distances), default=math.inf)
