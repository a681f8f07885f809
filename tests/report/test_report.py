"""The report of the frequency study, read back from the files as a reader gets them."""

import math
import re
from collections import Counter

import polars as pl
import pytest
from report_sample import ENVIRONMENT, SPEC

from relin.report import write_report
from relin.study._result import Interval

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
        par, updates, rate, accuracy, difference, bound, holm, diverged, everywhere, network, *_ = rows[outcome.label]
        assert par == {None: "–", True: "✓", False: "✗"}[outcome.on_par]
        assert number(updates) == outcome.feature_updates
        assert number(rate) == outcome.learning_rate
        mean, half = map(number, accuracy.split(" ± "))
        assert mean == pytest.approx(100 * outcome.test_accuracy.mean, abs=0.0051)
        assert half == pytest.approx(50 * (outcome.test_accuracy.high - outcome.test_accuracy.low), abs=0.0051)
        assert number(network.split(" ")[0]) == pytest.approx(100 * outcome.network_test_accuracy.mean, abs=0.0051)
        assert diverged == f"{outcome.num_diverged} of {outcome.num_seeds}"
        assert everywhere == f"{outcome.num_diverged_all_rates} of {outcome.num_runs_all_rates}"
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
    change = {"study": HOSTILE, "outcomes": [one, two], "k_star": None, "num_seeds": 1}
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
