"""What README.md tells people to type works as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
LONG = ("study", "report", "ntk")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    environment = os.environ | {"RELIN_CACHE": str(tmp_path_factory.mktemp("cache"))}

    def run(arguments, folder):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def test_the_python_example_runs(run, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ended = run(["-c", code], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.strip().rstrip("]").split()[-1]) > 0.9
    assert ended.stdout.startswith("7 ")  # ⌈500/64⌉ − 1 feature updates


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "relin" and c[1] not in LONG], ids=" ".join)
def test_short_commands_run(run, command, tmp_path):
    ended = run(["-m", "relin.cli", *command[1:]], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    if "--out" in command:  # what it saved has a kernel
        (after,) = (other for other in COMMANDS if other[:2] == ["relin", "ntk"])
        ended = run(["-m", "relin.cli", *after[1:]], tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / after[2] / "kernel.npz").is_file()


IN_TURN = """
import contextlib, io, sys
from relin.cli import main
for command in sys.argv[1:]:
    sys.argv = command.split(",")
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main()
    print("model_options" in shown.getvalue(), *sys.argv)
"""


def test_studies_are_accepted(run, tmp_path):
    studies = [c for c in COMMANDS if c[:2] == ["relin", "study"]]
    commands = [c if "--settings" in c else [*c, "--settings"] for c in studies]
    ended = run(["-c", IN_TURN, *map(",".join, commands)], tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [" ".join(["True", *command]) for command in commands]


def test_make_targets_exist():
    targets = [c[1] for c in COMMANDS if c[0] == "make"]
    assert targets == ["study", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
