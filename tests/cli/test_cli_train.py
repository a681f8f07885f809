import json
import math

import matplotlib.image
import numpy as np
import polars as pl
import polars.testing
import pytest
from cli_sample import SMALL
from rich.console import Console

import relin as il
from relin._common.bar import _TimeLeft, progress_bar
from relin.report import _figures
from relin.report._training import write_training_curve


def test_a_run_is_shown_and_stored(relin_command, tmp_path):
    code, out, err = relin_command(
        "train", "--steps", 40, "--schedule", "every-8", "--out", "run", "--set", "num_records=10", *SMALL
    )
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" not in out
    assert "100%" in out
    records = pl.read_parquet(tmp_path / "run" / "records.parquet")
    assert records["step"].to_list() == list(range(0, 41, 4))
    assert records["feature_updates"][-1] == 4
    last = records.row(-1, named=True)
    assert f"{last['test_accuracy']:.2%}" in next(line for line in out.splitlines() if line.split()[:1] == ["40"])
    text = pl.read_csv(tmp_path / "run" / "records.csv")
    polars.testing.assert_frame_equal(
        text.select("step", "test_accuracy", "feature_updates"),
        records.select("step", "test_accuracy", "feature_updates"),
    )
    assert "Figure: run/learning-curve.png" in out
    image = matplotlib.image.imread(tmp_path / "run" / "learning-curve.png")
    assert image.shape[0] > 150  # tests draw roughly
    assert np.ptp(image[..., :3]) > 0.5


def test_records_are_logged_as_they_are_made(relin_command, tmp_path):
    where = ["--log", "logs/run.jsonl", "--log", "tensorboard:runs"]
    code, _, err = relin_command("train", "--steps", 40, "--out", "run", "--set", "num_records=2", *where, *SMALL)
    assert (code, err) == (0, "")
    logged = [json.loads(line) for line in (tmp_path / "logs" / "run.jsonl").read_text().splitlines()]
    records = pl.read_parquet(tmp_path / "run" / "records.parquet")
    assert [record["step"] for record in logged] == records["step"].to_list()
    assert "lane" not in logged[0]
    assert [record["test_accuracy"] for record in logged] == records["test_accuracy"].to_list()
    assert len(list((tmp_path / "runs").glob("events.*"))) == 1


def test_a_logger_that_cannot_be_closed_costs_nothing(relin_command, tmp_path, monkeypatch):
    really_close = il.JSONLines.close

    def close(self):
        really_close(self)
        raise OSError("the disk is full")

    monkeypatch.setattr(il.JSONLines, "close", close)
    with pytest.warns(RuntimeWarning, match="JSONLines could not be closed: the disk is full"):
        code, _, _ = relin_command("train", "--steps", 4, "--out", "run", "--log", "run.jsonl", *SMALL)
    assert code == 0
    assert (tmp_path / "run" / "parameters.safetensors").is_file()


@pytest.mark.parametrize(("where", "code"), [("run.csv", 2), ("tensorboard:", 2), ("file/run.jsonl", 1)])
def test_where_nothing_can_be_logged(where, code, relin_command, tmp_path):
    (tmp_path / "file").write_text("")
    found, out, err = relin_command("train", "--steps", 4, "--log", "first.jsonl", "--log", where, *SMALL)
    assert (found, err.count("\n")) == (code, 1)
    assert "--log" in err
    assert "test" not in out


def test_a_run_is_looked_at_before_it_is_trained(relin_command, tmp_path):
    code, out, err = relin_command("train", "--check", "--out", "run", *SMALL)
    assert (code, err) == (0, "")
    found = {line.split("  ")[0]: line for line in out.splitlines()}
    assert " yes" in found["can be linearised"]
    assert float(found["largest stable learning rate"].split()[4]) > 0
    assert not (tmp_path / "run").exists()
    code, _, err = relin_command("train", "--check", "--seed", -1, *SMALL)
    assert (code, err.count("\n")) == (2, 1)
    assert "The seed must be from 0" in err


