"""The report of the frequency study: *how rarely can features be updated without loss?*"""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from relin.report import _text as text
from relin.report._figures import Plot, save_plot
from relin.report._files import write_atomically
from relin.report._frequency_checks import linearity, rates_tried, widest_gap
from relin.report._frequency_data import FrequencyRecords, answered, with_period
from relin.report._frequency_figures import (
    accuracy_against_period,
    accuracy_against_updates,
    learning_curves,
    selection,
)
from relin.report._page import Html, Page, Section, Tile, code_block, definitions, paragraph, render_page
from relin.report._table import frequency_csv, frequency_table
from relin.report._terminal import terminal_summary
from relin.study._result import FrequencyResult

QUESTION = "How rarely can features be updated without loss?"


def write_report(
    result: FrequencyResult,
    records: pl.DataFrame,
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
    out_dir: Path,
) -> Path:
    """Write the report of a frequency study and return the path of its page.

    In `out_dir` there will be `report.html`, which holds everything it shows; `figures/*.png` and `figures/*.pdf`;
    `table.csv`, the outcomes in full precision; and `summary.txt`. Each file is replaced in one step, the page last.

    Args:
        result: the conclusions to show.
        records: a row per run and recorded step, of one model on one data set, at every learning rate tried.
        spec: the settings of the study, nested mappings of plain values.
        environment: versions and device; its entry `command`, if any, is shown as the way to reproduce the study.
        out_dir: created where it does not exist.

    Raises:
        ValueError: there is no outcome or no record, or the records are not those of the result.
    """
    data = FrequencyRecords(result, records)
    out_dir = Path(out_dir)
    figures = [save_plot(plot, out_dir / "figures") for plot in plots(result, data)]
    write_atomically(out_dir / "table.csv", frequency_csv(result))
    write_atomically(out_dir / "summary.txt", _plain_summary(result))
    return write_atomically(out_dir / "report.html", render_page(_page(result, figures, spec, environment)))


def _page(
    result: FrequencyResult, figures: list[Html], spec: Mapping[str, Any], environment: Mapping[str, Any]
) -> Page:
    command = environment.get("command")
    versions = {name: value for name, value in environment.items() if name != "command"}
    reproduce = [paragraph("The same command continues a study that was interrupted.")]
    if command:
        reproduce.append(code_block(command if isinstance(command, str) else " ".join(map(str, command))))
    sections = [
        Section("results", "What came out", figures),
        Section("table", "The numbers", [frequency_table(result)]),
        Section("method", "What was done", [*map(paragraph, _statistics(result)), definitions(spec)]),
        Section("environment", "Where it ran", [definitions(versions)]),
        Section("reproduce", "How to do it again", reproduce if command else [paragraph("No command was recorded.")]),
    ]
    return Page(
        title=QUESTION,
        subtitle=f"{result.study} · {result.model} on {result.data} · {result.num_steps:,} steps",
        verdict=result.verdict,
        tiles=_tiles(result),
        sections=sections,
        footer="Rendered by relin from stored results.",
    )


def _tiles(result: FrequencyResult) -> list[Tile]:
    steps = f"{result.num_steps:,}"
    runs = sum(outcome.num_runs_all_rates for outcome in result.outcomes)
    diverged = sum(outcome.num_diverged_all_rates for outcome in result.outcomes)
    chosen = sum(outcome.num_diverged for outcome in result.outcomes)
    gap = result.lazy_gap
    bound = f"one-sided {100 * result.confidence:g} % bound, Holm-corrected"
    star = "largest K on par with ordinary training" if answered(result) else "no larger K is shown to be on par"
    return [
        Tile("K*", text.period(result.k_star), star),
        Tile("Feature updates that suffice", text.count(result.sufficient_feature_updates), f"in {steps} steps"),
        Tile(
            "Lazy gap, K = 1 less K = ∞",
            text.percent(gap.mean if gap else None, 1),
            f"points, 95 % interval {text.percent(gap.low, 1)} to {text.percent(gap.high, 1)}"
            if gap
            else "lazy training was not part of the study",
        ),
        Tile("Margin", text.tick(100 * result.margin), f"{text.points(result.margin).split(' ', 1)[1]}, {bound}"),
        Tile("Seeds", text.count(result.num_seeds), "for each schedule, paired"),
        Tile("Diverged runs", text.count(diverged), f"of {runs:,} at any rate; {chosen} at a chosen rate"),
    ]


def _statistics(result: FrequencyResult) -> list[str]:
    confidence, margin = f"{100 * result.confidence:g} %", text.points(result.margin)
    return [
        "Runs are paired by seed: one seed means the same initial parameters and the same batches under every "
        "schedule, so the difference to K = 1 is taken seed by seed, and intervals are two-sided 95 % over "
        f"{result.num_seeds} seeds. The learning rate is chosen for each schedule by validation accuracy, over the "
        f"seeds that ran at every rate, and never by test data. A K is on par if the one-sided {confidence} lower "
        f"bound of its difference excludes a loss of {margin}, after Holm's correction over the K tested (schedules "
        "without a period are corrected among themselves); K* is the largest K that is on par together with every "
        "smaller one. A run diverged if its loss was not finite, or ended above that of the untrained network; it "
        f"counts at chance accuracy, {text.tick(100 * result.chance)} %, and is never "
        "left out of a mean of accuracy.",
    ]


