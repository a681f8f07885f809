"""Nothing is lost, and nothing comes out otherwise, of what is killed at random moments."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 6


@pytest.mark.slow
def test_killed_work_goes_on_to_the_same_bits():
    command = [sys.executable, "-m", "tools.kills", "--kills", str(KILLS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ended.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["study", "run", "kernel"]
    numbers = [[int(cell) for cell in row[1:]] for row in rows]
    assert sum(kills for kills, *_ in numbers) == KILLS
    assert all(ends >= 1 for _, _, ends, _, _ in numbers)
    assert sum(between for _, between, *_ in numbers) >= 1
    assert all(lost == different == 0 for *_, lost, different in numbers)
