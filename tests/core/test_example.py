"""The examples a person copies run, and say what they should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["own_loop", "flax_nnx", "flax_linen", "equinox_module"])
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
