"""Targets of one's own data: classes, of whatever type they are, or values."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from relin._common.words import listed
from relin.datasets._errors import DatasetError
from relin.datasets._places import check_finite, converted, part_of

_LARGEST = 2**31 - 1
_AS_VALUES = "(integers are classes: give values to predict as floats)"


class Targets(NamedTuple):
    """Those of every part, as they are trained on.

    **Attributes:**

    - `parts`: int32 classes, of shape (examples, …), or values of shape (examples, …, outputs).
    - `num_classes`: the number of classes, or of outputs.
    - `classes`: what stands for the classes 0, 1, … in the data; none for values and for classes by position.
    """

    parts: dict[str, np.ndarray]
    num_classes: int
    classes: tuple[Any, ...] | None = None


def as_targets(y: Any, place: str) -> np.ndarray:
    """Booleans, integers or text of shape (examples, …), or floats of shape (examples, …, outputs), one at least.

    **Raises:** `DatasetError` for other types, numbers that are not finite, one-hot vectors.
    """
    y = converted(y, place)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "biuUf":
        raise DatasetError(f"{place} must be classes or values, got {y.dtype}; give integers, text or floats.")
    if y.ndim == 0:
        raise DatasetError(f"{place} must have one target for each example, got a single {y[()]!r}; give an array.")
    if y.dtype.kind == "f":
        check_finite(y, place)
        y = y[:, None] if y.ndim == 1 else y
    elif y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind != "U" and _is_one_hot(y):
        raise DatasetError(f"{place} must be classes by number, got one-hot vectors; give numpy.argmax(y, axis=1).")
    return y


def check_targets(parts: dict[str, np.ndarray], name: str) -> None:
    """Raises `DatasetError` for parts of different type or shape, and for classes by position that are not numbered."""
    train = parts["train"]
    for part, y in parts.items():
        if _kind(y) != _kind(train) or y.shape[1:] != train.shape[1:]:
            raise DatasetError(
                f"The targets of all parts of {name} must be alike, got {y.dtype}{list(y.shape)} in {part} and "
                f"{train.dtype}{list(train.shape)} in train; give the same type and shape {_AS_VALUES}."
            )
        if y.ndim == 1 or y.dtype.kind == "f":
            continue
        if y.dtype.kind == "U":
            raise DatasetError(f"Classes by position must be integers, got text in {name}; number them from 0.")
        if (wrong := np.argwhere((y < 0) | (y >= _LARGEST))).size:
            raise DatasetError(
                f"Classes by position must be numbered from 0, got {y[tuple(wrong[0])]} at example {wrong[0][0]} of "
                f"{part_of(name, part, parts)}; give every position a class (none is left out of the loss)."
            )


def encoded(parts: dict[str, np.ndarray], tokens: dict[str, Any], name: str, names: tuple[str, ...] | None) -> Targets:
    """Targets of every part, by what is in the training part.

    A class gets its number in the sorted order of the training part's classes. Classes by position, such as the next
    token at each, keep theirs.

    **Arguments:** `tokens`: the inputs of every part, which share the classes where they are integers of the same
    shape; `names`: of the classes, where integers stand for these.

    **Raises:** `DatasetError` for fewer than two classes, or classes that are not in the training part.
    """
    train = parts["train"]
    if train.dtype.kind == "f":
        return Targets(parts, train.shape[-1])
    if train.ndim > 1:
        return _by_position(parts, tokens, name)
    classes = np.unique(train)
    _check_number(len(classes), name, f"only {classes[0].item()!r}" if len(classes) else "none")
    spelt = tuple(names[c] if names and 0 <= c < len(names) else c for c in classes.tolist())
    return Targets({part: _numbered(y, classes, part, name) for part, y in parts.items()}, len(classes), spelt)


def absent(targets: Targets) -> str:
    """Says which classes of the training part a part lacks; nothing where all are there."""
    said = []
    for part, y in targets.parts.items():
        lacks = np.setdiff1d(np.arange(targets.num_classes), y) if targets.classes else []
        if len(lacks):
            said.append(f"{part} has no example of {listed(repr(targets.classes[c]) for c in lacks)}")  # pyright: ignore[reportOptionalSubscript]
    return "; ".join(said)


def warn_of_absent(lacks: str, name: str) -> None:
    """A study that chooses by such a part never sees these classes."""
    if lacks:
        message = f"In {name}, {lacks}: what is measured there says nothing of these classes; add examples of them."
        warnings.warn(message, UserWarning, stacklevel=4)


def _kind(y: np.ndarray) -> str:
    return "i" if y.dtype.kind in "iu" else y.dtype.kind


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(len(y) and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _numbered(y: np.ndarray, classes: np.ndarray, part: str, name: str) -> np.ndarray:
    unseen = np.setdiff1d(y, classes)
    if len(unseen):
        raise DatasetError(
            f"The {part} part of {name} has classes that the training part lacks, "
            f"{listed(map(repr, unseen.tolist()))}; drop these examples, or train on some {_AS_VALUES}."
        )
    return np.searchsorted(classes, y).astype(np.int32)


def _by_position(parts: dict[str, np.ndarray], tokens: dict[str, Any], name: str) -> Targets:
    last = 0
    for part, y in parts.items():
        x = tokens[part]
        shared = isinstance(x, np.ndarray) and x.dtype.kind in "iu" and x.shape == y.shape
        last = max(last, y.max(initial=0), x.max(initial=0) if shared else 0)
    _check_number(int(last) + 1, name, "only 0")
    return Targets({part: y.astype(np.int32) for part, y in parts.items()}, int(last) + 1)


def _check_number(count: int, name: str, got: str) -> None:
    if count < 2:
        raise DatasetError(f"The training part of {name} must have at least two classes, got {got}; add examples.")
