"""The documentation builds strictly, and what it tells people to type runs as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def run(arguments, folder, tmp_path):
    environment = os.environ | {"RELIN_CACHE": str(tmp_path / "cache"), "NO_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_site_builds_strictly(tmp_path):
    ended = run(["-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"], ROOT, tmp_path)
    assert ended.returncode == 0, ended.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    for name in ("relin.train", "relin.from_torch", "relin.kernel.ntk", "relin.SolverState"):
        assert f'id="{name}"' in reference
    assert "iterative linearisation (Goldwaser" in reference


def test_the_reference_names_everything_public():
    import relin

    listed = set(re.findall(r"^::: relin\.([\w.]+)$", PAGES["reference.md"], re.MULTILINE))
    rooms = {"adapters", "datasets", "kernel", "models", "preset"}
    assert set(dir(relin)) - rooms == {name for name in listed if "." not in name}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_every_python_block_runs(page, tmp_path):
    ended = run(["-c", "\n".join(blocks(page, "python"))], tmp_path, tmp_path)
    assert ended.returncode == 0, ended.stderr


COMMANDS = [
    shlex.split(line)
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("relin")
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_accepted(command, tmp_path):
    settings = ["--settings"] if command[1] == "study" and "--settings" not in command else []
    ended = run(["-m", "relin.cli", *command[1:], *settings], tmp_path, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


def test_extras_that_are_named_exist():
    extras = set(re.findall(r"relin\[(\w+)\]", "".join(PAGES.values())))
    named = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    assert extras
    for extra in extras:
        assert re.search(rf"^{extra} = ", named, re.MULTILINE)
