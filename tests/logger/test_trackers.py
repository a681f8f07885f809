"""Experiment trackers, by what their own local files hold afterwards."""

import json
import struct
import sys

import numpy as np
import pytest

import relin as il

VALUES = {
    "loss": np.asarray(0.5, np.float32),
    "feature_updates": np.asarray(3),
    "by_class": np.arange(2.0),
    "training_loss": np.asarray(np.nan),
    "kernel": np.zeros((3, 3)),
}
NUMBERS = {"loss": 0.5, "feature_updates": 3.0, "by_class/0": 0.0, "by_class/1": 1.0}


def log_all(logger):
    """A run, or two lanes, of two records."""
    with logger:
        for step in (0, 5):
            logger.log(step, VALUES)
        for lane in (0, 1):
            for step in (0, 5):
                logger.log(step, VALUES, lane)


def events(folder):
    """(step, tag, value) of the scalars in TensorBoard's event files, a length, two checksums and data a record."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)
            at += length + 16


def test_tensorboard(tmp_path):
    log_all(il.TensorBoard(tmp_path / "runs"))
    for folder in ("runs", "runs/lane-0", "runs/lane-1"):
        found = {(step, tag): value for step, tag, value in events(tmp_path / folder)}
        assert found == {(step, tag): value for step in (0, 5) for tag, value in NUMBERS.items()}


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_mlflow(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):  # the experiment is there the second time
        log_all(il.MLflow("digits", "lazy", uri, {"rate": 0.1}))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["lazy", "lazy", "lazy-0", "lazy-0", "lazy-1", "lazy-1"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"rate": "0.1"}
        assert run.data.metrics == NUMBERS
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(metric.step, metric.value) for metric in history] == [(0, 0.5), (5, 0.5)]


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


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_all(il.WeightsAndBiases(project="digits", name="lazy", mode="offline", dir=str(tmp_path)))
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
