"""The conclusions of the damping study, from stored records only."""

import numpy as np
import polars as pl
from jaxtyping import Float

from relin.studies.damping.result import Choice, DampingResult, DampingRun, Ridge
from relin.studies.damping.settings import DampingSpec
from relin.studies.damping.verdict import damping_verdict
from relin.study._judged import DIVERGED, FAILED, chance_of, trained
from relin.study._measured import interval_of, scale_of
from relin.study._statistics import finite_interval

REACHED = 0.05
"""The part of the first training loss that stands for equal training."""
Distances = Float[np.ndarray, "seeds periods kappas"]


def conclude(spec: DampingSpec, records: pl.DataFrame) -> DampingResult:
    """The ridge of agreement between period K and damping λ = 1/(ηκ), and how either damping generalises.

    **Arguments:**

    - `spec`: the settings.
    - `records`: one row a run and outer step, with the outputs on the probe at some of them.
    """
    chance = chance_of(records)
    ends = records.filter(pl.col("step") == pl.col("step").max().over("way", "number", "seed"))
    numbers = {"every": spec.periods, "gauss-newton": spec.kappas}
    runs = [
        _outcome(way, number, records, ends.filter(way=way, number=number), chance)
        for way, own in numbers.items()
        for number in own
    ]
    shared = records.row(0, named=True)
    result = DampingResult(
        **{name: shared[name] for name in ("study", "data", "model")},
        measure=scale_of(records, margin=1.0).measure,
        num_steps=spec.outer_steps,
        num_seeds=ends["seed"].n_unique(),
        num_runs=ends.height,
        num_diverged=ends.filter(result=DIVERGED).height,
        num_failed=ends.filter(result=FAILED).height,
        chance=chance,
        num_examples=spec.num_examples(records),
        rate=spec.rate,
        periods=spec.periods,
        kappas=spec.kappas,
        ridges=[_ridge(after, spec, records) for after in spec.compared_after],
        runs=runs,
        descent=_choice("every", runs, ends, chance),
        gauss_newton=_choice("gauss-newton", runs, ends, chance),
        reached_loss=REACHED,
        verdict="",
    )
    return result.model_copy(update={"verdict": damping_verdict(result)})


def _outcome(way: str, number: float, records: pl.DataFrame, ends: pl.DataFrame, chance: float) -> DampingRun:
    whole = ends.filter(pl.col("result") != DIVERGED)
    own = records.filter(pl.col("result") != DIVERGED, way=way, number=number)
    first = own.filter(step=0).select("seed", first="train_loss")
    near = own.join(first, on="seed").filter(pl.col("train_loss") <= REACHED * pl.col("first"))
    reached = near.sort("step").group_by("seed", maintain_order=True).first()
    return DampingRun(
        way=way,
        number=number,
        num_diverged=ends.height - whole.height,
        num_failed=whole.filter(result=FAILED).height,
        test_accuracy=interval_of(_accuracies(ends, "test_accuracy", chance), records),
        validation_accuracy=float(np.mean(_accuracies(ends, "validation_accuracy", chance))),
        train_loss=finite_interval(np.log10(np.maximum(whole["train_loss"].to_numpy(), 1e-300))),
        kernel_distance=finite_interval(whole["kernel_distance"].to_numpy()),
        reached=interval_of(reached["test_accuracy"].to_numpy(), records) if reached.height > 1 else None,
    )


def _accuracies(ends: pl.DataFrame, column: str, chance: float) -> Float[np.ndarray, " seeds"]:
    """By seed, a run that did not train at chance."""
    return ends.sort("seed").select(pl.when(trained()).then(pl.col(column)).otherwise(chance)).to_series().to_numpy()


def _choice(way: str, runs: list[DampingRun], ends: pl.DataFrame, chance: float) -> Choice:
    own = [run for run in runs if run.way == way]
    best, least = max(own, key=lambda run: (run.validation_accuracy, -run.number)), own[-1]
    of = ends.filter(way=way)
    accuracies = [_accuracies(of.filter(number=run.number), "test_accuracy", chance) for run in (least, best)]
    difference = interval_of(accuracies[0] - accuracies[1], ends, near=np.concatenate(accuracies))
    return Choice(best=best.number, least=least.number, difference=difference)


def _ridge(after: int, spec: DampingSpec, records: pl.DataFrame) -> Ridge:
    distances = _distances(after, spec, records)
    logs = np.log2(spec.kappas)
    nearest = np.array([[_minimum(logs, row) for row in seed] for seed in distances]) - np.log2(spec.periods)
    at_periods = [int(np.argmin(np.abs(logs - np.log2(k)))) for k in spec.periods]
    slopes = [_slope(np.log2(spec.periods), seed) for seed in nearest]
    known = np.isfinite(nearest)
    factors = [float(np.mean(seed[own])) for seed, own in zip(nearest, known, strict=True) if own.any()]
    counted = np.isfinite(distances).sum(axis=0)
    sums = np.nansum(distances, axis=0)
    return Ridge(
        after=after,
        distances=[
            [float(total / count) if count else None for total, count in zip(*rows, strict=True)]
            for rows in zip(sums, counted, strict=True)
        ],
        nearest=[finite_interval(nearest[:, place]) for place in range(len(spec.periods))],
        slope=finite_interval(np.array(slopes)),
        factor=finite_interval(np.array(factors)),
        on_line=[finite_interval(distances[:, place, at]) for place, at in enumerate(at_periods)],
    )


def _distances(after: int, spec: DampingSpec, records: pl.DataFrame) -> Distances:
    """‖f_K − f_κ‖/‖f_K − f_0‖; not a number where either diverged."""
    seeds = sorted(records["seed"].unique().to_list())
    whole = records.filter(pl.col("outputs").is_not_null(), pl.col("result") != DIVERGED)
    found = {
        (row["way"], row["number"], row["seed"], row["step"]): np.asarray(row["outputs"])
        for row in whole.select("way", "number", "seed", "step", "outputs").iter_rows(named=True)
    }
    distances = np.full((len(seeds), len(spec.periods), len(spec.kappas)), np.nan)
    for s, seed in enumerate(seeds):
        for k, period in enumerate(spec.periods):
            start, end = (found.get(("every", period, seed, step)) for step in (0, after))
            for c, kappa in enumerate(spec.kappas):
                other = found.get(("gauss-newton", kappa, seed, after))
                if start is not None and end is not None and other is not None:
                    distances[s, k, c] = np.linalg.norm(end - other) / np.linalg.norm(end - start)
    return distances


def _minimum(logs: Float[np.ndarray, " kappas"], row: Float[np.ndarray, " kappas"]) -> float:
    """Where the distance is least, by the parabola through the squares of the least value and its neighbours; not a
    number at an end, or beside a run that diverged."""
    if not np.isfinite(row).any():
        return np.nan
    place = int(np.nanargmin(row))
    if place in (0, len(row) - 1) or not np.all(np.isfinite(row[place - 1 : place + 2])):
        return np.nan
    x, y = logs[place - 1 : place + 2], row[place - 1 : place + 2] ** 2
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    return float(x[1] - slope / (2 * curvature)) if curvature > 0 else float(x[1])


def _slope(periods: Float[np.ndarray, " periods"], nearest: Float[np.ndarray, " periods"]) -> float:
    """Of log κ* against log K, by least squares; not a number from fewer than three periods."""
    known = np.isfinite(nearest)
    if known.sum() < 3:
        return np.nan
    return 1 + float(np.polyfit(periods[known], nearest[known], 1)[0])
