"""Small files that would fill the memory."""

from pathlib import Path

from relin.datasets._errors import DatasetError

_ALWAYS, _TIMES = 1 << 30, 100
"""A compressed file may expand to a gibibyte, or to a hundred times its size where that is more."""


def check_expansion(path: Path, expanded: int, size: int) -> None:
    """Raises `DatasetError` for a file of `size` bytes that says that its content takes far more."""
    if expanded > max(_ALWAYS, _TIMES * size):
        raise DatasetError(
            f"{path} has {size:,} bytes that would expand to {expanded:,}, more than {_TIMES} times as many; store it "
            "without compression if that is meant."
        )