def test_divergence_is_told_and_stored(relin_command, tmp_path):
    options = ["--steps", 40, "--schedule", "every-1", "--rate", 1e30, "--out", "run", "--set", "loss=squared-error"]
    code, out, err = relin_command("train", *options, *SMALL)
    assert (code, err) == (0, "")
    last = pl.read_parquet(tmp_path / "run" / "records.parquet").row(-1, named=True)
    assert last["result"] == "diverged"
    assert f"Training diverged at step {last['diverged_at']}; a lower --rate may not." in out
    assert (tmp_path / "run" / "learning-curve.png").is_file()


def curve(**columns):
    length = len(columns["step"])
    base = {
        "model": "mlp",
        "data": "digits",
        "schedule": "every-10",
        "period": 10.0,
        "learning_rate": 0.1,
        "diverged_at": None,
        "feature_updates": [0, 4, 9][:length],
        **{f"{part}_accuracy": [0.1, 0.5, 0.9][:length] for part in ("test", "validation", "network_test")},
        **{f"{part}_loss": [2.3, 1.0, 0.5][:length] for part in ("train", "test", "validation")},
    }
    return pl.DataFrame(base | columns, schema_overrides={"period": pl.Float64, "diverged_at": pl.Int64})


@pytest.mark.parametrize(
    "columns",
    [
        {"step": [0, 50, 100]},
        {"step": [0]},
        {"step": [0, 50, 100], "period": math.inf, "feature_updates": [0, 0, 0]},
        {"step": [0, 50, 100], "period": None, "schedule": "when-error-0.1"},
        {"step": [0, 50, 100], "test_loss": [2.0, math.inf, math.nan], "diverged_at": 60},
        {"step": [0, 50, 100], "test_loss": [2.0, 0.0, 1e-9]},
        {"step": [0, 50, 100], "test_loss": [2.0, 1e300, math.nan]},
    ],
)
def test_learning_curves_are_drawn_without_a_warning(tmp_path, columns):
    path = write_training_curve(curve(**columns), tmp_path / "new")
    image = matplotlib.image.imread(path)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])[:, :3]
    assert np.ptp(image[..., :3]) > 0.5
    assert np.all(border > 0.99)  # nothing runs over the edge


def test_feature_updates_are_marked_where_the_period_puts_them(tmp_path, rough_figures, monkeypatch):
    monkeypatch.setattr(_figures, "PNG_DPI", rough_figures[0])
    with_marks = matplotlib.image.imread(write_training_curve(curve(step=[0, 50, 100]), tmp_path / "a"))
    without = matplotlib.image.imread(
        write_training_curve(curve(step=[0, 50, 100], feature_updates=[0, 0, 0]), tmp_path / "b")
    )
    accent = np.array([0xA3, 0x45, 0x7F]) / 255
    near = [np.sum(np.all(np.abs(image[..., :3] - accent) < 0.02, axis=-1)) for image in (with_marks, without)]
    assert near[0] > 100
    assert near[1] == 0


def test_time_left_is_told_at_the_speed_of_what_was_computed():
    now = 100.0
    bar = progress_bar(Console(width=80))
    bar.get_time = lambda: now
    task = bar.add_task("studying", total=None, before=0)
    assert _TimeLeft().render(bar.tasks[task]).plain == "-:--:--"
    bar.update(task, completed=600, total=1000, before=600)  # stored by an earlier command
    assert _TimeLeft().render(bar.tasks[task]).plain == "-:--:--"
    now = 160.0
    bar.update(task, completed=700, before=600)
    assert _TimeLeft().render(bar.tasks[task]).plain == "0:03:00"
    bar.update(task, completed=1000, before=600)
    assert _TimeLeft().render(bar.tasks[task]).plain == "0:00:00"
