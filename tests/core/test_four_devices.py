"""Runs on several devices: these have a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLAG = "--xla_force_host_platform_device_count=4"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["four_devices.py", "four_devices_places.py"])
def test_one_run_on_four_devices(file):
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAG}"}
    path = Path(__file__).with_name(file)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert run.returncode == 0, run.stdout[-4000:]
