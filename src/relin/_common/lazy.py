"""Packages whose public names are imported at their first use, so that what needs none of them need not wait."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any


def names_of(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names are those of this module."""
    package = module.rpartition(".")[0]

    def getattr_(name: str) -> Any:
        if name == "__version__" and package == "relin":
            return version(package)
        if not name.startswith("_"):
            public = import_module(module)
            if hasattr(public, name):
                return getattr(public, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        return sorted(name for name in vars(import_module(module)) if not name.startswith("_"))

    return getattr_, dir_
