"""A study judged by a measure of one's own, from the command line to the page."""

import pytest
from cli_sample import SMALL

from relin.study import stored_study

pytestmark = pytest.mark.slow

FILE = """
import jax.numpy as jnp

from relin import study


def bits(outputs, targets):
    logs = outputs - jnp.log(jnp.sum(jnp.exp(outputs), -1, keepdims=True))
    return -jnp.mean(jnp.take_along_axis(logs, targets[:, None], 1)) / jnp.log(2.0)


measure = study.Measure(bits, "bits", higher_is_better=False, margin=0.25, unit="bit")
"""
TINY = [*SMALL, "--steps", 6, "--set", "batch_size=16", "--set", "num_records=2", "--set", "learning_rates=[0.1]"]
GRID = ["--set", "periods=[1, 4]", "--set", "sparse_periods=[]", "--set", "tolerances=[]", "--seeds", 2]
ASKED = ["study", "frequency", *TINY, *GRID, "--set", "select_seeds=1", "--measure", "mine.py:measure", "--out", "bits"]


def test_a_measure_in_a_file(relin_command, tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    code, out, err = relin_command(*ASKED)
    assert (code, err) == (0, "")
    assert "0.25 bit" in " ".join(out.split())
    assert "accuracy" not in out
    spec, result, _ = stored_study(tmp_path / "bits")
    assert (spec.margin, result.margin, result.better) == (0.25, 0.25, "lower")
    (tmp_path / "mine.py").write_text("raise RuntimeError")  # a report runs no code
    (tmp_path / "bits" / "report.html").unlink()
    code, out, err = relin_command("report", "bits")
    assert (code, err) == (0, "")
    assert "0.25 bit" in (tmp_path / "bits" / "report.html").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(FILE.replace("2.0", "4.0"))
    code, _, err = relin_command(*ASKED)
    assert code == 2
    assert "mine.py:measure as it was before" in " ".join(err.split())


def test_what_is_no_measure_is_refused(relin_command, tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    for named, said in (
        ("mine.py:bits", "bits must be a relin.study.Measure, got function"),
        ("f1", "the measure is accuracy, or one of your own"),
        ("mine.py:nothing", "mine.py has no nothing"),
    ):
        code, _, err = relin_command("study", "frequency", "--measure", named)
        assert code == 2
        assert said in " ".join(err.split())
    code, _, err = relin_command("train", "--set", "measure=mine.py:measure", "--steps", 2)
    assert code == 2
    assert "measure: a single run" in " ".join(err.split())
