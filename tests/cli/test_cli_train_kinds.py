"""`relin train` of networks with a mode, and on text and tables."""

import json
import sysconfig
from pathlib import Path

import jax
import numpy as np
import optax
import polars as pl
import pytest

import relin as il

pytestmark = pytest.mark.slow

LIBRARY = Path(sysconfig.get_path("stdlib")) / "json"
COMMON = ["--set", "num_records=2", "--steps", "6", "--batch-size", "8", "--schedule", "every-2"]


def test_a_decoder_on_text(relin_command, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "text.py").write_text((LIBRARY / "decoder.py").read_text())
    options = ["--model", "gpt", "--set", "model_options={width=8,depth=1,num_heads=2,dropout=0.1}", *COMMON]
    code, shown, _ = relin_command("train", "--data", "text:corpus", *options, "--out", "run")
    assert code == 0
    assert "accuracy" in shown
    records = pl.read_parquet(tmp_path / "run" / "records.parquet")
    assert records["mode"].unique().to_list() == ["dropout"]
    assert records["linearisation_error"][0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["spec"]["data"] == "text:corpus"


def test_a_table(relin_command, tmp_path):
    options = ["--set", 'loss="squared-error"', "--rate", "0.01", *COMMON]
    code, shown, _ = relin_command("train", "--data", "diabetes", *options, "--out", "table")
    assert code == 0
    assert "accuracy" not in shown
    assert "network" in shown
    assert (tmp_path / "table" / "learning-curve.png").stat().st_size > 10_000
    code, _, told = relin_command("train", "--data", "diabetes", *COMMON)
    assert (code, "values to predict, got cross-entropy" in told) == (2, True)


def test_a_run_is_a_checkpoint(relin_command, tmp_path):
    """What `relin train` saved is where fine-tuning begins, linearised or not."""
    options = ["--set", "model_options={width=8,depth=1}", "--rate", "0.1", *COMMON]
    assert relin_command("train", *options, "--out", "run")[0] == 0
    digits = il.datasets.load("digits")
    apply, fresh = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(5), width=8, depth=1))
    checkpoint = il.load(tmp_path / "run", fresh)
    assert checkpoint.feature_updates == 2
    outputs = apply(checkpoint.params, digits.test.x)
    accuracy = np.mean(np.argmax(outputs, axis=1) == digits.test.y)
    records = pl.read_parquet(tmp_path / "run" / "records.parquet")
    assert accuracy == pytest.approx(records["network_test_accuracy"][-1], abs=1e-6)
    problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.01))
    tuned = il.train(problem, solver, il.Never(), checkpoint.params, digits.train, num_steps=3, key=jax.random.key(0))
    assert tuned.records["training_loss"][-1] < records["train_loss"][-1]


@pytest.mark.slow
def test_batch_statistics_are_kept_with_a_run(relin_command, tmp_path):
    options = [
        "--model",
        "vgg11",
        "--set",
        'model_options={width=2,norm="batch"}',
        "--rate",
        "0.01",
        *COMMON,
    ]
    code, _, told = relin_command("train", *options, "--out", "run")
    assert code == 0, told
    records = pl.read_parquet(tmp_path / "run" / "records.parquet")
    assert records["mode"].unique().to_list() == ["batch statistics"]
    code, shown, told = relin_command("ntk", "run", "--probe", "8")
    assert (code, "distance to step 0" in shown) == (0, True), told
    code, _, told = relin_command("study", "interpolation", *options[:4])
    assert (code, "must be the same at every step" in " ".join(told.split())) == (2, True)
