"""What makes it a package: imports are declared, extras are needed only where asked for, it runs as a module."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_architecture import MODULES, imported, name_of, run_on_import

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
OF_DEVELOPERS = {"docs", "test"}


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


CORE = names(PROJECT["dependencies"])
EXTRAS = names(need for extra, needs in OPTIONAL.items() if extra not in OF_DEVELOPERS for need in needs) - CORE


@pytest.fixture(scope="module", name="distributions")
def named_distributions():
    """The names, as pyproject.toml writes them, of what provides each package that is installed."""
    return {package: {canonicalize_name(n) for n in found} for package, found in packages_distributions().items()}


@cache
def packages(path, nodes=ast.walk):
    """The packages that a module imports, other than Python's and relin's."""
    return {name.split(".")[0] for name in imported(path, nodes)} - sys.stdlib_module_names - {"relin"}


def undeclared(path, distributions):
    """What a module imports that pyproject.toml does not name."""
    return {name for name in packages(path) if not distributions.get(name, {name}) & (CORE | EXTRAS)}


def test_every_import_is_declared(distributions):
    found = {name_of(path): missing for path in MODULES if (missing := undeclared(path, distributions))}
    assert not found, "add the package to pyproject.toml, or do without it"


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_what_locked_packages_need_on_macos_alone_is_locked(version):
    texts = [(ROOT / "requirements" / f"python{version}{of}.txt").read_text(encoding="utf-8") for of in ("", "-tests")]
    locked = {canonicalize_name(name) for text in texts for name in re.findall(r"^([^\s#=]+)==", text, re.MULTILINE)}
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
    macos = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "extra": ""}
    needs = [
        Requirement(text)
        for each in distributions()
        if canonicalize_name(each.name) in locked
        for text in each.requires or ()
    ]
    on_macos = {n.name for n in needs if n.marker and n.marker.evaluate(macos) and not n.marker.evaluate(linux)}
    assert not on_macos - locked, "add it to tools/lock, as appnope is"


def test_an_undeclared_import_is_found(distributions, tmp_path, monkeypatch):
    monkeypatch.setattr("test_architecture.ROOT", tmp_path)
    (tmp_path / "some.py").write_text("import numpy\ndef call():\n    import urllib3\n    from PIL import Image")
    assert undeclared(tmp_path / "some.py", distributions) == {"urllib3"}


def test_every_dependency_is_imported(distributions):
    assert set().union(*(distributions[name] for path in MODULES for name in packages(path))) >= CORE


def test_extras_wait_until_they_are_asked_for(distributions):
    """Only what users of PyTorch and Flax import, or the adapter where it is called, imports an extra at once."""
    of_extras = {name for name, found in distributions.items() if found & EXTRAS}
    assert {"torch", "flax", "wandb"} <= of_extras
    need = {name_of(path) for path in MODULES if packages(path, run_on_import) & of_extras}
    assert need
    edges = {name_of(path): set(imported(path, run_on_import)) for path in MODULES}
    while more := {name for name, below in edges.items() if need & below} - need:
        need |= more
    asked_for = ("relin.adapters._torch_", "relin.torch", "relin.nnx", "relin.linen")
    assert all(name.startswith(asked_for) for name in need), need


@pytest.mark.parametrize(
    "code", [["-m", "relin"], ["-c", "from relin.cli import main; main()"]], ids=["module", "command"]
)
def test_it_says_its_version(code):
    ended = subprocess.run([sys.executable, *code, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"relin {PROJECT['version']}\n", ended.stdout)


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


WORKFLOWS = [path.relative_to(ROOT).as_posix() for path in (ROOT / ".github" / "workflows").glob("*.yml")]


@pytest.mark.parametrize("path", [*WORKFLOWS, ".ci/run"])
def test_what_others_run_can_be_run_here(path):
    """Workflows and .ci/run call targets of the Makefile, scripts and variables that exist."""
    text = read(path)
    lines = text.splitlines() if path == ".ci/run" else list(steps(yaml.safe_load(text)))
    called = [line.split() for line in lines if line.startswith("make ")]
    assert called or ".ci/run" in lines
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    for word in (word for words in called for word in words[1:]):
        name, equals, _ = word.partition("=")
        assert name == "PYTHON" if equals else name in phony[1].split(), word
    for script in re.findall(r"\.ci/run|tools/[\w-]+", " ".join(lines)):
        assert (ROOT / script).is_file(), script


def steps(workflow):
    for job in workflow["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def test_the_workflows_take_every_python_that_is_declared():
    declared = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language")}
    matrix = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == declared
    assert PROJECT["requires-python"] == f">={min(declared, key=lambda text: int(text.split('.')[1]))}"
