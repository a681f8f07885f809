"""The reports of the studies of the kernel: the pages as a reader gets them, and what their figures draw."""

import math
import re

import matplotlib.image
import numpy as np
import polars as pl
import pytest
from made_up_kernels import STEPS, TAKEN, kernel, width
from made_up_studies import ENVIRONMENT, SPEC
from pages import check_csv, check_page, plain, texts
from rich.console import Console

from relin.report import _text as text, terminal_summary, write_report
from relin.report._axes import UpdatesAxis
from relin.report._records import StudyRecords
from relin.report._saved_kernel import _draw, write_kernel_figure
from relin.report._style import DARK, LIGHT, themed
from relin.studies.kernel import page as _kernel
from relin.studies.kernel.figures import (
    METRICS,
    accuracy_on_frozen_kernels,
    ends_against_updates,
    metric_in_training,
)
from relin.studies.width import page as _width
from relin.studies.width.figures import against_width
from relin.study._result import Interval

pytestmark = pytest.mark.slow

FIGURES = ("kernel-distance", "kernel-change", "frozen-kernels", "kernel-velocity", "kernel-alignment", "kernel-rank")
FIGURES += ("accuracy-and-alignment", "learning-curves", "learning-rates")


@pytest.fixture(scope="module")
def study():
    return kernel()


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    result, records = study
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("kernel") / "report")


@pytest.fixture(scope="module")
def widths():
    return width()


@pytest.fixture(scope="module")
def width_page(widths, tmp_path_factory):
    result, records = widths
    return write_report(result, records, SPEC, ENVIRONMENT, tmp_path_factory.mktemp("width") / "report")


def test_kernel_page_and_files(page, study, parse):
    result = study[0]
    parsed = parse(page.read_text(encoding="utf-8"))
    check_page(page, parsed, result, FIGURES, ("frozen.csv",))
    table = check_csv(page.parent / "table.csv", result)
    assert table["kernel_distance"].to_list() == [kernel.distance.mean for kernel in result.kernels]
    assert table["kernel_change_high"].to_list() == [kernel.change.high for kernel in result.kernels]
    frozen = pl.read_csv(page.parent / "frozen.csv")
    assert frozen["step"].to_list() == list(TAKEN)
    assert frozen["frozen_kernel_accuracy"].to_list() == pytest.approx([value + 0.003 for value in TAKEN.values()])
    assert frozen["gain_of_last"].to_list() == pytest.approx([0.07] * 3)


def test_kernel_page_holds_the_answers(page, study):
    told = plain(page.read_text(encoding="utf-8"))
    assert "Does the NTK stay constant?" in told
    assert '<dt>Kernel distance, K = 1</dt><dd class="value">0.0998</dd>' in told  # 399 of 400 steps' updates
    assert '<dt>Gain of a frozen kernel taken late</dt><dd class="value">7.0</dd>' in told
    assert '<dt>Constant between feature updates</dt><dd class="value">yes</dd>' in told
    assert "Frozen kernels taken later do better: 94.3 % on that of step 400, 87.3 % on the first" in told
    assert "Kernel distance ends at 0.0998 for K = 1, 0.15 for K = 100, 0 for K = ∞" in told


def test_pages_open_in_a_browser_and_fit_a_narrow_screen(page, width_page, browse, parse, tmp_path, study, widths):
    script = """<style>html { width: 360px; }</style><script>
      const wide = [...document.querySelectorAll('body *')].filter(e =>
        !e.parentElement.closest('.drawing, .scroll, pre') && e.getBoundingClientRect().right > 360.5);
      document.documentElement.dataset.wide = wide.map(e => e.tagName + '.' + e.className).join(' ');
      document.documentElement.dataset.width = document.body.getBoundingClientRect().width;
    </script></body>"""
    for opened, result in ((page, study[0]), (width_page, widths[0])):
        html = re.sub(r"<meta http-equiv[^>]*>", "", opened.read_text(encoding="utf-8")).replace("</body>", script)
        narrow = tmp_path / f"{result.study}.html"
        narrow.write_text(html, encoding="utf-8")
        shown = parse(browse(narrow))
        assert shown.text("verdict") == result.verdict
        root = dict(shown.elements)["html"]
        assert root["data-width"] == "360"
        assert root["data-wide"] == ""


