"""The report of the interpolation study: *does K lead from ordinary training to NTK regression?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._figures import Plot
from relin.report._page import Report, Tile, outcomes_of_runs, targets_of, untrained_tile
from relin.studies.interpolation.figures import accuracy_against_period, axis_name, distances_against_period
from relin.studies.interpolation.result import InterpolationResult
from relin.studies.interpolation.table import interpolation_csv, interpolation_table
from relin.study._abstract import Against
from relin.study._result import Interval

QUESTION = "Does K lead from ordinary training to NTK regression?"


def page(result: InterpolationResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "K") -> Report:
    """What the page of the interpolation study shows."""
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, against),
        tables=[interpolation_table(result)],
        method=[_method(result)],
        files={"table.csv": interpolation_csv(result)},
    )


def _method(result: InterpolationResult) -> str:
    return (
        f"A network is trained on {result.num_examples:,} examples with the squared error to {targets_of(result)} by "
        f"{result.num_steps:,} steps of gradient descent, all examples at every step, at {result.rate:g} of the "
        "largest stable rate of the initial network, re-linearised every K steps. Small K are walked, large ones taken "
        "many steps at once, which is the same trajectory. Ordinary training is a loop of its own, without relin; NTK "
        "regression is the closed form of lazy training after as many steps. A predictor is the linearised network’s "
        "outputs on test examples, and distances are in units of that between the two ends. "
        f"These are {_mean(result.ends_apart)} of ordinary training’s outputs apart; the limit of infinitely many "
        f"steps is {_mean(result.limit_apart)} units from NTK regression. "
        f"Runs are paired by seed, the initial network; intervals are two-sided 95 % over {result.num_seeds} seeds. "
        f"{outcomes_of_runs(result)} Diverged runs have no distance."
    )


def _mean(interval: Interval | None) -> str:
    return text.significant(None if interval is None else interval.mean)


def _tiles(result: InterpolationResult) -> list[Tile]:
    first, last = result.coincide
    half = "none" if result.half_way is None else text.short(result.half_way)
    return [
        Tile(
            "K = 1 is ordinary training",
            "yes" if first else "no",
            _apart(result.at_ordinary),
        ),
        Tile(
            "K = ∞ is NTK regression",
            "yes" if last else "no",
            _apart(result.at_regression),
        ),
        Tile("Away from ordinary training", f"{result.farther} of {result.compared}", "steps from one K to the next"),
        Tile("Towards NTK regression", f"{result.nearer} of {result.compared}", "steps from one K to the next"),
        Tile("Nearer to NTK regression from", half, "the smallest such K"),
        untrained_tile(result),
    ]


def _apart(value: float) -> str:
    return f"relative distance {text.power(float(f'{value:.0e}'))}"


def plots(result: InterpolationResult, against: Against = "K") -> list[Plot]:
    """Every figure of the study, in the order of the page."""
    far, near, compared = result.farther, result.nearer, result.compared
    steady = "steadily" if far == near == compared else "not steadily"
    title = f"K leads from ordinary training to NTK regression, {steady}"
    best = max(result.periods, key=lambda p: p.test_accuracy.mean)
    accuracy = (
        f"Test accuracy is highest at K = {text.short(best.period)}, {text.percent(best.test_accuracy.mean, 1)} %"
    )
    return [
        Plot(
            name="distances",
            title=title,
            caption="Distance of each K’s predictor on test examples to ordinary training and to NTK regression, in "
            "units of the distance between these two. Means over seeds, bands are 95 % intervals.",
            description=f"Two lines against {axis_name(against)}. From one K to the next the distance to ordinary "
            f"training grows {far} times of {compared}, that to NTK regression shrinks {near} times.",
            draw=lambda theme: distances_against_period(result, theme, against),
        ),
        Plot(
            name="accuracy",
            title=accuracy,
            caption="Test accuracy of the linearised predictor and of the network, with those of ordinary training "
            "and NTK regression. Means over seeds, bands are 95 % intervals.",
            description=f"Test accuracy against {axis_name(against)}. {accuracy}.",
            draw=lambda theme: accuracy_against_period(result, theme, against),
        ),
    ]
