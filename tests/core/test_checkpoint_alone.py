"""One process at a time keeps a run in a folder."""

import json
import os
import subprocess

import pytest

from core.checkpoint_runs import STEPS, bits, train
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
    assert raised.value.solution.records["step"].tolist()[:2] == [0, 2]


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    whole, seen = bits(train(folder=tmp_path / "run")), []

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(lease, "_create", refuse)
    assert bits(train(folder=tmp_path / "run", progress=lambda done, total: seen.append(done))) == whole
    assert seen == [STEPS]
