"""Inputs of one's own data: checked, and brought to the types and scales that networks take."""

from collections.abc import Callable
from typing import Any

import numpy as np

from relin._common.words import listed
from relin.datasets._errors import DatasetError
from relin.datasets._nested import Inputs, leaves, mapped
from relin.datasets._places import check_finite, converted

_CHUNK = 4096
_LARGEST = np.iinfo(np.int32)


def as_inputs(x: Inputs, place: str) -> tuple[Inputs, int]:
    """Arrays of booleans, integers or finite floats, and their common number of examples.

    **Raises:** `DatasetError` for other types, numbers that are not finite, integers beyond 32 bits, arrays of
    different numbers of examples, none at all.
    """
    found = mapped(lambda name, leaf: _leaf(leaf, f"{name} of {place}"), x)
    named = list(leaves(found))
    if not named:
        raise DatasetError(f"x of {place} must hold an array, got none; give one, or a dictionary or tuple of arrays.")
    counts = {len(array) for _, array in named}
    if len(counts) > 1:
        sizes = listed(f"{len(array)} in {name}" for name, array in named)
        raise DatasetError(
            f"All inputs must have the same number of examples, got {sizes} of {place}; check how they were made."
        )
    return found, counts.pop()


def _leaf(values: Any, place: str) -> np.ndarray:
    array = converted(values, place)
    if array.dtype.kind not in "biuf":
        got = f"{array.dtype}, such as {array.flat[0]!s:.40}" if array.size else array.dtype
        raise DatasetError(f"{place} must be numbers, got {got}; encode it as numbers or drop it.")
    if array.ndim == 0:
        raise DatasetError(f"{place} must have the examples on its first axis, got a single number; give an array.")
    if array.dtype.kind == "f":
        check_finite(array, place)
    elif array.dtype.itemsize >= 4 and array.size and not _LARGEST.min <= array.min() <= array.max() <= _LARGEST.max:
        raise DatasetError(f"{place} must be integers of 32 bits, got up to {array.max()}; give floats or less.")
    return array


def check_alike(parts: dict[str, Inputs], name: str) -> None:
    """Raises `DatasetError` unless the inputs of all parts have one structure, and arrays of one shape and type."""
    described = {part: dict(_described(x)) for part, x in parts.items()}
    train = described["train"]
    for part, other in described.items():
        if other != train:
            wrong = next(key for key in (*train, *other) if train.get(key) != other.get(key))
            raise DatasetError(
                f"The inputs of all parts of {name} must be alike, got {wrong} {other.get(wrong, 'missing')} in {part} "
                f"and {train.get(wrong, 'missing')} in train; give the same features in the same order."
            )


def _described(x: Inputs) -> list[tuple[str, str]]:
    kinds = {"b": "booleans", "i": "integers", "u": "integers", "f": "floats"}
    return [
        (name, f"{'bytes' if leaf.dtype == np.uint8 else kinds[leaf.dtype.kind]} of shape {list(leaf.shape[1:])}")
        for name, leaf in leaves(x)
    ]


def scaled(parts: dict[str, Inputs], dtype: Any, standard: bool) -> tuple[dict[str, Inputs], str]:
    """The inputs as networks take them, and one sentence about it.

    Bytes are pixels: (x/255 − m)/s with mean and deviation over all of the training part. With `standard`, columns get
    mean 0 and variance 1 there. Other floats stay as they are, as `dtype`; integers become int32, booleans stay.
    """
    rules, said = {}, {}
    for name, leaf in leaves(parts["train"]):
        rules[name], said[name] = _rule(leaf, np.dtype(dtype), standard)
    several = len(said) > 1
    formula = listed(f"{name}: {text}" if several else text for name, text in said.items())
    return {part: mapped(lambda name, leaf: rules[name](leaf, name), x) for part, x in parts.items()}, formula


def standardiser(train: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, np.ndarray]:
    """(x − m)/s per column, 0 in columns that are constant, with m and s of the training rows."""
    values = train.astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    constant = (values == values[:1]).all(axis=0)  # rounding may leave it a deviation
    return lambda x: (x - mean) / np.where(constant, np.inf, deviation), mean, deviation


def _rule(train: np.ndarray, dtype: np.dtype, standard: bool) -> tuple[Callable[[np.ndarray, str], np.ndarray], str]:
    kind, count = train.dtype.kind, len(train)
    if standard:
        standardise, _, _ = standardiser(train)
        formula = f"(x − m)/s per column, of the {count} training rows"
        return lambda x, name: as_floats(standardise(x), dtype, name), formula
    if train.dtype == np.uint8:
        table, mean, deviation = _pixels(train, dtype)
        return lambda x, _: _looked_up(table, x), (
            f"(x/255 − m)/s with m = {mean:.6g} and s = {deviation:.6g}, the mean and standard deviation over all "
            f"bytes of the {count} training examples"
        )
    if kind == "f":
        taken = "" if train.dtype == dtype else f", {train.dtype} taken as {dtype}"
        return lambda x, name: as_floats(x, dtype, name), f"none{taken}"
    return (lambda x, _: x) if kind == "b" else (lambda x, _: x.astype(np.int32)), "none"


def as_floats(x: np.ndarray, dtype: Any, name: str) -> np.ndarray:
    """The numbers as this type; raises `DatasetError` where it has no room for them."""
    with np.errstate(over="ignore"):
        found = x.astype(dtype, copy=False)
    if found.dtype.itemsize < x.dtype.itemsize and not np.isfinite(found).all():
        largest, got = np.finfo(found.dtype).max, np.abs(x).max()
        raise DatasetError(f"{name} must be below {largest:.3g} to be {found.dtype}, got {got:.3g}; scale it.")
    return found


def _pixels(train: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, float, float]:
    counts = np.zeros(256, np.int64)  # exact sums, whatever the number of pixels
    for start in range(0, len(train), _CHUNK):
        counts += np.bincount(train[start : start + _CHUNK].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(counts @ values / counts.sum())
    deviation = float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())) if (counts > 0).sum() > 1 else 0.0
    return ((values - mean) / (deviation or np.inf)).astype(dtype), mean, deviation


def _looked_up(table: np.ndarray, x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, table.dtype)
    for start in range(0, len(x), _CHUNK):
        np.take(table, x[start : start + _CHUNK], out=out[start : start + _CHUNK], mode="clip")
    return out
