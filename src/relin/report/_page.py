"""The page of a study: self-contained HTML, its files, and what the pages of several studies show and say."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from rich.console import Console, RenderableType

from relin._common.files import write_atomically
from relin.report import _text as text
from relin.report._figures import Plot, save_plot
from relin.report._html import Html, code_block, definitions, escape, paragraph, prose
from relin.report._terminal import terminal_summary
from relin.study._descent_result import DescentResult
from relin.study._kernel import Constancy
from relin.study._result import GridResult, ScheduleOutcome, StudyResult
from relin.study._scale import R_SQUARED, Scale
from relin.study._verdict import in_measure


@dataclass(frozen=True)
class Tile:
    """A key number: the value in large type, what it is, and what to make of it.

    **Attributes:**

    - `label`: what it is.
    - `value`: the number with its unit.
    - `note`: what to make of it.
    """

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    name: str
    heading: str
    parts: Sequence[Html]


@dataclass(frozen=True)
class Page:
    """What a report page holds, in the order it is read."""

    title: str
    subtitle: str
    verdict: str
    tiles: Sequence[Tile]
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""


@dataclass(frozen=True)
class Report:
    """What a page shows that depends on the study."""

    question: str
    tiles: Sequence[Tile]
    plots: Sequence[Plot]
    tables: Sequence[Html]
    method: Sequence[str]
    """Paragraphs on what was compared and how, such as `statistics`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Text files by name, such as `table.csv`."""

    def __post_init__(self):
        object.__setattr__(self, "plots", [plot for plot in self.plots if plot.shown])


def in_words_of(result: StudyResult, report: Report) -> Report:
    """The report with the name of what was measured in figures and files; the page follows when it is written."""
    if result.measure == "accuracy":
        return report

    def headed(content: str) -> str:
        head, line, rest = content.partition("\n")
        return head.replace("accuracy", _column(result.measure)) + line + rest

    files = {name: headed(content) if name.endswith(".csv") else content for name, content in report.files.items()}
    return replace(report, plots=[plot.in_measure(result.measure) for plot in report.plots], files=files)


def _column(measure: str) -> str:
    """A measure in the name of a column: "macro F1" is "macro_f1"."""
    return "r2" if measure == R_SQUARED else re.sub(r"\W+", "_", measure.lower()).strip("_") or "measure"


def write_study_page(
    result: StudyResult, report: Report, spec: Mapping[str, Any], environment: Mapping[str, Any], out_dir: Path
) -> Path:
    """Write the files of a report, each in one step and the page last, and return the path of the page."""
    out_dir, report = Path(out_dir), in_words_of(result, report)
    (out_dir / "figures").mkdir(parents=True, exist_ok=True)  # here only: a folder removed meanwhile stays away
    figures = [save_plot(plot, out_dir / "figures") for plot in report.plots]
    for name, content in report.files.items():
        write_atomically(out_dir / name, content)
    write_atomically(out_dir / "summary.txt", plain_text(terminal_summary(result)))
    page = render_page(_page(result, report, figures, spec, environment))
    return write_atomically(out_dir / "report.html", in_measure(page, escape(result.measure)))


def _own_measure(scale: Scale) -> str:
    turned = " Lower is better, so that its axes are turned: better is up in every figure." if scale.turned else ""
    return (
        f"{scale.measure} is a measure of the study’s own, computed from the outputs and targets of a whole part of "
        f"the data.{turned}"
    )


_R_SQUARED = (
    "The targets are values. R² is 1 less the test error as a part of that of the constant predictor, the mean over "
    "the training set, in percent; a difference of one point of R² is one hundredth of that error."
)
_RELATIVE = " The margin is a part of ordinary training’s mean test error."


def _page(
    result: StudyResult,
    report: Report,
    figures: Sequence[Html],
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> Page:
    versions = {name: value for name, value in environment.items() if name != "command"}
    relative = _RELATIVE if getattr(result, "relative_margin", None) is not None else ""
    done = [*report.method, *([_R_SQUARED + relative] if result.measure == R_SQUARED else [])]
    if result.scale.is_own:
        done.append(_own_measure(result.scale))
    sections = [
        Section("results", "What came out", figures),
        Section("table", "The numbers", report.tables),
        Section("method", "What was done", [*map(paragraph, done), definitions(spec)]),
        Section("environment", "Where it ran", [definitions(versions)]),
        Section("reproduce", "How to do it again", _reproduce(environment.get("command"))),
    ]
    return Page(
        title=report.question,
        subtitle=f"{result.study} · {result.model} on {result.data} · {result.num_steps:,} steps",
        verdict=result.verdict,
        tiles=report.tiles,
        sections=sections,
        footer="Rendered by relin from stored results.",
    )


def _reproduce(command: str | Sequence[str] | None) -> list[Html]:
    if not command:
        return [paragraph("No command was recorded.")]
    line = command if isinstance(command, str) else " ".join(map(str, command))
    return [
        paragraph("The same command gives the same answer; a study that was interrupted goes on."),
        code_block(line),
    ]


def plain_text(shown: RenderableType) -> str:
    """What a terminal of 120 columns shows, without colours."""
    buffer = io.StringIO()
    Console(file=buffer, width=120, color_system=None, legacy_windows=False, markup=False).print(shown)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def statistics(result: GridResult) -> str:
    """How runs are paired, rates chosen and schedules judged, in every study.

    **Arguments:**

    - `result`: what was concluded.

    **Returns:** a paragraph, to stand among a report's `method`.
    """
    scale = result.scale
    bound = "upper" if scale.turned else "lower"
    return (
        "Runs are paired by seed: one seed means the same initial parameters and the same batches under every "
        "schedule, so the difference to ordinary training (K = 1) is taken seed by seed, and intervals are two-sided "
        f"95 % over {result.num_seeds} seeds. The learning rate is chosen for each schedule by validation accuracy, "
        "over the seeds that ran at every rate, and never by test data. A schedule is on par if the one-sided "
        f"{100 * result.confidence:g} % {bound} bound of its difference excludes a {scale.loss} of "
        f"{scale.margin_words()}, after Holm’s correction over the schedules of its kind. "
        f"{outcomes_of_runs(result)} Neither is ever left out of a mean of accuracy."
    )


def targets_of(result: StudyResult) -> str:
    """What a squared error is to."""
    return "one-hot targets" if result.measure == "accuracy" else "the targets"


def outcomes_of_runs(result: GridResult | DescentResult) -> str:
    """When a run diverged and when it failed to train, and what it then counts as."""
    scale, chance = result.scale, result.chance
    counted = f"a constant predictor’s accuracy, {text.tick(round(100 * chance, 4))} %"
    if scale.measure == R_SQUARED:
        counted = scale.counted(chance)
    elif scale.is_own:
        counted = (
            f"{scale.measure} {scale.told(chance)} on test data: the constant predictor’s, or what the measure "
            "has for such runs"
        )
    known = {"accuracy": "knows the frequencies of the classes only", R_SQUARED: "is their mean"}
    knows = known.get(result.measure, "gives every input the same outputs")
    return (
        "A run diverged if the loss of a batch was not finite. It failed to train if its training loss at the end, the "
        "mean since the record before, was not at least 1 % below that of the best constant predictor, which "
        f"{knows}. Such runs are counted apart and count at {counted}."
    )


def untrained_tile(result: GridResult | DescentResult, note: str = "") -> Tile:
    """How many runs diverged or failed to train."""
    counted = f"{result.num_diverged:,} diverged, {result.num_failed:,} failed to train, of {result.num_runs:,}"
    return Tile("Runs that did not train", text.count(result.num_diverged + result.num_failed), counted + note)


def shared_tiles(result: GridResult) -> list[Tile]:
    """The key numbers of every study: lazy gap, margin, seeds, runs that did not train.

    **Arguments:**

    - `result`: what was concluded.
    """
    gap, scale = result.lazy_gap, result.scale
    chosen = sum(outcome.num_untrained for outcome in result.outcomes)
    margin, _, unit = scale.margin_words().partition(" ")
    bound = f"one-sided {100 * result.confidence:g} % bound, Holm-corrected"
    return [
        Tile(
            "Lazy gap, K = 1 less K = ∞",
            scale.value(gap.mean if gap else None, 1),
            scale.headed(f"95 % interval {scale.to(gap)}", difference=True)
            if gap
            else "lazy training was not part of the study",
        ),
        Tile("Margin", margin, ", ".join(filter(None, (unit, bound)))),
        Tile("Seeds", text.count(result.num_seeds), "for each schedule, paired"),
        untrained_tile(result, f" at any rate; {chosen} at a chosen rate"),
    ]


def in_words(result: GridResult, outcomes: Sequence[ScheduleOutcome]) -> str:
    """The accuracies of a figure, for who cannot see it."""
    return "; ".join(f"{o.label}: {result.scale.told(o.test_accuracy.mean, 1)}" for o in outcomes) + "."


def constancy_tile(constancy: Constancy) -> Tile:
    """Whether the kernel stood still where it must."""
    name, pairs = "Constant between feature updates", f"{constancy.num_checked:,} pairs of records without one between"
    if constancy.num_violated:
        return Tile(name, "NO", f"it changed in {constancy.num_violated:,} of {pairs}: {constancy.first_violation}")
    if not constancy.num_checked:
        return Tile(name, text.DASH, "no pair of records lies between the same feature updates")
    return Tile(name, "yes", f"exactly, in all {pairs}")


def headline(verdict: str) -> Html:
    """The verdict with its conditions set smaller."""
    answer, conditions = map(escape, parted(verdict))
    return Html(f'{answer}<span class="conditions"> {conditions}</span>' if conditions else answer)


def parted(verdict: str) -> tuple[str, str]:
    """The answer, and the conditions after it: what follows a semicolon, or from a long parenthesis on."""
    space = re.search(r"(?<=;) | (?=\([^)]{40})", verdict)
    return (verdict[: space.start()], verdict[space.end() :]) if space else (verdict, "")


def render_page(page: Page, more_style: str = "") -> str:
    """The page as HTML text, with its style sheet inside."""
    here = resources.files("relin.report")
    tiles = "\n".join(
        f'<div class="tile"><dt>{prose(tile.label)}</dt><dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="note">{prose(tile.note)}</dd></div>'
        for tile in page.tiles
    )
    sections = "\n".join(
        f'<section aria-labelledby="{escape(section.name)}">\n<h2 id="{escape(section.name)}">'
        f"{escape(section.heading)}</h2>\n{''.join(section.parts)}\n</section>"
        for section in page.sections
    )
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(page.title),
        subtitle=escape(page.subtitle),
        verdict=headline(page.verdict),
        style=(here / "style.css").read_text(encoding="utf-8") + more_style,
        tiles=tiles,
        sections=sections,
        footer=escape(page.footer),
    )
