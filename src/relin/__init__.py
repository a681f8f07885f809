"""Iterative linearised training on JAX.

Train the first-order Taylor expansion of a network, and re-linearise it only every K steps: K is the dial between lazy
training (K = ∞, no feature learning) and ordinary training (K = 1).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relin._public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """The public names, imported at their first use: `relin --help` need not wait for JAX."""
    if not name.startswith("_"):
        public = import_module("relin._public")
        if hasattr(public, name):
            return getattr(public, name)
    raise AttributeError(f"module 'relin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for name in vars(import_module("relin._public")) if not name.startswith("_"))
