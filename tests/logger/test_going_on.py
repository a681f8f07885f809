"""A run that goes on from a checkpoint shows loggers what they have not taken; trackers go on with their run."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_trackers import events_of, history

import relin as il
from core.checkpoint_runs import train
from core.stopped import StopError, stop_at
from relin._logger import Journal, Loggers
from relin._logger._journal import Taken

STEPS = list(range(13))


class Kept(il.AbstractLogger):
    """Writes to a list of the test's, by which another one goes on."""

    lists = {}  # noqa: RUF012

    def __init__(self, name="list"):
        self.name = name

    def log(self, step, values, lane=None):
        self.lists.setdefault((self.name, lane), []).append(step)

    def handle(self, lane=None):
        return self.name

    def reopen(self, handle, lane=None):
        return handle == self.name


class Shown(il.AbstractLogger):
    def __init__(self):
        self.steps = []

    def log(self, step, values, lane=None):
        self.steps.append(step)


@pytest.fixture(autouse=True)
def lists(monkeypatch):
    monkeypatch.setattr(Kept, "lists", {})
    return Kept.lists


def killed(tmp_path, monkeypatch, *loggers, at=7, **options):
    """As a kill leaves it: records up to this step are logged, and the checkpoint is older."""
    monkeypatch.setattr("relin._loop.course.Course._keep_at_last", lambda *_: None)
    with pytest.raises(StopError):
        train(folder=tmp_path / "run", every=4, record_every=1, progress=stop_at(at), loggers=loggers, **options)
    assert max(int(path.stem.removeprefix("step-")) for path in (tmp_path / "run").glob("*.json")) == 4


def test_each_record_is_taken_once(tmp_path, monkeypatch, lists):
    killed(tmp_path, monkeypatch, Kept())
    assert lists["list", None] == STEPS[:8]
    shown = Shown()
    train(folder=tmp_path / "run", every=4, record_every=1, loggers=[shown, Kept()])
    assert lists["list", None] == STEPS
    assert shown.steps == STEPS  # it cannot go on, and is shown all of them
    train(folder=tmp_path / "run", every=4, record_every=1, loggers=[Kept()])
    assert lists["list", None] == STEPS


def test_loggers_are_known_by_their_kind_and_number(tmp_path, monkeypatch, lists):
    killed(tmp_path, monkeypatch, Kept("one"), Kept("two"))
    train(folder=tmp_path / "run", every=4, record_every=1, loggers=[Kept("one"), Kept("other")])
    assert lists == {("one", None): STEPS, ("two", None): STEPS[:8], ("other", None): STEPS}


def test_one_that_failed_is_shown_what_it_missed(tmp_path, monkeypatch, lists):
    log = Kept.log

    def failing(logger, step, values, lane=None):
        if step == 3:
            raise OSError("full")
        log(logger, step, values, lane)

    monkeypatch.setattr(Kept, "log", failing)
    with pytest.warns(RuntimeWarning, match="Kept could not log step 3"):
        killed(tmp_path, monkeypatch, Kept())
    monkeypatch.setattr(Kept, "log", log)
    train(folder=tmp_path / "run", every=4, record_every=1, loggers=[Kept()])
    assert lists["list", None] == STEPS


def test_another_run_in_the_folder_begins_anew(tmp_path, monkeypatch, lists):
    killed(tmp_path, monkeypatch, Kept())
    for path in (tmp_path / "run").glob("step-*"):
        path.unlink()
    train(folder=tmp_path / "run", schedule=2, every=4, record_every=1, loggers=[Kept()])
    assert lists["list", None] == STEPS[:8] + STEPS


def test_a_longer_run_goes_on(tmp_path, lists):
    for steps in (5, 12):
        train(folder=tmp_path / "run", steps=steps, every=4, record_every=1, loggers=[Kept()])
    assert lists["list", None] == STEPS


@pytest.mark.parametrize("drive", ["map", "host"])
def test_lanes(tmp_path, lists, drive):
    import jax.numpy as jnp
    import optax

    from core.checkpoint_runs import KEY, PARAMS, X, Y, apply

    def make(rate):
        return il.Run(il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(rate)), il.Every(2), PARAMS, KEY)

    def run(progress=None):
        checkpoint = il.Checkpoint(tmp_path / "run", every=4)
        options = {"num_steps": 8, "batch_size": 8, "record_every": 2, "drive": drive, "checkpoint": checkpoint}
        return il.train_lanes(make, jnp.asarray([0.1, 0.03]), (X, Y), loggers=[Kept()], progress=progress, **options)

    with pytest.raises(StopError):
        run(stop_at(14 if drive == "host" else 6))
    run()
    assert lists == {("list", 0): [0, 2, 4, 6, 8], ("list", 1): [0, 2, 4, 6, 8]}


class MLflowError(Exception):
    def __init__(self, error_code):
        self.error_code = error_code


