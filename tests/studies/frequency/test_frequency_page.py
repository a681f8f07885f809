"""The report of the frequency study, read back from the files as a reader gets them."""

import itertools
import math
import re
from collections import Counter

import polars as pl
import pytest
from pages import points
from report_sample import ENVIRONMENT, MAX_STEPS, NUM_STEPS, RATES, REFERENCE_RATE, SPEC, steps_at

from relin.report import write_report
from relin.report._style import LIGHT, themed
from relin.studies.frequency.data import (
    Schedules,
    frequency_records,
    of_comparison,
    short_lines,
    sparse_period,
    stands_beside,
)
from relin.studies.frequency.figures import (
    accuracy_against_period,
    accuracy_against_updates,
    both_comparisons,
    period_curves,
)
from relin.studies.frequency.settings import FrequencySpec
from relin.study._grid_study import by_comparison
from relin.study._result import Interval

pytestmark = pytest.mark.slow

PLOTS = ("accuracy-against-period", "accuracy-against-updates", "learning-curves", "learning-rates", "linearity")
HOSTILE = "<script>alert('x')</script> & $\\frac{1}{2} \"quoted\" ${title}"


def test_browser_shows_the_verdict_first(report, study, browse, parse):
    page = parse(browse(report))
    assert page.text("verdict") == study[0].verdict
    before = [tag for tag, attributes in page.elements if attributes.get("id") == "verdict" or tag in ("main", "svg")]
    assert before[0] == "p"


def test_page_does_not_overflow_a_narrow_screen(report, browse, parse, tmp_path):
    # Containers that scroll are meant to hold what is wider; everything else must end within the screen.
    script = """<style>html { width: 360px; }</style><script>
      const wide = [...document.querySelectorAll('body *')].filter(e =>
        !e.parentElement.closest('.drawing, .scroll, pre') && e.getBoundingClientRect().right > 360.5);
      document.documentElement.dataset.wide = wide.map(e => e.tagName + '.' + e.className).join(' ');
      document.documentElement.dataset.width = document.body.getBoundingClientRect().width;
    </script></body>"""
    html = re.sub(r"<meta http-equiv[^>]*>", "", report.read_text(encoding="utf-8")).replace("</body>", script)
    narrow = tmp_path / "narrow.html"
    narrow.write_text(html, encoding="utf-8")
    root = dict(parse(browse(narrow)).elements)["html"]
    assert root["data-width"] == "360"
    assert root["data-wide"] == ""


def test_page_is_self_contained(report, parse):
    html = report.read_text(encoding="utf-8")
    assert report.stat().st_size < 3_000_000
    page = parse(html)
    links = [
        value for _, attributes in page.elements for name, value in attributes.items() if re.search("href|src", name)
    ]
    assert links
    for link in links:
        assert link.startswith(("#", "data:,", "figures/"))
        if link.startswith("figures/"):
            assert (report.parent / link).is_file()
    assert not re.search(r"@import|url\((?!#)|<script|<iframe|https?:", html)
    assert "default-src 'none'" in html


def test_every_reference_inside_the_page_finds_its_only_target(report, parse):
    html = report.read_text(encoding="utf-8")
    ids = Counter(attributes["id"] for _, attributes in parse(html).elements if attributes.get("id"))
    assert [name for name, number in ids.items() if number > 1] == []
    references = set(re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]+)', html))
    assert references
    assert references <= set(ids)