def _plain_summary(result: FrequencyResult) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=120, color_system=None, legacy_windows=False).print(terminal_summary(result))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def plots(result: FrequencyResult, data: FrequencyRecords) -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    steps, margin, star = f"{result.num_steps:,}", text.points(result.margin), text.period(result.k_star)
    updates = text.count(result.sufficient_feature_updates)
    found = answered(result)
    return [
        Plot(
            name="accuracy-against-period",
            title=f"Up to K = {star} the loss of test accuracy is less than {margin}"
            if found
            else f"No K above 1 is shown to lose less than {margin} of test accuracy",
            caption="Mean test accuracy of the linearised network and its 95 % interval; faint dots are seeds. Bands "
            "are the intervals of ordinary (K = 1) and lazy (K = ∞) training, the dashed line is one margin below "
            "ordinary training, and filled marks are on par with it. ×1/12 counts diverged seeds, each at chance. To "
            "the right of the dotted line stand schedules without a period.",
            description=f"Test accuracy against K. {_spoken(result)}",
            draw=lambda theme: accuracy_against_period(result, data, theme),
        ),
        Plot(
            name="accuracy-against-updates",
            title=f"{updates} feature updates in {steps} steps suffice"
            if found
            else f"No fewer feature updates than ordinary training’s are shown to suffice in {steps} steps",
            caption="The same accuracies against the number of feature updates in a run, on a logarithmic axis that "
            "includes zero. Circles update every K steps, diamonds when the linearisation error passes a tolerance: a "
            "diamond above the line spends its updates better than a fixed K.",
            description=f"Test accuracy against the number of feature updates. {_spoken(result)}",
            draw=lambda theme: accuracy_against_updates(result, theme),
        ),
        Plot(
            name="learning-curves",
            title=_curves_title(result),
            caption="Mean over seeds and its 95 % interval at the learning rate chosen for each K. From where a run "
            "diverged its accuracy counts at chance; a training loss has no such value, so there the mean is over the "
            "runs that are left.",
            description=f"Test accuracy and training loss against the step. {_curves_title(result)}.",
            draw=lambda theme: learning_curves(result, data, theme),
        ),
        Plot(
            name="learning-rates",
            title=_rates_title(result),
            caption="Mean final validation accuracy in percent of each schedule at each learning rate, with the "
            "chosen rate outlined. ×2/3 means that two of three runs diverged, counted at chance; cells where every "
            "run diverged are hatched. Colours span the accuracies of cells without divergence.",
            description=f"Validation accuracy for every schedule and learning rate. {_rates_title(result)}.",
            draw=lambda theme: rates_tried(result, data, theme),
        ),
        Plot(
            name="linearity",
            title=_linearity_title(result),
            caption="Left: accuracy of the linearised network, which is what was trained, and of the network itself at "
            "the same parameters θ. Right: linearisation error ‖f − f̄‖ / ‖f − fₛ‖ and distance of the parameters from "
            "their start, both at the last recorded step, over the runs that did not diverge.",
            description=f"Both predictors, linearisation error and parameter movement against K. "
            f"{_linearity_title(result)}.",
            draw=lambda theme: linearity(result, data, theme),
        ),
    ]


def _spoken(result: FrequencyResult) -> str:
    return "; ".join(f"{o.label}: {text.percent(o.test_accuracy.mean, 1)} %" for o in result.outcomes) + "."


def _curves_title(result: FrequencyResult) -> str:
    ends = [(o.period, f"{text.percent(o.test_accuracy.mean, 1)} %") for o in selection(result)]
    shown = [(K, end) for K, end in ends if K in (1.0, result.k_star, math.inf)]
    if not shown:
        return f"Learning over {result.num_steps:,} steps"
    return "Test accuracy ends at " + ", ".join(f"{end} for K = {text.period(K)}" for K, end in shown)


def _rates_title(result: FrequencyResult) -> str:
    runs = sum(outcome.num_runs_all_rates for outcome in result.outcomes)
    diverged = sum(outcome.num_diverged_all_rates for outcome in result.outcomes)
    if not diverged:
        return f"None of {runs:,} runs diverged at any learning rate"
    most = max(o.num_diverged_all_rates / max(o.num_runs_all_rates, 1) for o in result.outcomes)
    worst = [o.label for o in result.outcomes if o.num_diverged_all_rates / max(o.num_runs_all_rates, 1) == most]
    calm = [o for o in (with_period(result.outcomes, K) for K in (1.0, math.inf)) if o and not o.num_diverged_all_rates]
    others = f", none at {' or '.join(o.label for o in calm)}" if calm else ""
    return f"{diverged:,} of {runs:,} runs diverged, the largest share at {worst[0]}{others}"


def _linearity_title(result: FrequencyResult) -> str:
    gap, label = widest_gap(result)
    return f"Linearised and true network differ by at most {text.percent(gap, 1)} points of accuracy, at {label}"