def test_a_violated_constancy_cannot_be_overlooked():
    result, _ = kernel(violated=True)
    tile = _kernel.constancy_tile(result.constancy)
    assert tile.value == "NO"
    assert "it changed in 2 of" in tile.note  # to the record with the error, and back
    assert "never at rate 0.03, seed 0, step 300" in tile.note
    assert result.verdict.startswith("THE KERNEL CHANGED WITHOUT A FEATURE UPDATE, first in never at rate 0.03, seed 0")


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_curves_of_the_kernel_are_those_of_the_records(study, theme):
    result, records = study
    data = StudyRecords(result, records, tuple(metric.column for metric in METRICS.values()))
    with themed(theme):
        by_step, by_update = metric_in_training(result, data, METRICS["distance"], UpdatesAxis("n", 400), theme).axes
    expected = {
        name: records.filter(schedule=name, learning_rate=0.1)
        .group_by("step", maintain_order=True)
        .agg(pl.mean("kernel_distance"), pl.mean("feature_updates"))
        for name in ("every-1", "every-100", "never")
    }
    colour = theme.ordinary
    (line,) = [line for line in by_step.lines if line.get_color() == colour]
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([STEPS, expected["every-1"]["kernel_distance"]]))
    (line,) = [line for line in by_update.lines if line.get_color() == colour]
    np.testing.assert_allclose(line.get_xdata(), expected["every-1"]["feature_updates"])
    (lazy,) = [line for line in by_update.lines if line.get_color() == theme.lazy]
    assert lazy.get_xydata().tolist() == [[0.0, 0.0]]  # without updates it is a point
    assert sorted(texts(by_update)) == ["K = 100↥", "K = 1↥", "K = ∞↥"]  # the largest rate offered
    assert by_step.get_ylim()[1] >= 0.1 * 1.2


def test_velocity_leaves_out_where_the_kernel_rests(study):
    result, records = study
    data = StudyRecords(result, records, ("kernel_velocity",))
    with themed(LIGHT):
        by_step, _ = metric_in_training(result, data, METRICS["velocity"], UpdatesAxis("n", 400), LIGHT).axes
    assert by_step.get_yscale() == "log"
    assert LIGHT.lazy not in {line.get_color() for line in by_step.lines}
    assert all((line.get_ydata() > 0).all() for line in by_step.lines)


def test_frozen_kernels_are_drawn_at_their_steps(study):
    with themed(LIGHT):
        (axes,) = accuracy_on_frozen_kernels(study[0], LIGHT).axes
    (line,) = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(line.get_xydata(), [[step, 100 * (value + 0.003)] for step, value in TAKEN.items()])
    assert any(label.startswith("frozen kernel\n94.3 %") for label in texts(axes))


def test_accuracy_and_alignment_stand_at_their_numbers_of_updates(study):
    result = study[0]
    with themed(LIGHT):
        accuracy, alignment = ends_against_updates(result, UpdatesAxis("n", 400), LIGHT).axes
    by_updates = sorted(result.outcomes, key=lambda outcome: outcome.feature_updates)
    kernels = [(o.feature_updates, result.kernel(o.schedule).alignment.mean) for o in by_updates]
    assert [updates for updates, _ in kernels] == [0, 3, 399]
    (line,) = [line for line in alignment.lines if line.get_color() == LIGHT.accent]
    np.testing.assert_allclose(line.get_xydata(), kernels)
    assert texts(alignment) == ["at step 0\n0.51"]
    (joined,) = [line for line in accuracy.lines if line.get_color() == LIGHT.grid]
    reached = [(o.feature_updates, 100 * o.test_accuracy.mean) for o in by_updates]
    np.testing.assert_allclose(joined.get_xydata(), reached)


def test_width_page_and_files(width_page, widths, parse):
    result = widths[0]
    parsed = parse(width_page.read_text(encoding="utf-8"))
    check_page(width_page, parsed, result, ("width", "accuracy"))
    table = pl.read_csv(width_page.parent / "table.csv")
    assert table["width"].to_list() == [16, 64, 256]
    assert table["gap"].to_list() == [at.gap.mean for at in result.widths]
    assert table["kernel_deviation_low"].to_list() == [at.deviation.low for at in result.widths]
    told = plain(width_page.read_text(encoding="utf-8"))
    assert '<dt>Kernel change ∝ width to the power</dt><dd class="value">−0.50</dd>' in told
    assert "K = 1; theory: −1/2, 95 % interval −0.50 to −0.50" in told
    assert '<dt>K = 1 less K = ∞, width 16</dt><dd class="value">4.9</dd>' in told
    rows = {row[0]: row[1:] for row in parsed.rows[1:]}
    assert list(rows) == ["16", "64", "256"]
    assert rows["64"][:2] == ["0.1", "0.1"]


