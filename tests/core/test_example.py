"""The example a person copies runs, and says what it should."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"


def test_own_loop():
    run = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    accuracies = [float(found) for found in re.findall(r"test accuracy (0\.\d+)", run.stdout)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.93
    assert abs(accuracies[0] - accuracies[1]) < 0.03
