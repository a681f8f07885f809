"""The reference: everything public is in it, and each part of it says what it takes, in one style."""

import enum
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"reference.md": "relin", "reference/study.md": "relin.study", "reference/report.md": "relin.report"}
LISTED = {
    page: re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES
}
NAMES = [name for names in LISTED.values() for name in names]
ROOMS = ("kernel", "models", "datasets")


def found(name):
    package, _, last = name.rpartition(".")
    return getattr(import_module(package), last)


@pytest.mark.parametrize("package", ["relin.study", "relin.report", *(f"relin.{room}" for room in ROOMS)])
def test_everything_public_is_listed(package):
    listed = {name.rpartition(".")[2] for name in NAMES if name.rpartition(".")[0] == package}
    assert {name for name in dir(import_module(package)) if not name.startswith("_")} == listed


def documented(thing):
    """All that the page shows of a class or function, without what its methods say of themselves."""
    from tools.reference import texts

    own = inspect.getdoc(thing) or ""
    if not inspect.isclass(thing):
        return own
    fields = [
        f"`{name}`: {text}"
        for base in thing.__mro__
        if base.__module__.startswith("relin")
        for name, text in texts(base).items()
    ]
    return "\n".join([own, inspect.getdoc(thing.__init__) or "", *fields])


OF_OTHERS = ("as for `", "as `")
"""A docstring that says so leaves its arguments to the one that it names."""


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_explained(name):
    thing = found(name)
    words = documented(thing)
    assert words.strip(), "has no docstring"
    if inspect.isclass(thing) and issubclass(thing, Exception | str | enum.Enum):
        return
    try:
        arguments = inspect.signature(thing).parameters.values()
    except ValueError:  # made by C code
        return
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", words))))
    open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    missing = [a.name for a in arguments if a.name not in named and a.kind not in open_ended]
    assert not missing or any(mark in words for mark in OF_OTHERS), missing


def test_public_methods_are_explained():
    silent = [
        f"{name}.{attribute}"
        for name in NAMES
        if inspect.isclass(thing := found(name))
        for attribute, value in vars(thing).items()
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        if not inspect.getdoc(getattr(thing, attribute))
    ]
    assert not silent


def test_docstrings_have_one_style():
    other = re.compile(
        r"^ +(Args|Arguments|Parameters|Returns|Raises|Attributes|Yields):$|^ +-{4,}$|:param ", re.MULTILINE
    )
    sources = list((ROOT / "src").rglob("*.py"))
    assert len(sources) > 100
    assert not [path for path in sources if other.search(path.read_text(encoding="utf-8"))]