def test_figures_are_there_in_every_format_and_theme(report, parse):
    elements = parse(report.read_text(encoding="utf-8")).elements
    drawings = [attributes for tag, attributes in elements if tag == "svg"]
    assert [a["class"] for a in drawings] == ["only-light", "only-dark"] * len(PLOTS)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in drawings)
    for name in PLOTS:
        assert any(attributes.get("id") == f"figure-{name}" for _, attributes in elements)
        assert (report.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert (report.parent / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    assert sorted(path.name for path in report.parent.iterdir()) == [
        "figures",
        "report.html",
        "summary.txt",
        "table.csv",
    ]
    assert len(list((report.parent / "figures").iterdir())) == 2 * len(PLOTS)


def number(cell: str) -> float:
    return float(cell.replace("−", "-").replace(",", ""))


def test_table_holds_the_numbers_of_the_result(report, study, parse):
    page = parse(report.read_text(encoding="utf-8"))
    rows = {row[0]: row[1:] for row in page.rows[1:]}
    assert list(rows) == [outcome.label for outcome in study[0].outcomes]
    for outcome in study[0].outcomes:
        par, updates, rate, accuracy, difference, bound, holm, *others = rows[outcome.label]
        diverged, failed, diverged_anywhere, failed_anywhere, network, *_ = others
        assert par == {None: "–", True: "✓", False: "✗"}[outcome.on_par]
        assert number(updates) == outcome.feature_updates
        assert number(rate) == outcome.learning_rate
        mean, half = map(number, accuracy.split(" ± "))
        assert mean == pytest.approx(100 * outcome.test_accuracy.mean, abs=0.0051)
        assert half == pytest.approx(50 * (outcome.test_accuracy.high - outcome.test_accuracy.low), abs=0.0051)
        assert number(network.split(" ")[0]) == pytest.approx(100 * outcome.network_test_accuracy.mean, abs=0.0051)
        assert diverged == f"{outcome.num_diverged} of {outcome.num_seeds}"
        assert failed == f"{outcome.num_failed} of {outcome.num_seeds}"
        assert diverged_anywhere == f"{outcome.num_diverged_all_rates} of {outcome.num_runs_all_rates}"
        assert failed_anywhere == f"{outcome.num_failed_all_rates} of {outcome.num_runs_all_rates}"
        if outcome.difference is None:
            assert {difference, bound, holm} == {"–"}
            continue
        shown = [number(part) for part in re.findall(r"[−+]?[\d.]+", difference)]
        expected = [100 * v for v in (outcome.difference.mean, outcome.difference.low, outcome.difference.high)]
        assert shown == pytest.approx(expected, abs=0.0051)
        assert number(bound) == pytest.approx(100 * outcome.bound, abs=0.0051)
        if not holm.startswith("<"):
            assert number(holm) == pytest.approx(outcome.p_value_holm, abs=0.00051)
        else:
            assert outcome.p_value_holm < 0.001


def test_csv_holds_the_result_in_full_precision(report, study):
    table = pl.read_csv(report.parent / "table.csv", infer_schema_length=None)
    assert table["schedule"].to_list() == [outcome.schedule for outcome in study[0].outcomes]
    for row, outcome in zip(table.iter_rows(named=True), study[0].outcomes, strict=True):
        assert row["test_accuracy"] == outcome.test_accuracy.mean
        assert row["network_test_accuracy_high"] == outcome.network_test_accuracy.high
        assert row["difference_low"] == (outcome.difference and outcome.difference.low)
        assert row["p_value_holm"] == outcome.p_value_holm
        assert row["period"] == outcome.period


def test_page_says_what_was_done_where_and_how_to_repeat_it(report, study):
    html = report.read_text(encoding="utf-8")
    assert f"<code>{ENVIRONMENT['command']}</code>" in html
    assert "<dt>data.name</dt><dd>mnist1d</dd>" in html
    assert "<dt>jax</dt><dd>0.10.2</dd>" in html
    assert '<html lang="en">' in html
    assert html.count('scope="row"') == len(study[0].outcomes)
    assert study[0].verdict.split(":")[0] in (report.parent / "summary.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bare(study, tmp_path_factory):
    """The least a study can be: two periods, one seed, every run of one diverged, nothing on par, hostile names."""
    result, records = study
    nan, none = math.nan, Interval(mean=math.nan, low=math.nan, high=math.nan)
    single = Interval(mean=0.93, low=nan, high=nan)
    one, two = result.outcomes[:2]
    one = one.model_copy(update={"test_accuracy": single, "num_seeds": 1, "label": HOSTILE})
    lost = {"test_accuracy": Interval(mean=0.1, low=nan, high=nan), "network_test_accuracy": none}
    lost |= {"difference": Interval(mean=-0.83, low=nan, high=nan), "bound": nan, "p_value": nan, "p_value_holm": nan}
    two = two.model_copy(update=lost | {"num_seeds": 1, "num_diverged": 1, "on_par": False})
    change = {"data": HOSTILE, "outcomes": [one, two], "k_star": None, "num_seeds": 1}
    change |= {"sufficient_feature_updates": None, "lazy_gap": None, "verdict": f"Nothing suffices in {HOSTILE}."}
    second = pl.col("schedule") == "every-2"
    records = records.filter(pl.col("seed") == 0, pl.col("schedule").is_in(["every-1", "every-2"])).with_columns(
        pl.when(second).then(pl.lit("diverged")).otherwise("result").alias("result"),
        pl.when(second).then(0).otherwise("diverged_at").alias("diverged_at"),
        *(pl.when(second).then(nan).otherwise(name).alias(name) for name in ("test_accuracy", "train_loss")),
    )
    spec, environment = SPEC | {HOSTILE: [HOSTILE, None, True]}, {"device": HOSTILE, "command": ["relin", HOSTILE]}
    return write_report(result.model_copy(update=change), records, spec, environment, tmp_path_factory.mktemp("bare"))


def test_hostile_names_stay_text(bare, parse):
    html = bare.read_text(encoding="utf-8")
    assert "<script" not in html
    page = parse(html)
    assert page.text("verdict") == f"Nothing suffices in {HOSTILE}."
    assert page.rows[1][0] == HOSTILE
    assert not any(tag == "script" for tag, _ in page.elements)


def test_study_without_an_answer_is_still_reported(bare, parse):
    html = bare.read_text(encoding="utf-8")
    assert "No K above 1 is shown to lose less than 1 percentage point" in html.replace("\u00a0", " ")
    rows = parse(html).rows
    assert rows[2][1] == "✗"
    assert rows[2][4] == "10.00 ± –"
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL).lower()


@pytest.mark.parametrize(
    ("change", "keep", "message"),
    [
        ({"outcomes": []}, lambda r: r, "at least one schedule in the result of study 'frequency', got no outcome"),
        ({}, lambda r: r.clear(), "Expected the records of study 'frequency', got no row"),
        ({}, lambda r: r.drop("train_loss", "seed"), "got none named seed, train_loss"),
        ({}, lambda r: r.filter(pl.col("schedule") != "never"), "records of 'never' at learning rate 0.316, got none"),
        (
            {},
            lambda r: r.with_columns(model=pl.when(pl.col("seed") == 0).then(pl.lit("mlp")).otherwise("model")),
            "one model on one data set, got mlp on mnist1d, cnn on mnist1d",
        ),
    ],
)
def test_refusals(study, tmp_path, change, keep, message):
    result, records = study
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        write_report(result.model_copy(update=change), keep(records), SPEC, ENVIRONMENT, tmp_path)
    assert str(refusal.value).count(". ") == 0
    assert list(tmp_path.iterdir()) == []


PLOTS_OF_BOTH = (
    "accuracy-against-period",
    "accuracy-against-updates",
    "accuracy-against-updates-equal-distance",
    *PLOTS[2:],
)


def headings(page_html: str) -> dict[str, str]:
    """The title of each figure by its name."""
    found = re.findall(r'<figure id="figure-([^"]*)">\s*<h3>(.*?)</h3>', page_html)
    return {name: title.replace("\u00a0", " ") for name, title in found}


def captions(page_html: str) -> list[str]:
    return [text.replace("\u00a0", " ") for text in re.findall(r"<figcaption>(.*?)</figcaption>", page_html, re.DOTALL)]


def test_both_comparisons_are_answered_on_one_page(report_of_both, both, parse):
    first, second = both[0], both[0].equal_distance
    assert (first.k_star, second.k_star) == (4, 16)  # else the page could take one for the other
    html = report_of_both.read_text(encoding="utf-8")
    titles = headings(html)
    assert tuple(titles) == PLOTS_OF_BOTH
    assert "up to K = 4 with equal steps, up to K = 16 with equal learning rate × steps" in titles[PLOTS_OF_BOTH[0]]
    assert titles["accuracy-against-updates"] == (
        "499 feature updates in 2,000 steps suffice with equal steps; error ≤ 0.1 makes do with 29"
    )
    star = next(o for o in second.outcomes if o.period == 16)
    steps = steps_at(star.learning_rate, "equal-distance")
    assert NUM_STEPS < steps < MAX_STEPS
    assert titles["accuracy-against-updates-equal-distance"] == (
        f"{second.sufficient_feature_updates:,} feature updates in {steps:,} steps suffice "
        "with equal learning rate × steps; K = 256, sparse makes do with 22"
    )
    rows = {row[0]: row[1:] for row in parse(html).rows}
    for name, result, last in (("equal steps", first, NUM_STEPS), ("equal learning rate × steps", second, steps)):
        fewest = result.outcome(result.fewest_updates)
        expected = [result.k_star, result.sufficient_feature_updates, last]
        assert [number(cell) for cell in rows[name][:3]] == expected
        assert rows[name][3].endswith(f", {fewest.label}")
        assert number(rows[name][4].split(" ")[0]) == pytest.approx(100 * result.lazy_gap.mean, abs=0.0051)
        assert f'<dt>K*, {name}</dt><dd class="value">{result.k_star:g}</dd>' in html


def test_tables_hold_both_comparisons_apart(report_of_both, both):
    table = pl.read_csv(report_of_both.parent / "table.csv", infer_schema_length=None)
    for result in (both[0], both[0].equal_distance):
        own = table.filter(comparison=result.comparison)
        assert own["schedule"].to_list() == [outcome.schedule for outcome in result.outcomes]
        assert own["test_accuracy"].to_list() == [outcome.test_accuracy.mean for outcome in result.outcomes]
    assert len(table) == len(both[0].outcomes) + len(both[0].equal_distance.outcomes)


@pytest.mark.parametrize("comparison", ["equal-steps", "equal-distance"])
def test_records_of_a_comparison_are_those_its_result_was_computed_from(both, comparison):
    result = both[0] if comparison == "equal-steps" else both[0].equal_distance
    data = frequency_records(result, both[1])
    cells = data.cells()
    assert set(cells) == {(outcome.schedule, rate) for outcome in result.outcomes for rate in RATES}
    for outcome in result.outcomes:
        accuracies, trained = data.seeds(outcome)
        assert len(accuracies) == outcome.num_seeds
        assert accuracies.mean() == pytest.approx(outcome.test_accuracy.mean, rel=1e-12)
        assert (~trained).sum() == outcome.num_untrained
        assert data.run_steps(outcome) == steps_at(outcome.learning_rate, comparison)
        assert data.curve(outcome, "test_accuracy").steps[-1] == steps_at(outcome.learning_rate, comparison)
        own = [cell for (schedule, _), cell in cells.items() if schedule == outcome.schedule]
        assert sum(cell.num_runs for cell in own) == outcome.num_runs_all_rates
        assert sum(cell.num_diverged for cell in own) == outcome.num_diverged_all_rates
        chosen = cells[outcome.schedule, outcome.learning_rate]
        assert chosen.validation_accuracy == pytest.approx(outcome.validation_accuracy, rel=1e-12)


def test_comparisons_are_told_apart_as_the_study_does(both):
    result, records = both
    settings = {"steps": NUM_STEPS, "max_steps": MAX_STEPS, "reference_rate": REFERENCE_RATE}
    spec = FrequencySpec(comparison="both", learning_rates=list(RATES), **settings)
    parts = by_comparison(spec, records)
    assert len(parts["equal-steps"]) < len(records)
    for own in (result, result.equal_distance):
        assert of_comparison(own, records).equals(parts[own.comparison])


def test_learning_curves_go_on_to_the_end_of_the_longest_run(both):
    for result in (both[0], both[0].equal_distance):
        data = frequency_records(result, both[1])
        longest = max(steps_at(o.learning_rate, result.comparison) for o in result.outcomes if o.period is not None)
        with themed(LIGHT):
            panels = period_curves(data, LIGHT).axes
        assert [axes.get_xlim() for axes in panels] == [(0, longest)] * 2
        ends = {int(line.get_xdata()[-1]) for axes in panels for line in axes.lines}
        assert ends == {data.run_steps(o) for o in result.outcomes if o.period is not None}
    assert len(ends) > 1  # of the second comparison


def test_preset_stands_on_the_axis_of_its_periods(both):
    outcomes = both[0].outcomes
    preset = [o for o in outcomes if o.schedule.endswith("+sparse")]
    never = preset[0].model_copy(update={"schedule": "never+sparse"})
    eight = preset[0].model_copy(update={"schedule": "every-8+sparse"})
    axis = Schedules([*outcomes, never, eight])
    assert [sparse_period(o) for o in axis.sparse] == [8, 16, 64, 256, math.inf]
    plain = {o.period: axis.at(o) for o in outcomes if o.period is not None}
    apart = [axis.at(o) - plain[sparse_period(o)] for o in axis.sparse if sparse_period(o) != 8]
    assert apart == pytest.approx([apart[0]] * 4)
    assert 0.1 < apart[0] < 0.5  # beside the plain one, whose nearest neighbour is at least 1 away
    assert axis.at(eight) == pytest.approx(3 + apart[0])
    beside = [o.schedule for o in outcomes if stands_beside(o)]
    assert beside == ["every-64+clip-1", "when-error-0.1"]
    assert [o.schedule for o in axis.others] == beside
    assert min(axis.at(o) for o in axis.others) > axis.at(never)
    styles = {(axis.marker(o), axis.colour(o, LIGHT)) for o in (outcomes[0], preset[0], axis.others[0])}
    assert len({marker for marker, _ in styles}) == len({colour for _, colour in styles}) == 3


def test_preset_is_a_line_of_its_own(both):
    result = both[0]
    preset = [o for o in result.outcomes if sparse_period(o) is not None]
    with themed(LIGHT):
        axes = accuracy_against_updates(result, LIGHT).axes[0]
        panel = accuracy_against_period(frequency_records(result, both[1]), LIGHT).axes[0]
    heights = [100 * o.test_accuracy.mean for o in preset]
    for drawn in (axes, panel):
        joined = [line for line in drawn.lines if line.get_color() == LIGHT.accent and len(line.get_xdata()) == 3]
        assert [list(line.get_ydata()) for line in joined] == [heights]


def test_accuracy_is_drawn_against_updates_or_windows(both):
    result = both[0]
    places = {"n": lambda n: n, "T/K": lambda n: n + 1, "K": lambda n: result.num_steps / (n + 1)}
    for against, at in places.items():
        with themed(LIGHT):
            axes = accuracy_against_updates(result, LIGHT, against).axes[0]
        assert against.split("/")[0] in axes.get_xlabel()
        marks = {x for x, _ in points(axes)}
        assert marks == {round(at(o.feature_updates), 6) for o in result.outcomes}


def test_a_longer_run_has_longer_windows(both):
    """With equal rate × steps, K is that of as many steps as the runs of the chosen rate take."""
    result, data = both[0].equal_distance, frequency_records(both[0].equal_distance, both[1])
    longer = [o for o in result.outcomes if data.run_steps(o) > result.num_steps]
    with themed(LIGHT):
        axes = accuracy_against_updates(result, LIGHT, "K", data.run_steps).axes[0]
    assert {round(data.run_steps(o) / (o.feature_updates + 1), 6) for o in longer} <= {x for x, _ in points(axes)}
    assert longer


def test_what_accuracy_is_drawn_against_is_one_of_the_studys_own(study, tmp_path):
    result, records = study
    with pytest.raises(ValueError, match="study frequency can be drawn against n, K, T/K, got x; choose"):
        write_report(result, records, SPEC, ENVIRONMENT, tmp_path, against="x")
    assert list(tmp_path.iterdir()) == []


def overlapping(texts) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    pairs = itertools.combinations(boxes, 2)
    return [(one, two) for (one, a), (two, b) in pairs if a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1]


def test_names_beside_marks_cover_neither_marks_nor_each_other(both):
    for result in (both[0], both[0].equal_distance):
        with themed(LIGHT):
            figure = accuracy_against_updates(result, LIGHT)
            figure.draw_without_rendering()
        axes = figure.axes[0]
        names = [
            o.label.split(",")[0] if sparse_period(o) else o.label.removesuffix(" (lazy)") for o in result.outcomes
        ]
        written = [text for text in axes.texts if text.get_text() in names]
        assert Counter(text.get_text() for text in written) == Counter(names)
        assert overlapping(written) == []
        marks = axes.transData.transform([(o.feature_updates, 100 * o.test_accuracy.mean) for o in result.outcomes])
        for text in written:
            assert not any(text.get_window_extent().contains(*mark) for mark in marks), text.get_text()


def test_crowded_axes_of_periods_stay_legible(study):
    # Eleven periods in half a figure, and a diverged seed under each of them.
    result, records = study
    unlucky = (pl.col("seed") == 3) & pl.col("period").is_not_null()
    records = records.with_columns(result=pl.when(unlucky).then(pl.lit("diverged")).otherwise("result"))
    data = frequency_records(result, records)
    with themed(LIGHT):
        figure = both_comparisons([data, data], LIGHT)
        figure.draw_without_rendering()
    for axes in figure.axes:
        counts = [text for text in axes.texts if text.get_text().startswith("×")]
        assert len(counts) == sum(o.period is not None for o in result.outcomes)
        assert overlapping(counts) == []
        assert overlapping(axes.get_xticklabels()) == []
        bottom = axes.get_window_extent().y0
        top = max(text.get_window_extent().y1 for text in counts)
        lowest = min(axes.transData.transform((0, 100 * o.test_accuracy.mean))[1] for o in result.outcomes if o.period)
        assert bottom < top < lowest
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("K = 64, clipped at 1", ["K = 64", "clipped", "at 1"]),
        ("K = ∞ (lazy), proximal 0.1", ["K = ∞", "proximal", "0.1"]),
        ("loss gap ≤ 0.1, line search 2", ["loss gap", "≤ 0.1", "line", "search 2"]),
    ],
)
def test_long_labels_are_broken_where_people_would(label, lines):
    assert short_lines(label).split("\n") == lines


def test_captions_speak_of_what_is_shown_only(report, report_of_both):
    alone, paired = captions(report.read_text(encoding="utf-8")), captions(report_of_both.read_text(encoding="utf-8"))
    assert "failed to train, each counted at chance" in alone[0]
    assert "failed to train" not in paired[0]  # none did at its chosen rate
    assert "preset" not in alone[0] + alone[1]
    assert "Joined squares are the preset" in paired[0]
    assert "preset" in paired[1]
    assert "preset" in paired[2]
    assert "dotted line" in alone[0]
    assert "dotted line" not in paired[0]
