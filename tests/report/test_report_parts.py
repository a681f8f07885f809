"""The parts of reports: terminal tables, arrays from records, placement of labels, files, imports."""

import ast
import io
import itertools
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from report_sample import CHANCE, NUM_SEEDS
from rich.console import Console

import relin.report
from relin._common.files import write_atomically
from relin.report import _figures, _style, _text as text, terminal_summary
from relin.report._html import Column, Row, definitions, prose, table
from relin.report._labels import spread
from relin.report._page import Page, Tile, render_page
from relin.studies.frequency.data import frequency_records
from relin.study._scale import PERCENT, Scale


def printed(result, width: int) -> list[str]:
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, legacy_windows=False).print(terminal_summary(result))
    return buffer.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_terminal_table_has_one_whole_line_per_schedule(study, width):
    result = study[0]
    lines = printed(result, width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    first = next(index for index, line in enumerate(lines) if line.startswith("──")) + 1
    rows = lines[first : first + len(result.outcomes)]
    for row, outcome in zip(rows, result.outcomes, strict=True):
        compact = row.replace(" ", "")
        name = outcome.label if outcome.period is None else text.period(outcome.period)
        difference = outcome.difference
        assert row.startswith(f"{name} ")
        assert PERCENT.plus_minus(outcome.test_accuracy, 2, "") in compact
        assert f"{outcome.feature_updates:g}" in row.split()
        if difference is not None:
            ends = f"[{text.percent(difference.low)},{text.percent(difference.high)}]"
            assert PERCENT.signed(difference.mean) + ends + PERCENT.signed(outcome.bound) in compact
            assert text.p_value(outcome.p_value_holm) in row.split()
            assert ("✓" if outcome.on_par else "✗") in row
        assert row.split()[-2:] == [f"{outcome.num_diverged},", f"{outcome.num_failed}"]


def test_terminal_table_breaks_lines_before_it_cuts_numbers(study):
    lines = printed(study[0], 70)
    assert max(map(len, lines)) <= 70
    assert "…" not in "".join(lines)
    assert any(line.split() == ["[−27.9,−0.2]"] for line in lines)


def test_terminal_panel_holds_the_verdict(study):
    flat = " ".join(" ".join(printed(study[0], 80)).replace("│", " ").split())
    assert study[0].verdict in flat


def test_terminal_refuses_an_empty_result(study):
    with pytest.raises(ValueError, match="got no outcome; run the study"):
        terminal_summary(study[0].model_copy(update={"outcomes": []}))


def test_curve_counts_a_diverged_run_at_chance_and_leaves_its_loss_out(study):
    result, records = study
    outcome = next(o for o in result.outcomes if o.period == 128)
    data = frequency_records(result, records)
    chosen = records.filter(pl.col("schedule") == "every-128", pl.col("learning_rate") == outcome.learning_rate)
    last = chosen.filter(pl.col("step") == 2000)
    alive = last.filter(pl.col("result") == "successful")
    assert len(alive) == NUM_SEEDS - 1
    accuracy, loss = data.curve(outcome, "test_accuracy"), data.curve(outcome, "train_loss")
    assert accuracy.steps.tolist() == sorted(set(records["step"]))
    assert accuracy.mean[-1] == pytest.approx((alive["test_accuracy"].sum() + CHANCE) / NUM_SEEDS)
    assert accuracy.mean[-1] == pytest.approx(outcome.test_accuracy.mean)
    assert loss.mean[-1] == pytest.approx(alive["train_loss"].mean())
    seeds, trained = data.seeds(outcome)
    assert trained.tolist() == [seed != 7 for seed in range(NUM_SEEDS)]
    assert seeds[7] == CHANCE


def test_cells_hold_every_run_of_the_records(study):
    result, records = study
    data = frequency_records(result, records)
    cells = data.cells()
    assert len(cells) == len(result.outcomes) * len(data.rates())
    for outcome in result.outcomes:
        mine = [cell for (schedule, _), cell in cells.items() if schedule == outcome.schedule]
        assert sum(cell.num_runs for cell in mine) == outcome.num_runs_all_rates
        assert sum(cell.num_diverged for cell in mine) == outcome.num_diverged_all_rates
        chosen = cells[outcome.schedule, outcome.learning_rate]
        assert chosen.validation_accuracy == pytest.approx(outcome.validation_accuracy)


def test_spread_is_the_nearest_placement_that_keeps_the_gap():
    wanted, gap, grid = [0.97, 0.5, 0.52, 0.99], 0.1, np.linspace(0, 1, 51)

    def apart(places):
        ordered = np.array(places)[np.argsort(wanted)]
        return (np.diff(ordered) >= gap - 1e-9).all()

    placed = spread(wanted, gap)
    assert apart(placed)
    candidates = [(0.9, *middle, 1.0) for middle in itertools.product(grid[20:35], repeat=2)]
    best = min(sum((np.array(places) - wanted) ** 2) for places in candidates if apart(places))
    assert sum((np.array(placed) - wanted) ** 2) <= best + 1e-9
    assert max(placed) <= 1.0
    assert spread([0.2, 0.8], gap) == pytest.approx([0.2, 0.8])
    assert spread([], gap) == []


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.percent(0.94344), "94.34"),
        (PERCENT.signed(-0.00001), "0.00"),
        (PERCENT.signed(-0.0123), "−1.23"),
        (PERCENT.signed(0.0123, 1), "+1.2"),
        (PERCENT.signed(float("nan")), "–"),
        (text.p_value(0.0004), "<.001"),
        (text.p_value(0.0312), ".031"),
        (text.p_value(1.0), "1.000"),
        (text.period(float("inf")), "∞"),
        (text.period(None), "–"),
        (text.count(1999), "1,999"),
        (text.count(61.333), "61.3"),
        (text.counted(1.0, "update"), "1 update"),
        (text.counted(1999, "update"), "1,999 updates"),
        (Scale(margin=0.01).margin_words(), "1 percentage point"),
        (Scale(margin=0.005).margin_words(), "0.5 percentage points"),
        (PERCENT.short(-0.007), "−0.7 points"),
        (Scale("R²", margin=0.0165452, relative_margin=0.5).short(-0.0165452), "−1.7 points"),
    ],
)
def test_numbers_as_people_read_them(shown, expected):
    assert shown == expected


