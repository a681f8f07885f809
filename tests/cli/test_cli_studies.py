"""Single studies from the command to the page, in this process."""

import polars as pl
import pytest

from relin.report import _figures
from relin.study import stored_study

TINY = ("seeds=3", "select_seeds=1", "num_records=2", "probe_size=8", "train_limit=64", "batch_size=16")
TINY += ("model_options={width = 4, depth = 1}", "learning_rates=[0.1, 0.03]")


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
