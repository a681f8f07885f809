"""The files for batch systems: what they start are commands that share a study."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ("seeds=2", "select_seeds=1", "num_records=2", "probe_size=8", "train_limit=64", "batch_size=16", "periods=[1]")
TINY += ("model_options={width = 4, depth = 1}", "learning_rates=[0.1, 0.03]", "sparse_periods=[8]", "tolerances=[]")
STUDY = ["frequency", "--steps", "8", "--out", "study", *(word for each in TINY for word in ("--set", each))]
SRUN = """while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
PARALLEL = """import subprocess, sys
at, end = sys.argv.index("relin"), sys.argv.index(":::")
for value in sys.argv[end + 1 :]:
    subprocess.run([word.replace("{}", value) for word in sys.argv[at:end]], check=True)
"""


@pytest.fixture
def started(tmp_path):
    """Runs a file of the examples with `relin`, and with stand-ins for what starts it where that is not installed."""
    commands = {"relin": f'exec "{sys.executable}" -m relin.cli "$@"\n', "srun": SRUN}
    for name, text in commands.items():
        _executable(tmp_path / "bin" / name, f"#!/bin/sh\n{text}")
    if shutil.which("parallel") is None:
        _executable(tmp_path / "bin" / "parallel", f"#!{sys.executable}\n{PARALLEL}")

    def start(name, *arguments, **variables):
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "RELIN_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
        command = ["bash", EXAMPLES / name, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | variables, capture_output=True, text=True, check=False
        )

    return start


def _executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["slurm.sbatch", "gnu-parallel.sh"])
def test_syntax(name):
    subprocess.run(["bash" if name.endswith("sbatch") else "sh", "-n", EXAMPLES / name], check=True)


@pytest.mark.slow
def test_gnu_parallel(started, tmp_path):
    ended = started("gnu-parallel.sh", *STUDY, SHARDS="2")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Report: study/report.html" in ended.stdout
    assert (tmp_path / "study" / "report.html").exists()


@pytest.mark.slow
def test_slurm(started):
    array = {"ID": "16", "MIN": "1", "MAX": "16", "COUNT": "16", "STEP": "1"}
    variables = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    ended = started("slurm.sbatch", *STUDY, "--settings", SLURM_CPUS_PER_TASK="4", **variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "select_seeds" in ended.stdout
    ended = started("slurm.sbatch", *STUDY, "--settings", **variables | {"SLURM_ARRAY_TASK_COUNT": "9"})
    assert ended.returncode == 2
    assert "must have consecutive numbers" in ended.stderr