def test_width_panels_have_the_slope_of_theory_for_reference(widths):
    result, records = widths
    with themed(LIGHT):
        change, gap, deviation = against_width(result, _width._seeds(result, records), LIGHT).axes
    for axes in (change, deviation):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        (line,) = [line for line in axes.lines if line.get_color() == LIGHT.ink]
        (x0, y0), (x1, y1) = line.get_xydata()
        assert math.log(y1 / y0) / math.log(x1 / x0) == pytest.approx(-0.5)
        dots = [line for line in axes.lines if line.get_marker() == "."]
        assert sum(len(line.get_xdata()) for line in dots) == 9
    means = next(line for line in gap.lines if line.get_marker() == "o")
    np.testing.assert_allclose(means.get_ydata(), [4.9, 2.9, 0.9], atol=1e-9)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_on_a_terminal(study, widths, columns):
    for result in (study[0], widths[0]):
        console = Console(width=columns, record=True, color_system=None)
        with console.capture() as capture:
            console.print(terminal_summary(result))
        shown = capture.get()
        assert all(len(line) <= columns for line in shown.splitlines())
        if columns >= 80:
            assert "…" not in shown
            assert "verdict" in shown
            assert "in bold" not in shown


def test_every_figure_is_drawn_where_nothing_trained(tmp_path):
    result, records = kernel(diverged=True)
    data = StudyRecords(result, records, tuple(metric.column for metric in METRICS.values()))
    wide, more = width(diverged=True, deviation=False)
    drawn = [*_kernel.plots(result, data), *_width.plots(wide, _width._seeds(wide, more))]
    for plot in drawn:
        assert "nan" not in plot.title.lower()
        with themed(LIGHT):
            figure = plot.draw(LIGHT)
            figure.draw_without_rendering()
        for axes in figure.axes:
            assert all(map(math.isfinite, (*axes.get_xlim(), *axes.get_ylim())))


def test_records_of_something_else_are_refused(widths, tmp_path):
    result, records = widths
    with pytest.raises(ValueError, match="with the columns width, schedule"):
        write_report(result, records.drop("kernel_change"), SPEC, ENVIRONMENT, tmp_path)
    with pytest.raises(ValueError, match="Expected records of width 64, got none"):
        write_report(result, records.filter(pl.col("width") != 64), SPEC, ENVIRONMENT, tmp_path)
    with pytest.raises(ValueError, match="at least one width"):
        write_report(result.model_copy(update={"widths": []}), records, SPEC, ENVIRONMENT, tmp_path)


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 3), (6, 6, 3, 3)])
def test_kernel_images_stand_in_the_order_of_the_classes(tmp_path, shape):
    generator = np.random.default_rng(0)
    kernels = []
    for _ in range(2):
        factor = generator.standard_normal((6, 3, 5))
        full = np.einsum("icp,jdp->ijcd", factor, factor)
        kernels.append({2: full.trace(axis1=2, axis2=3), 3: np.einsum("ijcc->ijc", full), 4: full}[len(shape)])
    values = (np.array([3.0, 1.0, 0.0]), np.array([2.0, 1e-9, -1e-12]))
    path = write_kernel_figure(*kernels, np.array([2, 0, 1, 0, 2, 1]), values, "made up", "end", tmp_path / "new")
    with themed(LIGHT):
        axes = _draw(tuple(kernels), np.array([2, 0, 1, 0, 2, 1]), values, "made up", ("step 0", "end"), LIGHT).axes[2]
    assert [line.get_label() for line in axes.get_lines()] == [
        "step 0, 1 more at most 1e-07",
        "end, 2 more at most 1e-07",
    ]
    image = matplotlib.image.imread(path)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])[:, :3]
    assert np.ptp(image[..., :3]) > 0.5
    assert np.all(border > 0.99)


@pytest.mark.parametrize(
    ("value", "told"), [(0.13624, "0.136"), (0.0, "0"), (2e-5, "2·10⁻⁵"), (1e-6, "10⁻⁶"), (-3.21e-7, "−3.21·10⁻⁷")]
)
def test_small_numbers(value, told):
    assert text.significant(value) == told


@pytest.mark.parametrize(
    ("interval", "told"),
    [((0.136, 0.121, 0.151), "0.136 ± 0.015"), ((8.2, 6.7, 9.7), "8.2 ± 1.5"), ((0, 0, 0), "0 ± 0"), (None, "–")],
)
def test_measured_numbers(interval, told):
    made = None if interval is None else Interval(mean=interval[0], low=interval[1], high=interval[2])
    assert text.measured(made) == told
