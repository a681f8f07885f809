"""Experiment trackers, by what their own local files hold afterwards.

MLflow and Weights & Biases start threads that stay: they log in a process of their own.
"""

import json
import os
import sqlite3
import struct
import subprocess
import sys

import pytest

import relin as il

LOG_ALL = """
import sys
import numpy as np
import relin as il

VALUES = {
    "loss": np.asarray(0.5, np.float32),
    "feature_updates": np.asarray(3),
    "by_class": np.arange(2.0),
    "training_loss": np.asarray(np.nan),
    "kernel": np.zeros((3, 3)),
}
with eval(sys.argv[1]) as logger:
    for lane in (None, 0, 1):
        for step in (0, 5):
            logger.log(step, VALUES, lane)
"""
NUMBERS = {"loss": 0.5, "feature_updates": 3.0, "by_class/0": 0.0, "by_class/1": 1.0}


def log_all(logger, **environment):
    """A run and two lanes, of two records each."""
    done = subprocess.run(
        [sys.executable, "-c", LOG_ALL, logger],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def events(folder):
    """(step, tag, value) of the scalars in TensorBoard's event files."""
    for event in events_of(folder):
        yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)


def events_of(folder):
    """Of TensorBoard's event files, a length, two checksums and data a record."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16


@pytest.mark.slow
def test_tensorboard(tmp_path):
    log_all(f"il.TensorBoard({str(tmp_path / 'runs')!r})")
    for folder in ("runs", "runs/lane-0", "runs/lane-1"):
        found = {(step, tag): value for step, tag, value in events(tmp_path / folder)}
        assert found == {(step, tag): value for step in (0, 5) for tag, value in NUMBERS.items()}


@pytest.mark.slow
def test_mlflow(tmp_path):
    path = tmp_path / "mlflow.db"
    for _ in range(2):  # the experiment is there the second time
        log_all(f"il.MLflow('digits', 'lazy', {f'sqlite:///{path}'!r}, {{'rate': 0.1}})")
    database = sqlite3.connect(path)
    runs = database.execute(
        "SELECT run_uuid, runs.name, status FROM runs JOIN experiments USING (experiment_id) "
        "WHERE experiments.name = 'digits' ORDER BY runs.name"
    ).fetchall()
    assert [name for _, name, _ in runs] == ["lazy", "lazy", "lazy-0", "lazy-0", "lazy-1", "lazy-1"]
    for run, _, status in runs:
        assert status == "FINISHED"
        params = database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,)).fetchall()
        assert params == [("rate", "0.1")]
        metrics = database.execute("SELECT step, key, value FROM metrics WHERE run_uuid = ?", (run,)).fetchall()
        assert sorted(metrics) == sorted((step, name, value) for step in (0, 5) for name, value in NUMBERS.items())
    database.close()


def history(path):
    """The rows of a Weights & Biases file: blocks of records, each of a checksum, a length, a kind and data."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete, or the last piece
            record, whole = Record.FromString(whole), b""
            if record.HasField("history"):
                yield {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path):
    options = f"project='digits', name='lazy', mode='offline', dir={str(tmp_path)!r}"
    log_all(f"il.WeightsAndBiases({options})", WANDB_SILENT="true")
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3
    for path in files:
        rows = list(history(path))
        assert [row["_step"] for row in rows] == [0, 5]
        for row in rows:
            assert {name: value for name, value in row.items() if not name.startswith("_")} == NUMBERS


@pytest.mark.parametrize(
    ("logger", "library", "extra"),
    [
        (il.TensorBoard, "tensorboardX", "tensorboard"),
        (il.MLflow, "mlflow", "mlflow"),
        (il.WeightsAndBiases, "wandb", "wandb"),
    ],
)
def test_without_the_library(logger, library, extra, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    arguments = [tmp_path] if logger is il.TensorBoard else []
    with pytest.raises(ImportError, match=rf"relin.{logger.__name__} needs .*run pip install 'relin\[{extra}\]'"):
        logger(*arguments)
