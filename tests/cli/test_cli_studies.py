"""Single studies from the command to the page, in this process."""

import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

from relin.report import _figures
from relin.study import SpecError, load_study, read_spec, register, stored_study
from relin.study._registry import find, names

pytestmark = pytest.mark.slow

OWN_STUDY = Path(__file__).parents[2] / "examples" / "own_study"

TINY = ("seeds=3", "select_seeds=1", "num_records=2", "probe_size=8", "train_limit=64", "batch_size=16")
TINY += ("model_options={width = 4, depth = 1}", "learning_rates=[0.1, 0.03]")


@pytest.fixture
def nothing_named(monkeypatch):
    """No study is known but those that come with relin, as in a new process; what the test imports is forgotten."""
    before = set(sys.modules)
    monkeypatch.setattr("relin.study._registry._named", {})
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("_relin_study_", "own_study", "single")):
            del sys.modules[name]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution with one entry point on the path."""

    def install(name, value):
        folder = tmp_path / "site" / f"dist_{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[relin.studies]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder.parent

    return install


@pytest.fixture
def tiny(relin_command, monkeypatch):
    """Runs a study at its smallest."""
    monkeypatch.setattr(_figures, "PNG_DPI", 30)

    def command(name, *settings):
        given = [word for setting in (*TINY, *settings) for word in ("--set", setting)]
        return relin_command("study", name, "--out", "out", *given)

    return command


def test_phase(tiny, tmp_path):
    code, out, err = tiny("phase", "totals=[4, 12]", "updates=[0, 1]")
    assert (code, err) == (0, "")
    assert "n + 1 at" in out
    spec, result, records = stored_study(tmp_path / "out")
    assert spec.steps == 12
    assert records["run_steps"].equals(records["num_steps"])
    ends = records.filter(pl.col("step") == pl.col("run_steps"))
    assert set(ends.select("run_steps", "schedule", "feature_updates").rows()) == {
        (total, name, updates)
        for total, half in ((4, 2), (12, 6))
        for name, updates in (("every-1", total - 1), (f"every-{half}", 1), ("never", 0))
    }
    assert [(cell.total, cell.updates) for cell in result.cells] == [(4, 0), (4, 1), (4, 3), (12, 0), (12, 1), (12, 11)]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert result.verdict.split(" (")[0] in page
    assert 'id="figure-map"' in page


@pytest.mark.usefixtures("nothing_named")
def test_a_study_of_ones_own(tiny, relin_command, tmp_path, monkeypatch, installed):
    """From the command to the page, and again from its folder, in which no code is run that nobody named."""
    code, out, err = tiny(OWN_STUDY, "steps=8", "periods=[4]")
    assert (code, err) == (0, "")
    assert "gain, points" in out
    page = tmp_path / "out" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "Does it matter whether momentum starts anew" in text
    assert 'id="figure-gains"' in text
    _, result, records = stored_study(tmp_path / "out")
    assert set(records["schedule"]) == {"every-1", "every-4", "every-4+reset"}
    counted = pl.when(pl.col("result") == "successful").then("test_accuracy").otherwise(result.chance)
    ends = records.filter(step=8).with_columns(test_accuracy=counted)
    rates = {outcome.schedule: outcome.learning_rate for outcome in result.outcomes}
    kept, reset = (
        ends.filter(schedule=name, learning_rate=rates[name]).sort("seed")["test_accuracy"]
        for name in ("every-4", "every-4+reset")
    )
    assert result.gains[0].gain.mean == pytest.approx((reset - kept).mean())

    monkeypatch.setattr("relin.study._registry._named", {})
    page.unlink()
    code, _, err = relin_command("report", "out")
    assert code == 2
    assert "a study that is not installed, 'restart'; name its Python file with --study" in err
    assert not page.exists()
    code, out, err = relin_command("report", "out", "--study", OWN_STUDY)
    assert (code, err) == (0, "")
    assert "gain, points" in out
    assert f"relin study out/spec.json --out out --study {OWN_STUDY}" in page.read_text(encoding="utf-8")

    monkeypatch.setattr("relin.study._registry._named", {})
    for own, told in (((), "not readable"), (("--study", OWN_STUDY), "answered")):
        code, _, err = relin_command("gallery", ".", *own)
        assert (code, err) == (0, "")
        assert f"1 study: 1 {told}" in (tmp_path / "gallery.html").read_text(encoding="utf-8")

    monkeypatch.setattr("relin.study._registry._named", {})
    shutil.copytree(OWN_STUDY, installed("restart", "own_study:STUDY") / "own_study")
    assert "restart" in names()
    assert read_spec("restart").periods == [16, 64, 256]
    code, out, err = relin_command("report", "out")
    assert (code, err) == (0, "")
    assert "gain, points" in out
    assert find("restart").beside("page").__name__ == "own_study.page"


SINGLE = """
from relin.study import AbstractGridStudy, GridSpec, parse_condition
from typing import Literal

