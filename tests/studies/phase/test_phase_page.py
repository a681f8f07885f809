"""The report of the phase study: the page as a reader gets it, what its figures draw, and the terminal."""

import io
import math
import re

import numpy as np
import polars as pl
import pytest
from made_up_phase import made_up
from rich.console import Console

from relin.report import _figures, terminal_summary, write_report
from relin.report._style import LIGHT, themed
from relin.studies.phase.figures import best_total, enough_against_total, phase_map, same_total

NEEDED = {64: 2, 256: 4, 1024: 8}
ENVIRONMENT = {"command": "relin study made-up --out here", "device": "made-up"}


@pytest.fixture(scope="module")
def study():
    return made_up(NEEDED, methods=["when-error-0.1"], dead={(64, 0)})


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    spec, records, result = study
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_figures, "PNG_DPI", 30)
        page = write_report(result, records, spec.model_dump(mode="json"), ENVIRONMENT, tmp_path_factory.mktemp("page"))
    return page.parent


def test_the_page_holds_the_answer(folder, study):
    html = re.sub(r"<svg.*?</svg>", "", (folder / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    text = html.replace("\u00a0", " ")
    assert re.findall(r'<figure id="figure-(.*?)"', html) == ["map", "map-against-best", "enough-updates"]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("map", "map-against-best", "enough-updates") for kind in ("png", "pdf")
    }
    assert study[2].verdict.split(" (")[0] in text
    assert '<dt>Feature updates that suffice</dt><dd class="value">7</dd>' in text
    assert "The feature updates that suffice are 1 in 64 steps, 3 in 256, 7 in 1,024" in text
    assert "T = 1,024 steps</h3>" in text
    assert text.count('<tr class="marked">') == 4  # n* of each T, and the best T
    assert "nan" not in text.lower()


def test_the_files_hold_every_number(folder, study):
    result = study[2]
    table = pl.read_csv(folder / "table.csv", infer_schema_length=None)
    assert table.select("total", "schedule").rows() == [
        (own.total, outcome.schedule)
        for own in result.totals
        for outcome in result.outcomes
        if outcome.label.startswith(f"T = {own.total}, ")
    ]
    places = {(cell.total, cell.outcome.schedule): cell for cell in result.cells}
    for row in table.iter_rows(named=True):
        cell = places.get((row["total"], row["schedule"]))
        assert row["updates"] == (cell and cell.updates)
        if cell is not None:
            assert row["difference"] == (cell.outcome.difference and cell.outcome.difference.mean)
            assert row["versus_best_low"] == (cell.versus_best and cell.versus_best.low)
            assert row["reaches_best"] == cell.reaches_best
    totals = pl.read_csv(folder / "totals.csv")
    assert totals["enough_updates"].to_list() == [1, 3, 7]
    assert totals["crossing"].to_list() == [own.crossing for own in result.totals]


def test_the_map_has_a_place_for_every_cell(study):
    result = study[2]
    with themed(LIGHT):
        figure = phase_map(result, same_total, LIGHT)
        other = phase_map(result, best_total, LIGHT, line=False)
    axes = figure.axes[0]
    assert len(axes.patches) == len(result.cells)
    centres = {
        (cell.total, cell.updates): next(p for p in axes.patches if inside(p, cell.total, cell.updates))
        for cell in result.cells
    }
    assert len({id(patch) for patch in centres.values()}) == len(result.cells)
    hatched = [place for place, patch in centres.items() if patch.get_hatch()]
    assert hatched == [(64, 0)]
    written = [text.get_text() for text in axes.texts]
    assert written.count("90.0 %") == 3
    assert "×4/4" in written
    assert "−8.00" in written
    x, y = axes.lines[0].get_data()
    below = {64: (0, 1), 256: (1, 3), 1024: (3, 7)}
    drawn = np.array([x, y]).T[~np.isnan(x)]
    for total, (failing, enough) in below.items():
        near = drawn[np.abs(drawn[:, 0] - math.log2(total)) <= 1.2]
        assert any(math.log2(failing + 1) < at < math.log2(enough + 1) for at in near[:, 1])
    assert len(other.axes[0].lines[0].get_xdata()) == 0
    with themed(LIGHT):
        turned = phase_map(result, same_total, LIGHT, against="K").axes[0]
    assert len(turned.patches) == len(result.cells)
    for (total, updates), patch in centres.items():
        place = total // (updates + 1) - 1  # n + 1 at the place of K = T/(n + 1)
        (there,) = [p for p in turned.patches if inside(p, total, place)]
        assert there.get_facecolor() == patch.get_facecolor()
    x, y = turned.lines[0].get_data()
    drawn = np.array([x, y]).T[~np.isnan(x)]
    for total, (failing, enough) in below.items():
        near = drawn[np.abs(drawn[:, 0] - math.log2(total)) <= 1.2]
        assert any(math.log2(total / (enough + 1)) < at < math.log2(total / (failing + 1)) for at in near[:, 1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "256", "1,024"]


def inside(patch, total, updates):
    (left, low), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
    at, place = math.log2(total), math.log2(updates + 1)
    return left < at < left + width and low < place < low + height


def test_what_suffices_is_drawn_as_windows_and_as_a_period(study):
    result = study[2]
    with themed(LIGHT):
        figure = enough_against_total(result, LIGHT)
    for axes, expected in zip(figure.axes, ({64: 2, 256: 4, 1024: 8}, {64: 32, 256: 64, 1024: 128}), strict=True):
        filled = [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == LIGHT.outline]
        assert {line.get_xdata()[0]: float(line.get_ydata()[0]) for line in filled} == expected
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "3", "7"]


def test_a_study_without_an_answer_has_a_page(tmp_path, monkeypatch):
    spec, records, result = made_up({64: 2}, dead={(64, 63)})
    monkeypatch.setattr(_figures, "PNG_DPI", 30)
    page = write_report(result, records, spec.model_dump(mode="json"), ENVIRONMENT, tmp_path)
    assert "there is nothing to compare with" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [72, 100])
def test_the_terminal_has_a_row_for_each_total(study, width):
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, legacy_windows=False).print(terminal_summary(study[2]))
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in buffer.getvalue()
    rows = [line.split() for line in lines]
    assert [row[:3] for row in rows if row[:1] and row[0] in ("64", "256", "1,024")] == [
        ["64", "1", "32"],
        ["256", "3", "64"],
        ["1,024", "7", "128"],
    ]


def test_records_of_another_study_are_refused(study, tmp_path):
    spec, records, result = study
    with pytest.raises(ValueError, match="none named run_steps"):
        write_report(result, records.drop("run_steps"), {}, ENVIRONMENT, tmp_path)
    with pytest.raises(ValueError, match="Expected records of T = 64, K = ∞"):
        write_report(result, records.filter(pl.col("schedule") != "never"), {}, ENVIRONMENT, tmp_path)
    assert spec.steps == 1024
