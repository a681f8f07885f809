"""`relin study` with `--shard`, one process of several, and with `--runs-from`, in this process."""

import json
from pathlib import Path

import polars as pl
import polars.testing
import pytest

TINY = ("seeds=3", "select_seeds=1", "num_records=2", "probe_size=8", "train_limit=64", "batch_size=16")
TINY += ("model_options={width = 4, depth = 1}", "learning_rates=[0.1, 0.03]", "periods=[1, 'inf']")
TINY += ("sparse_periods=[]", "tolerances=[]")
COMMAND = ("study", "frequency", "--steps", "8", "--out", "study", *(part for each in TINY for part in ("--set", each)))


@pytest.mark.slow
def test_shards_one_after_the_other_and_a_job_that_another_machine_holds(relin_command, tmp_path, monkeypatch):
    code, out, err = relin_command(*COMMAND, "--shard", "2/2")
    assert (code, err) == (0, "")
    assert "Report: study/report.html" in out
    job = next((tmp_path / "study" / "packs").glob("compare-*"))
    whole = job.read_bytes()
    job.unlink()
    (tmp_path / "study" / "report.html").unlink()
    lease = tmp_path / "study" / "locks" / f"{job.stem}.lease"
    lease.write_text(json.dumps({"host": "of another machine", "pid": 1, "token": "theirs"}))
    code, out, err = relin_command(*COMMAND, "--shard", "1/2")
    assert (code, err) == (0, "")
    assert "This shard is done, and others still compute a job of runs in study; whoever ends last" in out
    assert not (tmp_path / "study" / "report.html").exists()
    lease.unlink()
    for name, value in {"ID": "0", "MIN": "0", "MAX": "1", "COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    code, out, err = relin_command(*COMMAND)
    assert (code, err) == (0, "")
    assert job.read_bytes() == whole
    assert (tmp_path / "study" / "report.html").exists()


def test_what_is_no_shard_and_no_executor(relin_command, monkeypatch):
    code, _, err = relin_command(*COMMAND, "--executor", "processes:0")
    assert code == 2
    assert err.startswith("relin: An executor is threads, threads:N, processes, processes:N, ray or ray:ADDRESS")
    code, _, err = relin_command(*COMMAND, "--shard", "3/2")
    assert (code, err) == (2, "relin: A shard is K/N with K from 1 to N, got 3/2; for example 3/16.\n")
    for name, value in {"ID": "3", "MIN": "1", "MAX": "7", "COUNT": "4"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    code, _, err = relin_command(*COMMAND)
    assert code == 2
    assert err.startswith("relin: The tasks of SLURM's job array must have consecutive numbers to be shards")


@pytest.mark.slow
def test_a_wider_study_takes_the_runs_of_a_smaller_one(relin_command):
    assert relin_command(*COMMAND)[0] == 0
    wider = ("study", "study/spec.json", "--out", "wider", "--set", "learning_rates=[0.1, 0.03, 0.001]")
    code, out, err = relin_command(*wider, "--runs-from", "study")
    assert (code, err) == (0, "")
    assert "Report: wider/report.html" in out
    assert "--runs-from study" in Path("wider/report.html").read_text()
    runs = [
        pl.read_parquet(f"{folder}/records.parquet").select(pl.exclude("spec", "stage"))
        for folder in ("study", "wider")
    ]
    known = ["schedule", "learning_rate", "seed", "step"]
    polars.testing.assert_frame_equal(runs[1].join(runs[0], on=known, how="semi"), runs[0], check_exact=True)


def test_runs_that_are_none_of_a_study_are_refused(relin_command, tmp_path):
    code, _, err = relin_command(*COMMAND, "--runs-from", "nowhere")
    assert (code, err) == (2, "relin: nowhere holds no study (no spec.json); name the folder given to --out.\n")
    assert not (tmp_path / "study").exists()
