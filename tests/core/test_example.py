"""The examples a person copies run, and say what they should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["own_loop", "flax_nnx", "flax_linen", "equinox_module", "torch_module"])
def test_example(name):
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    accuracies = [float(found) for found in re.findall(r"test accuracy (0\.\d+)", run.stdout)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.93
    assert abs(accuracies[0] - accuracies[1]) < 0.03


@pytest.mark.fashion_mnist
def test_fine_tuning():
    few = ["--seeds", "1", "--steps", "40", "--examples", "200", "--rates", "0.1"]
    command = [sys.executable, EXAMPLES / "fine_tuning.py", *few]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    rows = re.findall(r"^(.+?)  +(\d+\.\d+) +(\d+) ", run.stdout, re.MULTILINE)
    accuracies = {way.strip(): float(accuracy) for way, accuracy, _ in rows}
    updates = {way.strip(): int(number) for way, _, number in rows}
    assert len(accuracies) == 8
    assert accuracies["K = 1"] > 60
    assert accuracies["K = ∞: linearised at the checkpoint"] > accuracies["K = 1, linearised afterwards"]
    assert (updates["K = 1"], updates["lazy body, head K = 1"]) == (39, 39)
    assert updates["K = ∞: linearised at the checkpoint"] == updates["K = 1, linearised afterwards"] == 0
