"""Libraries that are installed only for those who use them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(function: str, extra: str) -> Iterator[None]:
    """Imports of an extra's library; says how to install it where it is not."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"relin.{function} needs {error.name or extra}, which is not installed; run pip install 'relin[{extra}]'."
        ) from error