def test_page_of_another_study(parse):
    """The page knows nothing of the frequency study: any title, tiles and tables make one."""
    rows = [Row(["a", "1"], marked=True), Row(["b", "2"])]
    page = Page("Why?", "a study", "Because.", [Tile("n", "3", "< 4")])
    html = render_page(page)
    assert parse(html).text("verdict") == "Because."
    assert "&lt; 4" in html
    conditional = "K* = 4 (under conditions that take many words to say); and <more>."
    html = render_page(Page("Why?", "a study", conditional, []))
    assert parse(html).text("verdict") == conditional
    assert '>K* = 4<span class="conditions"> (under' in html
    assert parse(table("numbers", [Column("name", numeric=False), Column("value", "m")], rows)).rows[1:] == [
        ["a", "1"],
        ["b", "2"],
    ]
    assert definitions({"a": {"b": [1, 0.5]}, "c": None}) == (
        "<dl><div><dt>a.b</dt><dd>1, 0.5</dd></div><div><dt>c</dt><dd>–</dd></div></dl>"
    )
    assert prose("K = 1 at 95 % & so") == "K\u00a0=\u00a01 at 95\u00a0% &amp; so"


def test_file_is_replaced_in_full_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=re.escape("new/page.html")):
        write_atomically(tmp_path / "new" / "page.html", "first")
    (tmp_path / "new").mkdir()
    path = write_atomically(tmp_path / "new" / "page.html", "first")
    assert path.stat().st_mode & 0o777 == 0o644

    def fail(*_):
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk gone"):
        write_atomically(path, "second")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_report_imports_neither_jax_nor_what_trains():
    folder = Path(relin.report.__path__[0])
    imported = set()
    for module in folder.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    assert "relin.study._result" in imported
    assert not {name for name in imported if name.startswith("relin.studies")}
    assert not {name for name in imported if name.split(".")[0] in ("jax", "equinox", "optax") or "pyplot" in name}


def test_figures_are_shipped_for_print(rough_figures, monkeypatch, tmp_path):
    """200 dots an inch, and TrueType fonts in PDF, which journals ask for."""
    dpi, fonts = rough_figures
    monkeypatch.setattr(_figures, "PNG_DPI", dpi)
    monkeypatch.setattr(_style, "PDF_FONT_TYPE", fonts)

    def draw(theme):
        figure = _style.new_figure(2, 1)
        figure.add_subplot().set_xlabel("K")
        return figure

    _figures.save_plot(_figures.Plot("name", "Title", "Caption.", "Description.", draw), tmp_path)
    width = int.from_bytes((tmp_path / "name.png").read_bytes()[16:20], "big")
    assert width == 2 * 200
    pdf = (tmp_path / "name.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
