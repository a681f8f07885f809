"""One process at a time keeps a run in a folder."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from core.checkpoint_runs import STEPS, bits, stopped_at, train
from relin._common import lease, process
from relin._common.lease import InUseError


def lease_of(folder, pid):
    folder.mkdir(exist_ok=True)
    path = folder / "run.lease"
    path.write_text(json.dumps({"host": process.host(), "name": "a-machine", "pid": pid, "token": "of another"}))
    return path


def test_a_second_process_is_refused_with_the_holder(tmp_path):
    lease_of(tmp_path / "run", os.getppid())
    message = (
        rf"run is in use by process {os.getppid()} of the machine 'a-machine'; wait until that has ended, or choose"
    )
    with pytest.raises(InUseError, match=message) as raised:
        train(folder=tmp_path / "run")
    assert isinstance(raised.value, ValueError)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lease"]


def test_a_second_run_of_this_process_is_refused_and_the_first_is_as_ever(tmp_path):
    refused = []

    def again(done, total):
        with pytest.raises(InUseError, match=f"in use by process {os.getpid()} of"):
            train(folder=tmp_path / "run")
        refused.append(done)

    assert bits(train(folder=tmp_path / "run", progress=again)) == bits(train())
    assert refused
    assert not list(tmp_path.rglob("*.lease"))
    seen = []
    train(folder=tmp_path / "run", progress=lambda done, total: seen.append(done))
    assert seen == [STEPS]


def test_a_dead_process_is_no_hindrance(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    path = lease_of(tmp_path / "run", ended.pid)
    assert bits(train(folder=tmp_path / "run")) == bits(train())
    assert not path.exists()


def test_who_was_suspended_and_lost_the_folder_writes_no_more(tmp_path):
    lost = []

    def lose(done, total):
        if not lost:
            lease_of(tmp_path / "run", os.getppid())
            lost.append({path.name for path in (tmp_path / "run").iterdir()})

    with pytest.raises(
        InUseError, match=r"run was taken over by another process while this one was suspended"
    ) as raised:
        train(folder=tmp_path / "run", record_every=2, progress=lose)
    assert {path.name for path in (tmp_path / "run").iterdir()} == lost[0]  # the other's lease, too
    assert vars(raised.value)["solution"].records["step"].tolist()[:2] == [0, 2]


def test_nor_where_the_other_one_has_ended_since(tmp_path):
    train(folder=tmp_path / "whole")
    held = []

    def lose(done, total):
        if done == 4:
            (tmp_path / "run" / "run.lease").unlink()
            for path in (tmp_path / "whole").glob("step-1*"):
                shutil.copy(path, tmp_path / "run")
            held.append(numbers(tmp_path / "run"))

    with pytest.raises(InUseError, match=r"run was taken over by another process .*, and holds what that one has writ"):
        train(folder=tmp_path / "run", record_every=2, progress=lose, keep=1)
    assert held == [numbers(tmp_path / "run")] == [{"2", "10", "12"}]


def numbers(folder):
    return {path.stem.removeprefix("step-") for path in folder.glob("step-*.*")}


def test_it_removes_of_newer_checkpoints_those_that_it_left_alone(tmp_path):
    how: Any = {"record_every": 2, "drive": "host", "keep": 1}
    train(folder=tmp_path / "whole", **how | {"keep": 100})
    stopped_at(tmp_path / "whole", 2, tmp_path / "run")
    for name in ("step-6.json", "step-6.safetensors", "step-7.safetensors"):
        (tmp_path / "run" / name).touch()
    seen = {}

    def suspended(done, total):
        """Just after it looked at its lease: another one goes on meanwhile."""
        if done == 4:
            for path in (tmp_path / "whole").glob("step-10.*"):
                shutil.copy(path, tmp_path / "run")
        seen[done] = numbers(tmp_path / "run")

    train(folder=tmp_path / "run", progress=suspended, **how)
    assert (seen[3], seen[5]) == ({"2", "6", "7"}, {"4", "10"})


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    whole, seen = bits(train(folder=tmp_path / "run")), []

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lease, "_create", refuse)
    assert bits(train(folder=tmp_path / "run", progress=lambda done, total: seen.append(done))) == whole
    assert seen == [STEPS]
