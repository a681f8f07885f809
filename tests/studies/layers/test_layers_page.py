"""The report of the layers study: the page as a reader gets it, and what its figure draws."""

import io

import pytest
from made_up_studies import COMMON, ENVIRONMENT, SPEC, outcome, records_of
from pages import check_csv, check_page, plain, points
from rich.console import Console

from relin.report import terminal_summary, write_report
from relin.report._records import StudyRecords
from relin.report._style import LIGHT, themed
from relin.studies.layers.figures import accuracy_by_layer
from relin.studies.layers.result import LayerOutcome, LayersResult
from relin.study._result import Interval

FIGURES = ("accuracy-by-layer", "learning-curves", "learning-rates")


@pytest.fixture(scope="module")
def study():
    """The first layer gains most; the last may stay lazy."""
    outcomes = [
        outcome("every-1", 0.95, 399),
        outcome("never", 0.87, 0),
        outcome("lazy-0", 0.9, 399),
        outcome("lazy-1", 0.949, 399, on_par=True),
        outcome("rich-0", 0.93, 399),
        outcome("rich-1", 0.88, 399),
    ]
    names = {"lazy-0": "stem alone lazy", "lazy-1": "head alone lazy", "rich-0": "stem alone rich"}
    outcomes = [o.model_copy(update={"label": names.get(o.schedule, o.label)}) for o in outcomes]
    layers = [
        LayerOutcome(
            layer=layer, rich=f"rich-{number}", lazy=f"lazy-{number}", gain=interval(gain), loss=interval(loss)
        )
        for number, (layer, gain, loss) in enumerate((("stem", 0.06, -0.05), ("head", 0.01, -0.001)))
    ]
    result = LayersResult(study="layers", **COMMON, outcomes=outcomes, layers=layers, verdict="Made up: the stem.")
    return result, records_of("layers", outcomes)


def interval(mean):
    return Interval(mean=mean, low=mean - 0.01, high=mean + 0.01)


def test_page_and_files(study, tmp_path, parse):
    result, records = study
    page = write_report(result, records, SPEC, ENVIRONMENT, tmp_path / "report")
    html = page.read_text(encoding="utf-8")
    check_page(page, parse(html), result, FIGURES)
    check_csv(page.parent / "table.csv", result)
    text = plain(html)
    assert "Which layers need feature updates?" in text
    assert '<dt>Layer that gains most</dt><dd class="value">stem</dd>' in text
    assert '<dt>Layer that is missed most</dt><dd class="value">stem</dd>' in text
    assert "Updated alone, stem gains most over lazy training, 6.00 points" in text


def test_the_figure_has_a_mark_for_every_layer(study):
    result, records = study
    with themed(LIGHT):
        figure = accuracy_by_layer(result, StudyRecords(result, records), LIGHT)
    for axes, how in zip(figure.axes, ("rich", "lazy"), strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["stem", "head"]
        assert axes.get_xlabel() == f"layer that alone is {how}"
        assert len(points(axes)) >= 2


def test_the_terminal_names_layers(study):
    console = Console(width=100, file=io.StringIO())
    console.print(terminal_summary(study[0]))
    assert "stem alone rich" in console.file.getvalue()