class Spec(GridSpec, frozen=True):
    study: Literal["mine"] = "mine"
    def own_conditions(self):
        return [parse_condition("every-1")]

class Study(AbstractGridStudy):
    name, settings = "mine", Spec
    def answer(self, records, chance): ...
    @classmethod
    def page(cls, result, records, spec): ...

STUDY = Study
"""


@pytest.mark.usefixtures("nothing_named")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("STUDY = Study", ""), "must give a subclass of relin.study.AbstractStudy as STUDY, got None"),
        (("STUDY = Study", "STUDY = Spec()"), "must give a subclass of relin.study.AbstractStudy"),
        (("from typing import Literal", "import nothing_of_this_name"), r"cannot be run \(ModuleNotFoundError: "),
        (("STUDY = Study", "STUDY ="), r"cannot be run \(SyntaxError: "),
        (('"mine", Spec', '"My own", Spec'), "`name` is of small letters, digits, - and _, got 'My own'"),
        (('"mine", Spec', '"mine", dict'), "`settings` are a subclass of relin.study.StudySpec"),
        (('"mine", Spec', '"other", Spec'), "the field `study: Literal.\"other\".*got the default 'mine'"),
        (('"mine"', '"frequency"'), "'frequency' of .* has the name of an installed one"),
        (("def answer", "def anwser"), "a study with conclude.py beside it"),
        (("def page", "def pgae"), "a study with page.py beside it"),
        (("AbstractGridStudy):", "AbstractStudy):"), "a study that defines conclude, jobs, later_cost, loss, trainer"),
    ],
)
def test_what_is_no_study_is_refused_before_it_runs(tmp_path, change, message):
    text = SINGLE.replace("import AbstractGridStudy,", "import AbstractGridStudy, AbstractStudy,")
    (tmp_path / "single.py").write_text(text.replace(*change))
    with pytest.raises(SpecError, match=message) as refusal:
        load_study(tmp_path / "single.py")
    assert "\n" not in str(refusal.value)
    assert not [name for name in names() if name in ("mine", "other", "My own")]


@pytest.mark.usefixtures("nothing_named")
def test_files_of_one_name_are_studies_of_their_own(tmp_path):
    for folder, name in (("a", "mine"), ("b", "yours"), ("c", "mine")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "single.py").write_text(SINGLE.replace('"mine"', f'"{name}"'))
    mine, yours = (load_study(tmp_path / folder / "single.py") for folder in ("a", "b"))
    assert (find("mine"), find("yours")) == (mine, yours)
    assert mine.__module__ != yours.__module__
    assert mine.terminal(None) is None
    with pytest.raises(SpecError, match="Two studies are named 'mine'"):
        load_study(tmp_path / "c" / "single.py")
    again = load_study(tmp_path / "a" / "single.py")
    assert again is not mine
    assert find("mine") is again
    assert register(again) is again
    with pytest.raises(SpecError, match="is no Python file"):
        load_study(tmp_path / "nothing")


@pytest.mark.usefixtures("nothing_named")
def test_a_changed_file_is_read_with_what_stands_beside_it(tmp_path):
    folder = tmp_path / "own_study"
    shutil.copytree(OWN_STUDY, folder)
    assert load_study(folder).beside("page").QUESTION.startswith("Does it matter")
    (folder / "page.py").write_text('QUESTION = "Another?"  # not of the same length\n')
    assert load_study(folder).beside("page").QUESTION == "Another?"


@pytest.mark.usefixtures("nothing_named")
def test_a_folder_does_not_take_the_place_of_a_study(tmp_path, monkeypatch):
    (tmp_path / "width").mkdir()
    (tmp_path / "width" / "__init__.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    assert read_spec("width").study == "width"


@pytest.mark.usefixtures("nothing_named")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nothing_of_this_name:STUDY", r"The entry point mine = .* cannot be loaded \(ModuleNotFoundError"),
        ("single:Spec", "must give a subclass of relin.study.AbstractStudy"),
        ("single:Other", "gives a study named 'other'; call both the same"),
    ],
)
def test_entry_points_that_give_no_study_are_refused(installed, value, message):
    other = SINGLE.replace('"mine"', '"other"').replace("class Study", "class Other").replace("= Study", "= Other")
    (installed("mine", value) / "single.py").write_text(other)
    with pytest.raises(SpecError, match=message):
        find("mine")
