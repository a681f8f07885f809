"""Arrays as they were given, and where in them something is wrong."""

from collections.abc import Collection
from typing import Any

import numpy as np

from relin.datasets._errors import DatasetError


def part_of(name: str, part: str, parts: Collection[str]) -> str:
    """What messages call a part of data, which may be their only one."""
    return name if len(parts) == 1 else f"the {part} part of {name}"


def converted(values: Any, place: str) -> np.ndarray:
    """An array; raises `DatasetError` for what is none, such as rows of different length."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DatasetError(f"{place} must be one array ({reason}); give rows of one shape.") from None
    if array.dtype.kind == "O" and array.size and all(isinstance(value, str) for value in array.flat):
        return array.astype(str)
    if array.dtype.kind == "O":
        raise DatasetError(f"{place} must be an array of numbers, got Python objects; give rows of one shape and type.")
    # Types such as bfloat16 are NumPy's guests.
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        return array.astype(np.float32)
    return array


def check_finite(array: np.ndarray, place: str) -> None:
    """Raises `DatasetError` for the first number that is none or not finite."""
    finite = np.isfinite(array)
    if finite.all():
        return
    example, *position = (int(i) for i in np.argwhere(~finite)[0])
    inside = f", position {position}" if position else ""
    raise DatasetError(
        f"{place} must be finite, got {array[example, *position]} at example {example}{inside} (counted from 0); "
        "repair or drop it."
    )
