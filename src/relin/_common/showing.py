"""What objects show in a notebook is drawn by `relin.report`, above them all, imported where it is asked for."""

from importlib import import_module
from typing import Any


def notebook() -> Any:
    """The module of figures and tables; it needs Matplotlib, not JAX."""
    return import_module("relin.report._notebook")
