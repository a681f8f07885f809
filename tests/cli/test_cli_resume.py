"""`relin train --out` goes on where it was stopped."""

import json
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from cli_sample import SMALL

from relin._core.storage import from_safetensors

STEPS = 20_000


def command(out, steps=STEPS):
    options = ["train", "--steps", steps, "--schedule", "every-8", "--out", out, "--set", "num_records=10", *SMALL]
    return [sys.executable, "-m", "relin.cli", *map(str, options)]


def same(folder, tensors):
    ours = from_safetensors(folder / "solution.safetensors")
    return all(ours[name].tobytes() == value.tobytes() for name, value in tensors.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the output of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, subprocess.run(command(folder), capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_bits(number, whole, tmp_path):
    folder, shown = whole
    log = tmp_path / "log.jsonl"
    stopped = [*command(tmp_path / "run"), "--log", str(log)]
    with subprocess.Popen(stopped, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.02)
        run.send_signal(number)
        _, told = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert "the run's state last written is in" in told
    assert "the same command goes on" in " ".join(told.split())
    (kept, *_) = (tmp_path / "run" / "checkpoints").rglob("step-*.json")
    assert 0 < json.loads(kept.read_text())["step"] < STEPS
    again = subprocess.run(command(tmp_path / "run"), capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[-14:-4] == shown.splitlines()[-14:-4]
    assert same(tmp_path / "run", from_safetensors(folder / "solution.safetensors"))
    assert pl.read_parquet(tmp_path / "run" / "records.parquet").equals(pl.read_parquet(folder / "records.parquet"))


def test_the_same_command_shows_the_run_again_and_another_is_refused(relin_command, tmp_path):
    options = ["train", "--steps", 8, "--schedule", "every-4", "--out", "run", "--set", "decay=none", *SMALL]
    code, first, err = relin_command(*options)
    assert (code, err) == (0, "")
    written = from_safetensors(tmp_path / "run" / "solution.safetensors")
    code, again, err = relin_command(*options)
    assert (code, err) == (0, "")
    assert [line for line in again.splitlines() if "training" not in line] == [
        line for line in first.splitlines() if "training" not in line
    ]
    assert same(tmp_path / "run", written)
    code, _, err = relin_command(*options, "--rate", 0.07)
    assert code != 0
    assert "holds a run that differs in rate;" in " ".join(err.split())
    assert same(tmp_path / "run", written)
    options[2] = 16
    code, _, err = relin_command(*options)
    assert code != 0
    assert "differs in record_every, steps;" in " ".join(err.split())
