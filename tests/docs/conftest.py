import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

Ended = namedtuple("Ended", "code out err")


@pytest.fixture(scope="session")
def in_turn(tmp_path_factory):
    """Runs jobs, each under its name in a folder of its own, in one process apart; gives how each ended."""

    def run(jobs):
        folder = tmp_path_factory.mktemp("in-turn")
        environment = os.environ | {"RELIN_CACHE": str(folder / "cache"), "COLUMNS": "80"}
        listed = [
            {"name": name, "folder": str(folder / f"{number}")} | job for number, (name, job) in enumerate(jobs.items())
        ]
        command = [sys.executable, Path(__file__).parent / "in_turn.py"]
        done = subprocess.run(
            command, env=environment, input=json.dumps(listed), capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        return {name: Ended(**end) for name, end in zip(jobs, json.loads(done.stdout.splitlines()[-1]), strict=True)}

    return run
