"""The examples a person copies run, and say what they should."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


IN_TWO_LOOPS = ["own_loop", "flax_nnx", "flax_linen", "equinox_module", "torch_module"]
FEW = ["--seeds", "1", "--steps", "40", "--examples", "200", "--rates", "0.1"]


@pytest.fixture(scope="module")
def ends(in_turn):
    return in_turn({name: {"file": str(EXAMPLES / f"{name}.py")} for name in IN_TWO_LOOPS})


@pytest.mark.parametrize("name", IN_TWO_LOOPS)
@pytest.mark.slow
def test_example(ends, name):
    code, out, err = ends[name]
    assert (code, err) == (0, "")
    accuracies = [float(found) for found in re.findall(r"test accuracy (0\.\d+)", out)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.93
    assert abs(accuracies[0] - accuracies[1]) < 0.03


FEWER = {"data": "digits", "steps": "100", "seeds": "2", "alphas": "100 1", "periods": "16", "rates": "0.1"}


@pytest.mark.slow
def test_output_scale(in_turn, tmp_path):
    arguments = [word for name, values in FEWER.items() for word in (f"--{name}", *values.split())]
    arguments += ["--out", str(tmp_path)]
    (end,) = in_turn({"scale": {"file": str(EXAMPLES / "output_scale.py"), "arguments": arguments}}).values()
    assert (end.code, end.err) == (0, "")
    rows = [line.split("\t") for line in end.out.splitlines()[1:] if line]
    assert len(rows) == 8
    moved = {(rates, float(alpha), int(period)): float(change or "nan") for rates, alpha, period, *_, change, _ in rows}
    for rates in ("one for all", "best of each"):
        assert moved[rates, 1, 10**9] == 0 < moved[rates, 100, 1] < 0.1 < moved[rates, 1, 1]
    assert (tmp_path / "output-scale.png").stat().st_size > 10_000


@pytest.mark.fashion_mnist
@pytest.mark.slow
def test_fine_tuning(in_turn):
    (end,) = in_turn({"fine tuning": {"file": str(EXAMPLES / "fine_tuning.py"), "arguments": FEW}}).values()
    assert (end.code, end.err) == (0, "")
    rows = re.findall(r"^(.+?)  +(\d+\.\d+) +(\d+) ", end.out, re.MULTILINE)
    accuracies = {way.strip(): float(accuracy) for way, accuracy, _ in rows}
    updates = {way.strip(): int(number) for way, _, number in rows}
    assert len(accuracies) == 8
    assert accuracies["K = 1"] > 60
    assert accuracies["K = ∞: linearised at the checkpoint"] > accuracies["K = 1, linearised afterwards"]
    assert (updates["K = 1"], updates["lazy body, head K = 1"]) == (39, 39)
    assert updates["K = ∞: linearised at the checkpoint"] == updates["K = 1, linearised afterwards"] == 0


@pytest.mark.slow
def test_gauss_newton(in_turn, tmp_path):
    few = ["--text", str(EXAMPLES.parent / "src" / "relin" / "_solver"), "--iterations", "2", "--window", "4"]
    few += ["--batch", "2", "--length", "8", "--width", "8", "--rates", "0.01", "--seeds", "1"]
    few += ["--out", str(tmp_path)]
    (end,) = in_turn({"gauss-newton": {"file": str(EXAMPLES / "gauss_newton.py"), "arguments": few}}).values()
    assert (end.code, end.err) == (0, "")
    table, losses = (pl.read_csv(tmp_path / f"{name}.csv") for name in ("table", "losses"))
    assert list(table["way"]) == ["Adam", "Muon", "Gauss–Newton", "part by part"]
    assert losses["iteration"].to_list() == 4 * [0, 1, 2]
    assert np.ptp(losses.filter(iteration=0)["validation_loss"].to_numpy()) < 1e-3
    assert losses["validation_loss"].is_between(3, 7).all()  # ln 256 is 5.5
    at_end = losses.filter(iteration=2)["validation_loss"].to_list()
    assert at_end == pytest.approx(table["at the end"].to_list(), abs=1e-3)
    assert (tmp_path / "losses.png").stat().st_size > 1000


TASK_VECTORS = ("checkpoint", "+ δ_1", "+ δ_2", "add", "negate")


@pytest.mark.fashion_mnist
@pytest.mark.slow
def test_task_vectors(in_turn):
    few = ["--seeds", "1", "--steps", "100", "--examples", "500", "--rates", "0.03", "--tested", "1000"]
    (end,) = in_turn({"task vectors": {"file": str(EXAMPLES / "task_vectors.py"), "arguments": few}}).values()
    assert (end.code, end.err) == (0, "")
    found = re.findall(r"^\| (.+) \| (.+) \| (-?[\d.]+).*? \| ([\d.]+).*? \| ([\d.]+).*? \| ", end.out, re.MULTILINE)
    rows = {(way, name): [float(number) for number in numbers] for way, name, *numbers in found}
    assert len(rows) == 15
    for way in ("K = 1", "K = 64", "K = ∞, linearised network"):
        start, one, other, add, negate = (rows[way, name] for name in TASK_VECTORS)
        assert one[1] > start[1]
        assert other[2] > start[2]
        assert min(add[1] - start[1], add[2] - start[2]) > 0
        assert negate[0] < 0
        assert negate[1] < start[1] - 5
        assert negate[2] > 0.9 * start[2]


@pytest.mark.slow
def test_paper_regime(in_turn, tmp_path):
    few = (
        "--data digits --networks mlp --few 32 --many 64 --tested 50 --time 2 --ordinary-rates 0.02 0.1 --adam-steps 40"
    )
    few = [*few.split(), "--seeds", "1", "--out", str(tmp_path)]
    (end,) = in_turn({"regime": {"file": str(EXAMPLES / "paper_regime.py"), "arguments": few}}).values()
    assert (end.code, end.err) == (0, "")
    table = pl.read_csv(tmp_path / "table.csv")
    assert table.filter(ended=1).select("loss", "period", "feature_updates").rows() == [
        ("SquaredError", 20, 99),
        ("SquaredError", 200, 9),
        ("SquaredError", 0, 0),
        ("SquaredError", 1, 99),
        ("CrossEntropy", 1, 39),
        ("CrossEntropy", 4, 9),
        ("CrossEntropy", 0, 0),
    ]
    assert table.filter(ended=0).select("rate", "test_accuracy").rows() == [(0.1, None)]  # it diverged
    assert (tmp_path / "paper-regime.png").stat().st_size > 10_000
