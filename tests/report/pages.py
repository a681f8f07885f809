"""What every page must hold, checked on the files as a reader gets them."""

import re
from collections import Counter
from pathlib import Path

import polars as pl


def plain(html: str) -> str:
    """The page without its drawings, with ordinary spaces."""
    return re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL).replace("\u00a0", " ")


def check_page(page: Path, parsed, result, figures: tuple[str, ...], more_files: tuple[str, ...] = ()) -> None:
    """A self-contained page with the verdict, every figure in every format, and the settings; no file too many."""
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)|<script|<iframe|https?:", html)
    assert "default-src 'none'" in html
    assert parsed.text("verdict") == result.verdict
    drawings = [attributes["class"] for tag, attributes in parsed.elements if tag == "svg"]
    assert drawings == ["only-light", "only-dark"] * len(figures)
    assert [a["id"] for tag, a in parsed.elements if tag == "figure"] == [f"figure-{name}" for name in figures]
    for name in figures:
        assert (page.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert (page.parent / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
    files = {"figures", "report.html", "summary.txt", "table.csv", *more_files}
    assert {path.name for path in page.parent.iterdir()} == files
    assert len(list((page.parent / "figures").iterdir())) == 2 * len(figures)
    check_references(html, parsed)
    assert "<code>relin study made-up --out here</code>" in html
    assert "<dt>momentum</dt><dd>0.9</dd>" in html
    assert "1 × made-up accelerator" in html
    assert "nan" not in plain(html).lower()
    assert result.verdict.split(" (")[0] in " ".join(
        (page.parent / "summary.txt").read_text(encoding="utf-8").replace("│", " ").split()
    )


def check_references(html: str, parsed) -> None:
    ids = Counter(attributes["id"] for _, attributes in parsed.elements if attributes.get("id"))
    assert max(ids.values()) == 1
    assert set(re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]+)', html)) <= set(ids)


def check_csv(path: Path, result) -> pl.DataFrame:
    """The outcomes in full precision; returns the table."""
    table = pl.read_csv(path, infer_schema_length=None)
    assert table["schedule"].to_list() == [outcome.schedule for outcome in result.outcomes]
    for row, outcome in zip(table.iter_rows(named=True), result.outcomes, strict=True):
        assert row["test_accuracy"] == outcome.test_accuracy.mean
        assert row["difference_high"] == (outcome.difference and outcome.difference.high)
        assert row["on_par"] == outcome.on_par
    return table


def points(axes) -> dict[tuple[float, float], object]:
    """Every single mark that was drawn, by its place: the means of schedules, and not the dots of seeds."""
    single = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() not in ("", "None", ".")]
    return {(round(float(x.get_xdata()[0]), 6), round(float(x.get_ydata()[0]), 6)): x for x in single}


def is_filled(mark) -> bool:
    return mark.get_markerfacecolor() == mark.get_color()


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]
