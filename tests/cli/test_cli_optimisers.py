"""A study and a run with an optimiser other than SGD, from the command line to the page."""

import json
import re

import pytest
from cli_sample import SMALL

from relin.study import stored_study

TINY = [*SMALL, "--steps", 6, "--set", "batch_size=16", "--set", "num_records=2", "--set", "warm_up=0.2"]
GRID = [
    *("--set", "periods=[1, 4]", "--set", 'parts=["clip-1"]', "--set", "tolerances=[]", "--seeds", 2),
    *("--set", "select_seeds=2", "--set", "probe_size=16", "--set", "optimiser_options={b1=0.8}"),
]


@pytest.mark.slow
def test_a_stability_study_with_adam_says_nothing_of_what_is_stable_for_sgd(relin_command, tmp_path):
    code, out, err = relin_command("study", "stability", "--optimiser", "adam", *TINY, *GRID, "--out", "adam")
    assert (code, err) == (0, "")
    assert "On digits, " in out
    _, result, records = stored_study(tmp_path / "adam")
    assert sorted(records["learning_rate"].unique()) == [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1]
    assert result.stable_rate_at_start is None
    assert {limit.stable_rate for limit in result.limits} == {None}
    html = (tmp_path / "adam" / "report.html").read_text(encoding="utf-8")
    assert "<dt>optimiser</dt><dd>adam</dd>" in html
    assert re.search("2/λ_max|1 \\+ β|with momentum", html + out) is None
    code, out, err = relin_command("study", "stability", "--optimiser", "sgd", *TINY, *GRID[:-2], "--out", "adam")
    assert code == 2
    assert re.search(
        r"other settings \(learning_rates, momentum, optimiser, optimiser_options\)", " ".join(err.split())
    )


@pytest.mark.slow
def test_a_run_with_an_optimiser(relin_command, tmp_path):
    code, _, err = relin_command("train", "--optimiser", "muon", *TINY, "--schedule", "every-2", "--out", "run")
    assert (code, err) == (0, "")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["learning_rate"], run["spec"]["optimiser"]) == (0.003, "muon")
    code, _, err = relin_command("train", "--optimiser", "adm")
    assert code == 2
    assert (
        "the optimisers are sgd, momentum, adam, adamw, lion, muon; a function of your own is named FILE.py:NAME" in err
    )
