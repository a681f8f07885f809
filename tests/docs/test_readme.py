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


EXAMPLE, OWN_STUDY = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OWN = """
import jax, optax
import numpy as np

def build(key):
    return lambda params, x: x @ params, jax.random.normal(key, (4, 3))

def load():
    x = np.random.default_rng(0).normal(size=(60, 4))
    return x, np.argmax(x[:, :3], axis=1)

def make(rate):
    return optax.sgd(rate)

x, y = load()
"""
"""What is the reader's own in the README."""
RELIN = [c for c in COMMANDS if c[0] == "relin" and c[1] not in LONG]
STUDIES = [c if "--settings" in c else [*c, "--settings"] for c in COMMANDS if c[:2] == ["relin", "study"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "FILE.py").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def ends(in_turn, folder):
    commands = [*RELIN, *(c for c in COMMANDS if c[:2] == ["relin", "ntk"]), *STUDIES]
    jobs = {" ".join(c): {"arguments": c[1:], "folder": str(folder)} for c in commands}
    short = OWN_STUDY
    for long, quick in (("seeds=5", "seeds=2"), ("steps=2000", "steps=4, batch_size=8"), ("16, 256", "2")):
        assert long in short
        short = short.replace(long, quick)
    codes = {"example": {"code": EXAMPLE}, "own study": {"code": OWN + short, "folder": str(folder)}}
    return in_turn(codes | jobs)


@pytest.mark.slow
def test_the_python_example_runs(ends):
    code, out, err = ends["example"]
    assert code == 0, err
    assert float(out.strip().rstrip("]").split()[-1]) > 0.9
    assert out.startswith("7 ")  # ⌈500/64⌉ − 1 feature updates


@pytest.mark.slow
def test_the_own_study_runs(ends, folder):
    assert ends["own study"].code == 0, ends["own study"].err
    assert (folder / "my-study" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [" ".join(command) for command in RELIN])
def test_short_commands_run(ends, command):
    assert ends[command].code == 0, ends[command].err
    assert ends[command].out.strip()


@pytest.mark.slow
def test_what_was_saved_has_a_kernel(ends, folder):
    (command,) = (c for c in COMMANDS if c[:2] == ["relin", "ntk"])
    assert ends[" ".join(command)].code == 0, ends[" ".join(command)].err
    assert (folder / command[2] / "kernel.npz").is_file()


@pytest.mark.slow
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
