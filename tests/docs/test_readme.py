"""What README.md tells people to type works as it stands there."""

import re
import shlex
import subprocess
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


(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RELIN = [c for c in COMMANDS if c[0] == "relin" and c[1] not in LONG]
STUDIES = [c if "--settings" in c else [*c, "--settings"] for c in COMMANDS if c[:2] == ["relin", "study"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def ends(in_turn, folder):
    commands = [*RELIN, *(c for c in COMMANDS if c[:2] == ["relin", "ntk"]), *STUDIES]
    jobs = {" ".join(c): {"arguments": c[1:], "folder": str(folder)} for c in commands}
    return in_turn({"example": {"code": EXAMPLE}} | jobs)


def test_the_python_example_runs(ends):
    code, out, err = ends["example"]
    assert code == 0, err
    assert float(out.strip().rstrip("]").split()[-1]) > 0.9
    assert out.startswith("7 ")  # ⌈500/64⌉ − 1 feature updates


@pytest.mark.parametrize("command", [" ".join(command) for command in RELIN])
def test_short_commands_run(ends, command):
    assert ends[command].code == 0, ends[command].err
    assert ends[command].out.strip()


def test_what_was_saved_has_a_kernel(ends, folder):
    (command,) = (c for c in COMMANDS if c[:2] == ["relin", "ntk"])
    assert ends[" ".join(command)].code == 0, ends[" ".join(command)].err
    assert (folder / command[2] / "kernel.npz").is_file()


@pytest.mark.parametrize("command", [" ".join(command) for command in STUDIES])
def test_studies_are_accepted(ends, command):
    code, out, err = ends[command]
    assert (code, err) == (0, "")
    assert "model_options" in out


def test_make_targets_exist():
    targets = [c[1] for c in COMMANDS if c[0] == "make"]
    assert targets == ["study", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
