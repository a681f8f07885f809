"""`relin report --records`: runs that were made elsewhere, from a file."""

import polars as pl
import pytest

from relin.study import conclude

RUNS = pl.DataFrame(
    {
        "period": ["1", "1", "1", "inf", "inf", "inf"],
        "seed": [0, 1, 2, 0, 1, 2],
        "learning_rate": 0.1,
        "test_accuracy": [0.91, 0.93, 0.92, 0.89, None, 0.90],
    }
)
SET = ["--set", "num_classes=10", "--set", "steps=50", "--set", "margin=0.5", "--set", "data=mine"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_of_runs_gets_its_report(kind, relin_command, tmp_path):
    getattr(RUNS, f"write_{kind}")(tmp_path / f"runs.{kind}")
    code, out, err = relin_command("report", "--records", f"runs.{kind}", "--question", "frequency", *SET)
    assert (code, err) == (0, "")
    expected = conclude("frequency", RUNS, num_classes=10, steps=50, margin=0.5, data="mine")
    assert "mine" in expected.verdict
    assert expected.verdict.split()[:6] == [word for word in out.split("verdict")[-1].split() if word != "│"][1:7]
    page = tmp_path / "studies" / "frequency-runs" / "report.html"
    assert f"Report: {page.relative_to(tmp_path)}" in out
    assert "relin report --records" in page.read_text()
    table = pl.read_csv(page.parent / "table.csv")
    assert table["num_diverged"].to_list() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name the folder of a study, or runs made elsewhere"),
        (["--records", "runs.csv"], "Name the folder of a study, or runs made elsewhere"),
        (["folder", "--question", "frequency"], "--question belongs to runs made elsewhere"),
        (["--records", "absent.csv", "--question", "frequency"], "absent.csv cannot be read"),
        (["--records", "runs.json", "--question", "frequency"], ".parquet or .csv"),
        (["--records", "broken.parquet", "--question", "frequency"], "is no parquet file"),
        (["--records", "runs.csv", "--question", "often"], "There is no study 'often'"),
        (["--records", "runs.csv", "--question", "stability"], "cannot be answered from runs made elsewhere"),
        (["--records", "runs.csv", "--question", "frequency"], "neither num_classes nor chance"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(arguments, message, relin_command, tmp_path):
    RUNS.write_csv(tmp_path / "runs.csv")
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    code, out, err = relin_command("report", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
