"""A report is written again only where its records, its settings or relin changed, or a file of it."""

import polars as pl
import pytest

from relin.report import _current

RECORDS = pl.DataFrame({"step": [0, 1], "loss": [1.0, float("nan")], "outputs": [[1.0], None]})
SPEC = {"study": "frequency", "seeds": 3}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("report.html", "summary.txt", "table.csv", "figures/a.png", "figures/a.pdf"):
        (tmp_path / name).write_text(name)
    _current.keep(tmp_path, _current.made_from(RECORDS, SPEC))
    return tmp_path


def test_a_report_of_the_same_is_current(folder):
    made = _current.made_from(RECORDS.clone(), dict(reversed(SPEC.items())))
    assert _current.is_current(folder, made)


@pytest.mark.parametrize(
    ("records", "spec"),
    [
        (RECORDS.with_columns(loss=pl.lit(1.0)), SPEC),
        (RECORDS.head(1), SPEC),
        (RECORDS.reverse(), SPEC),
        (RECORDS.rename({"loss": "losses"}), SPEC),
        (RECORDS.cast({"step": pl.Int32}), SPEC),
        (RECORDS.with_columns(outputs=pl.lit([2.0])), SPEC),
        (RECORDS, SPEC | {"seeds": 4}),
        (RECORDS, {"study": "frequency"}),
    ],
)
def test_other_records_or_settings_are_not(folder, records, spec):
    assert not _current.is_current(folder, _current.made_from(records, spec))


def test_a_page_drawn_against_something_else_is_not(folder):
    made = _current.made_from(RECORDS, SPEC, "T/K")
    assert not _current.is_current(folder, made)
    _current.keep(folder, made)
    assert not _current.is_current(folder, _current.made_from(RECORDS, SPEC))


def test_a_study_that_was_changed_is_not(folder, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("x = 1")
    monkeypatch.setattr(_current.inspect, "getfile", lambda study: str(tmp_path / "own.py"))
    before = _current.made_from(RECORDS, SPEC)
    (tmp_path / "own.py").write_text("x = 2")
    assert before != _current.made_from(RECORDS, SPEC)


def test_another_relin_is_not(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(_current, "version", lambda name: "99")
    assert not _current.is_current(folder, _current.made_from(RECORDS, SPEC))
    monkeypatch.undo()
    package = tmp_path_factory.mktemp("package")
    for name in ("report/_a.py", "study/_b.py", "_common/outcome.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x = 1")
    monkeypatch.setattr(_current, "_PACKAGE", package)
    before = _current.made_from(RECORDS, SPEC)
    (package / "report/_a.py").write_text("x = 2")
    after = _current.made_from(RECORDS, SPEC)
    assert {name for name in before if before[name] != after[name]} == {"relin"}


@pytest.mark.parametrize(
    "name", ["report.html", "summary.txt", "table.csv", "figures/a.png", "figures/a.pdf", "report.json"]
)
@pytest.mark.parametrize("change", ["missing", "altered"])
def test_a_file_that_is_missing_or_altered_is_noticed(folder, name, change):
    path = folder / name
    path.unlink() if change == "missing" else path.write_bytes(path.read_bytes() + b" ")
    assert not _current.is_current(folder, _current.made_from(RECORDS, SPEC))
