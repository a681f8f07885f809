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


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "true"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    for name in ("relin.train", "relin.from_torch", "relin.kernel.ntk", "relin.SolverState"):
        assert f'id="{name}"' in reference
    for name in ("relin.Context.predictions", "relin.AbstractSchedule.query", "relin.Solution.save"):  # members too
        assert f'id="{name}"' in reference
    assert "iterative linearisation (Goldwaser" in reference
    results = (tmp_path / "site" / "results" / "index.html").read_text(encoding="utf-8")
    assert "<!-- = " in results, "marks of numbers stay in the page's text"
    assert "&lt;!--" not in results, "and are not shown"


def test_the_reference_names_everything_public():
    import relin

    listed = set(re.findall(r"^::: relin\.([\w.]+)$", PAGES["reference.md"], re.MULTILINE))
    rooms = {"adapters", "datasets", "kernel", "models", "preset"}
    assert set(dir(relin)) - rooms == {name for name in listed if "." not in name}


COMMANDS = [
    shlex.split(line)
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.splitlines()
    if line.startswith("relin")
]
FILES = {
    found[1]: block
    for page in PAGES
    for block in blocks(page, "python")
    if (found := re.match(r"# (\w+\.py)\n", block))
}
"""Code that a page shows as a file, with its name in the first line: commands find it there."""
WITH_CODE = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture(scope="module")
def ends(in_turn):
    jobs = {page: {"code": "\n".join(blocks(page, "python"))} for page in WITH_CODE}
    for command in COMMANDS:
        settings = ["--settings"] if command[1] == "study" and "--settings" not in command else []
        jobs[" ".join(command)] = {"arguments": [*command[1:], *settings], "files": FILES}
    return in_turn(jobs)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_every_python_block_runs(ends, page):
    assert ends[page].code == 0, ends[page].err


@pytest.mark.slow
@pytest.mark.parametrize("command", [" ".join(command) for command in COMMANDS])
def test_every_command_is_accepted(ends, command):
    assert ends[command].code == 0, ends[command].err
    assert ends[command].out.strip()


def test_extras_that_are_named_exist():
    extras = set(re.findall(r"relin\[(\w+)\]", "".join(PAGES.values())))
    named = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    assert extras
    for extra in extras:
        assert re.search(rf"^{extra} = ", named, re.MULTILINE)
