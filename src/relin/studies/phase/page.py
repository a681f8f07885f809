"""The report of the phase study: *how many feature updates suffice, as training grows longer?*"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from relin.report import _text as text
from relin.report._figures import Plot
from relin.report._page import Report, Tile, shared_tiles, statistics
from relin.studies.phase.figures import best_total, enough_against_total, phase_map, same_total
from relin.studies.phase.result import PhaseCell, PhaseResult
from relin.studies.phase.table import phase_csv, phase_tables, totals_csv
from relin.studies.phase.verdict import enough_words
from relin.study._abstract import Against
from relin.study._verdict import spelled

QUESTION = "How many feature updates suffice, as training grows longer?"
_METHOD = (
    "Networks are trained for several numbers of steps T, each with several numbers of feature updates n, by "
    "re-linearising every K = ⌈T/(n + 1)⌉ steps; numbers that lead to the same K are one, and n = T − 1 is ordinary "
    "training (K = 1). Every place (T, n) has the learning rate that validation data choose for it, whose decay "
    "spans its own T steps. n* of a T is the fewest updates on par with ordinary training of the same T together with "
    "every larger number tested; the K above 1 of a T are a family of Holm’s correction. Every place is also compared "
    "with ordinary training of the T at which that has the best mean validation accuracy; these comparisons are "
    "one family."
)
_GROWTH = (
    "n* jumps between the numbers tested, so its growth is read from where the mean loss reaches the margin: from "
    "ordinary training downwards, the first time, interpolated linearly against the logarithm of n + 1 = T/K. The "
    "power of T is the slope of the least-squares line through the logarithms, its interval that of the jackknife, "
    "which leaves out each seed in turn; T without such an n are left out, and fewer than three give no power. The "
    "interval is of other seeds, not of another law: how far the T are from the power stands beside it."
)
_COLUMNS = ("run_steps", "schedule", "learning_rate", "seed", "step", "result", "test_accuracy")


def page(result: PhaseResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the phase study shows."""
    _check(result, records)
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, against),
        tables=phase_tables(result),
        method=[_METHOD, _GROWTH, statistics(result)],
        files={"table.csv": phase_csv(result), "totals.csv": totals_csv(result)},
    )


def _check(result: PhaseResult, records: pl.DataFrame) -> None:
    if not result.cells:
        raise ValueError(
            f"Expected at least one place in the result of study {result.study!r}, got none; run the study before "
            "asking for its report."
        )
    if missing := [name for name in _COLUMNS if name not in records.columns]:
        raise ValueError(
            f"Expected records with the columns {', '.join(_COLUMNS)}, got none named {', '.join(missing)}; pass the "
            "records as the study's store returns them."
        )
    there = set(records.select("run_steps", "schedule").unique().rows())
    if absent := [
        f"T = {c.total}, {c.outcome.label}" for c in result.cells if (c.total, c.outcome.schedule) not in there
    ]:
        raise ValueError(f"Expected records of {absent[0]}, got none; pass the records of the result.")


def _tiles(result: PhaseResult) -> list[Tile]:
    _, *others = shared_tiles(result)  # the lazy gap depends on T
    answered = [own for own in result.totals if own.enough_updates is not None]
    longest = answered[-1] if answered else None
    growth, best = result.growth, result.best_total
    tiles = [
        Tile(
            "Feature updates that suffice",
            text.count(longest.enough_updates if longest else None),
            f"in {longest.total:,} steps, of {longest.total - 1:,}"
            if longest
            else "ordinary training is nothing to compare with",
        ),
        Tile(
            "Power of T",
            text.fixed(growth.mean if growth else None, 2),
            f"in which n + 1 at the margin grows, 95 % interval {text.fixed(growth.low, 2)} to "
            f"{text.fixed(growth.high, 2)}"
            if growth
            else "too few T at which the mean loss reaches the margin",
        ),
        Tile("Best T", text.count(best), "of ordinary training, on validation data"),
    ]
    return [*tiles, *others]


def plots(result: PhaseResult, against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    reading = (
        f"Both axes are logarithmic{', that of n in n + 1' if against == 'n' else ''}. Bold is the accuracy of "
        f"ordinary training; gaps were not tested. {text.UNTRAINED_MEANS}; places of which no run trained are hatched, "
        f"with dots where none diverged. {text.EDGES_MEAN}. Colours end at a loss of ten margins."
    )
    unit = f"in {result.scale.points}, " if result.scale.points else ""
    same = Plot(
        name="map",
        title=_map_title(result),
        caption="Test accuracy of n feature updates in T steps less that of ordinary training of the same T, "
        f"{unit}mean over seeds, each at its best learning rate. {'Below' if against == 'K' else 'Above'} the line "
        f"of parity every n tested is on par with ordinary training. {reading}",
        description=f"Accuracy over T and n. {_in_words(result)}",
        draw=lambda theme: phase_map(result, same_total, theme, against=against),
    )
    best = Plot(
        name="map-against-best",
        title=_best_title(result),
        caption=f"The same, less the accuracy of ordinary training of the best T. {reading}",
        description=f"Accuracy over T and n against the best T. {_best_title(result)}.",
        draw=lambda theme: phase_map(result, best_total, theme, line=False, against=against),
    )
    enough = Plot(
        name="enough-updates",
        title=_growth_title(result),
        caption="Left: the number of windows n + 1 = T/K. Right: the steps of a window, T/(n + 1). Filled marks are "
        "n*, shown to suffice; open ones where the mean loss reaches the margin, with the power of T fitted to them.",
        description=f"The fewest feature updates that suffice, against T. {_in_words(result)}",
        draw=lambda theme: enough_against_total(result, theme),
    )
    return [same, *([best] if result.best_total is not None else []), enough]


def _map_title(result: PhaseResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    answered = [own for own in result.totals if own.is_fewer]
    if not answered:
        return "No number of updates below that of ordinary training is shown to suffice"
    words = enough_words(answered)
    return words[0].upper() + words[1:]


def _best_title(result: PhaseResult) -> str:
    reached: list[PhaseCell] = [cell for cell in result.cells if cell.reaches_best]
    return f"{len(reached)} of {len(result.cells) - 1} other places are on par with the best, T = {result.best_total}"


def _growth_title(result: PhaseResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    growth = result.growth
    if growth is None:
        return "Too few T have an n at which the mean loss reaches the margin, to say how it grows"
    power = spelled(growth).replace(", ", ",\u00a0")  # no line of a figure begins within the interval
    return f"n + 1 at which the mean loss reaches the margin goes as T to the power {power}"


def _in_words(result: PhaseResult) -> str:
    parts = (f"T = {own.total:,}: {text.counted(own.enough_updates, 'update')}" for own in result.totals)
    return "; ".join(parts) + "."
