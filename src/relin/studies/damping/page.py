"""The report of the damping study: *is iterative linearisation damped Gauss–Newton?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._figures import Plot
from relin.report._page import Report, Tile, outcomes_of_runs, targets_of, untrained_tile
from relin.studies.damping.figures import after, against_damping, ridge_in_words, ridge_map
from relin.studies.damping.result import Choice, DampingResult
from relin.studies.damping.table import damping_csv, damping_table, distances_csv
from relin.study._result import Interval
from relin.study._scale import PERCENT

QUESTION = "Is iterative linearisation damped Gauss–Newton?"


def page(result: DampingResult, records: pl.DataFrame, spec: Mapping[str, Any]) -> Report:
    """What the page of the damping study shows."""
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result),
        tables=[damping_table(result)],
        method=[_method(result)],
        files={"table.csv": damping_csv(result), "distances.csv": distances_csv(result)},
    )


def _method(result: DampingResult) -> str:
    return (
        f"A network is trained on {result.num_examples:,} examples with the squared error to {targets_of(result)}, all "
        "of them at every step. Period K takes K steps of gradient descent at an anchor, then re-linearises; damped "
        "Gauss–Newton takes one step −(G + λI)⁻¹ ∇L with λ = 1/(ηκ). K steps shrink the residual along an eigenvector "
        "of the kernel with eigenvalue a by 1 − (1 − ηa)^K of it, damping by a/(a + λ): the two are nearly the same at "
        "κ = K, and nearest in the maximum norm at κ = 1.9 K. "
        f"η is {result.rate:g} of 2/λ_max at the initial network. Distances are between the networks’ outputs on test "
        "examples after as many outer steps, relative to how far they have moved; the nearest damping is the minimum "
        "of a parabola through the squares of the least distance and its neighbours. Every run takes "
        f"{result.num_steps} outer steps. Runs are paired by seed, the initial network; intervals are two-sided 95 % "
        f"over {result.num_seeds} seeds. {outcomes_of_runs(result)}"
    )


def _tiles(result: DampingResult) -> list[Tile]:
    ridge = result.ridges[0]
    slope, factor = ridge.slope, ridge.factor
    return [
        Tile("Along the line λ = 1/(ηK)", "yes" if ridge.along_the_line else "no", after(ridge)),
        Tile(
            "Nearest κ ∝ K to the power",
            text.DASH if slope is None else text.fixed(slope.mean, 2),
            "1 on the line" if slope is None else f"1 on the line; 95 % interval {text.span(slope)}",
        ),
        Tile(
            "Nearest κ, in K",
            text.DASH if factor is None else text.significant(2**factor.mean),
            "1 on the line" if factor is None else f"1 on the line; 95 % interval {_doubled(factor)}",
        ),
        _choice("Undamped less best, Gauss–Newton", result.gauss_newton),
        _choice("Largest less best K", result.descent),
        untrained_tile(result),
    ]


def _doubled(logarithm: Interval) -> str:
    return f"{text.significant(2**logarithm.low)} to {text.significant(2**logarithm.high)}"


def _choice(label: str, choice: Choice) -> Tile:
    interval = PERCENT.to(choice.difference)
    return Tile(
        label,
        PERCENT.signed(choice.difference.mean, 1),
        f"points, 95 % interval {interval}; best at {text.short(choice.best)} on validation data",
    )


def plots(result: DampingResult) -> list[Plot]:
    """Every figure of the study, in the order of the page."""
    ridges = ", ".join(f"{ridge_in_words(ridge)} {after(ridge)}" for ridge in result.ridges)
    newton = result.gauss_newton
    title = (
        f"Gauss–Newton with next to no damping: {PERCENT.signed(newton.difference.mean, 1)} points against "
        f"κ = {text.short(newton.best)}"
    )
    return [
        Plot(
            name="ridge",
            title=f"Nearest damping 1/(ηκ): {ridges}",
            caption="Distance between the networks of period K and of Gauss–Newton damped by λ = 1/(ηκ), mean over "
            "seeds, as a part of how far K’s network has moved; the lighter the nearer. Dots are the "
            "nearest dampings with 95 % intervals over seeds; the dashed line is λ = 1/(ηK).",
            description=f"A map of distances with a ridge along the diagonal. {ridges}.",
            draw=lambda theme: ridge_map(result, theme),
        ),
        Plot(
            name="against-damping",
            title=title,
            caption=f"After {result.num_steps} outer steps, against K and κ: the farther right, the less damping. At "
            "equal loss: at the first outer step that reaches it, where two runs do. Means over seeds, bands are 95 % "
            "intervals.",
            description=f"Test accuracy, training loss and kernel distance against damping, for both methods. {title}.",
            draw=lambda theme: against_damping(result, theme),
        ),
    ]