@pytest.mark.parametrize("code", ["RESOURCE_DOES_NOT_EXIST", "TEMPORARILY_UNAVAILABLE"])
def test_only_where_there_is_no_run_of_mlflow_another_is_begun(code):
    logger: Any = object.__new__(il.MLflow)
    logger._client, logger._runs, logger._error = SimpleNamespace(), {}, MLflowError

    def get_run(handle):
        raise MLflowError(code)

    logger._client.get_run = get_run
    if code == "RESOURCE_DOES_NOT_EXIST":
        assert not logger.reopen("a run")
    else:
        with pytest.raises(MLflowError):
            logger.reopen("a run")


@pytest.mark.parametrize("append", [False, True])
def test_json_lines_holds_each_record_once(tmp_path, monkeypatch, append):
    file = tmp_path / "run.jsonl"
    file.write_text('{"step": -5}\n')
    with il.JSONLines(file, append) as logger:
        killed(tmp_path, monkeypatch, logger)
    with il.JSONLines(file, append) as logger:
        for _ in range(2):  # one logger may serve two calls
            train(folder=tmp_path / "run", every=4, record_every=1, loggers=[logger])
    found = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert found == ([-5] if append else []) + STEPS


def test_a_journal_that_is_cut_is_read_as_far_as_it_goes(tmp_path):
    path, run = tmp_path / "loggers.jsonl", {"key": "sha256:1", "record_every": None}
    for step in (1, 2):
        Journal(path, run).add("Kept 0", None, Taken("ä", step))
    Journal(path, run).add("Kept 1", 3, Taken("x", 7))
    whole = path.read_bytes()
    assert Journal(path, run).before("Kept 0", None) == Taken("ä", 2)
    assert Journal(path, run).before("Kept 1", 3) == Taken("x", 7)
    assert Journal(path, run | {"key": "sha256:2"}).before("Kept 0", None) is None
    path.write_bytes(whole[:-9])
    assert Journal(path, run).before("Kept 0", None) == Taken("ä", 2)
    assert Journal(path, run).before("Kept 1", 3) is None
    for damaged in (b"", b"\xff", b"[]", b"{}\n3\n"):
        path.write_bytes(damaged)
        assert Journal(path, run).before("Kept 0", None) is None


def test_a_journal_that_cannot_be_written_ends_nothing(tmp_path, lists):
    log = Loggers([Kept()]).of_run(None, Journal(tmp_path / "nowhere" / "loggers.jsonl", {}))
    log(0, {"loss": np.asarray(1.0)}, -1)
    assert lists == {("list", None): [0]}


KILLED = """
import os, signal, sys, time
from pathlib import Path
import relin as il
from core.checkpoint_runs import train

folder, kill = Path(sys.argv[1]), sys.argv[2] == "kill"
loggers = [
    il.TensorBoard(folder / "board"),
    il.MLflow("digits", "lazy", f"sqlite:///{folder}/mlflow.db", {"rate": 0.1}),
    il.WeightsAndBiases(project="digits", mode="offline", dir=str(folder)),
]

def progress(done, total):
    if kill and done == 7:
        time.sleep(3)  # Weights & Biases hands over records in a thread
        os.kill(os.getpid(), signal.SIGKILL)

train(folder=folder / "run", every=4, record_every=1, progress=progress, loggers=loggers)
for logger in loggers:
    logger.close()
"""


def shown_by_tensorboard(folder, tag):
    """The steps of a tag, but those that a later file hides, which says from which step it begins anew."""
    steps = []
    for event in events_of(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == event.session_log.START
            steps = [step for step in steps if step < event.step]
        steps += [event.step for value in event.summary.value if value.tag == tag]
    return steps


@pytest.mark.slow
def test_trackers_go_on_with_the_run_that_was_killed(tmp_path):
    paths = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), os.path.dirname(os.path.dirname(__file__))])
    for how in ("kill", "go on"):
        command = [sys.executable, "-c", KILLED, str(tmp_path), how]
        environment = os.environ | {"WANDB_SILENT": "true", "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
        errors = tmp_path / f"{how}.txt"  # no pipe: the process of Weights & Biases lives longer, and would hold it
        with errors.open("w") as file:
            ended = subprocess.run(command, env=environment, stdout=file, stderr=file, check=False, timeout=240)
        assert ended.returncode == (-signal.SIGKILL if how == "kill" else 0), errors.read_text()
        assert "left out" not in errors.read_text()
    assert shown_by_tensorboard(tmp_path / "board", "feature_updates") == STEPS
    database = sqlite3.connect(tmp_path / "mlflow.db")
    [(run, status)] = database.execute("SELECT run_uuid, status FROM runs").fetchall()
    assert status == "FINISHED"
    assert database.execute("SELECT key, value FROM params").fetchall() == [("rate", "0.1")]
    found = database.execute("SELECT step FROM metrics WHERE key = 'feature_updates' AND run_uuid = ?", (run,))
    assert sorted(step for (step,) in found) == STEPS
    database.close()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({path.name for path in files}) == 1, "the id of one run"
    newest = max(files, key=lambda path: path.stat().st_mtime)
    assert [row["_step"] for row in history(newest)] == STEPS
