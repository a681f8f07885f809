"""`from_arrays`: a data set of one's own arrays."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from relin._common.words import listed
from relin.datasets._dataset import Dataset, Examples
from relin.datasets._errors import DatasetError
from relin.datasets._inputs import as_floats, as_inputs, check_alike, scaled, standardiser
from relin.datasets._nested import num_examples, selected
from relin.datasets._places import part_of
from relin.datasets._split import HELD_OUT, split, subset
from relin.datasets._targets import Targets, absent, as_targets, check_targets, encoded, warn_of_absent

_HELD = ("test", "validation")


class Content(NamedTuple):
    """What was read of one's own data.

    **Attributes:**

    - `parts`: (x, y) of `train` and of those of `validation` and `test` that there are.
    - `standard`: whether inputs and values are columns of a table, which get mean 0 and variance 1.
    - `names`: of the classes, where integers stand for these.
    - `note`: what the sentence about the split says beside.
    """

    parts: dict[str, tuple[Any, Any]]
    standard: bool = False
    names: tuple[str, ...] | None = None
    note: str = ""


def from_arrays(
    train: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
    *,
    held_out: float = HELD_OUT,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
    name: str = "arrays",
) -> Dataset:
    """A data set of arrays, checked: pairs (x, y) with the example first.

    **Inputs** x are an array, or a dictionary or tuple of arrays. Floats stay as they are, as `dtype`, float64 too;
    integers become int32, booleans stay; bytes (uint8) are pixels and become (x/255 − m)/s, with m and s over all
    bytes of the training part.

    **Targets** y of integers, booleans or text are classes: class k is the k-th in sorted order of those in the
    training part, and `Dataset.classes` has them. Floats are values to predict, of shape (examples, outputs) or
    (examples,), and stay as they are. Integers of shape (examples, positions, …) are a class at each position, as
    they are.

    **Arguments:**

    - `train`, `validation`, `test`: pairs (x, y). A part that is not given is taken from `train`.
    - `held_out`: the share of `train` that tests, and the share of its others that validates, where these are not
      given; of each class, and then at least one of each.
    - `seed`: of the choice of the held-out examples.
    - `dtype`: float32, or float64 for training in double precision.
    - `name`: of the data set, for messages.

    **Returns:** a `Dataset`.

    **Raises:** `DatasetError` for numbers that are not finite, text among the inputs, parts that are empty or not
    alike, x and y of different numbers of examples, fewer than two classes, classes that the training part lacks,
    one-hot vectors. Warns of classes that the validation or the test part lacks.
    """
    given = {"train": train, "validation": validation, "test": test}
    content = Content({part: pair for part, pair in given.items() if pair is not None})
    return assembled(name, content, held_out, seed, dtype)


def assembled(
    name: str, content: Content, held_out: float = HELD_OUT, seed: int = 0, dtype: DTypeLike = np.float32
) -> Dataset:
    """The data set of what was read; arguments and errors as for `from_arrays`."""
    _check_options(held_out, seed, dtype)
    x, y = {}, {}
    for part, pair in content.parts.items():
        x[part], y[part] = _pair(pair, part_of(name, part, content.parts))
    check_alike(x, name)
    check_targets(y, name)
    missing = [part for part in _HELD if part not in x]
    sizes = "" if not missing else _divide(x, y, missing, held_out, seed)
    targets = encoded(y, x, name, content.names)
    lacks = absent(targets)
    warn_of_absent(lacks, name)
    inputs, formula = scaled(x, dtype, content.standard)
    values, said = _values(targets, dtype, content.standard)
    train, validation, test = (Examples(inputs[part], values[part]) for part in ("train", "validation", "test"))
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        num_classes=targets.num_classes,
        normalisation=formula + said,
        split=f"{sizes or 'All parts were given.'}{content.note}{lacks and f' Warning: {lacks}.'}",
        classes=targets.classes,
    )


def limited(dataset: Dataset, count: int, spread: bool = True) -> Dataset:
    """The data set with `count` training examples: a fixed random choice, of classes each its share, if `spread`; else
    the first.

    **Raises:** `DatasetError` where a class has none left.
    """
    x, y = dataset.train
    kept = subset(y, count) if spread else np.arange(count)
    if dataset.classes and len(lost := np.setdiff1d(y, y[kept])):
        raise DatasetError(
            f"The {count} training examples of {dataset.name} that are kept must have each class, got none of "
            f"{listed(repr(dataset.classes[c]) for c in lost)}; keep more."
        )
    said = f"{dataset.split} Of the training part {count} examples are kept."
    return replace(dataset, train=Examples(selected(x, kept), y[kept]), split=said)


def _check_options(held_out: float, seed: int, dtype: Any) -> None:
    if not 0 < held_out < 1:
        raise DatasetError(f"`held_out` must be a share between 0 and 1, got {held_out!r}; 0.2 is usual.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise DatasetError(f"`seed` must be a whole number from 0 to 2³² − 1, got {seed!r}; 0 is usual.")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise DatasetError(f"`dtype` must be float32 or float64, got {np.dtype(dtype)}; float32 is usual.")


def _pair(pair: Any, place: str) -> tuple[Any, np.ndarray]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DatasetError(f"{place} must be a pair (x, y), got {type(pair).__name__}; give both arrays.")
    x, count = as_inputs(pair[0], place)
    y = as_targets(pair[1], f"y of {place}")
    if count != len(y):
        raise DatasetError(
            f"x and y must have the same number of examples, got {count} and {len(y)} in {place}; check how they were "
            "made."
        )
    if not count:
        raise DatasetError(f"{place} must hold at least one example, got none; check how it was made.")
    return x, y


def _divide(x: dict[str, Any], y: dict[str, np.ndarray], missing: list[str], held_out: float, seed: int) -> str:
    """Takes the missing parts from the training part; says how."""
    targets = y["train"]
    whole = x["train"]
    chosen = split(_groups(targets), missing, held_out, seed)
    for part, examples in chosen.items():
        x[part], y[part] = selected(whole, examples), targets[examples]
    per_class = ", of each class its share," if _groups(targets).ndim == 1 else ""
    counts = " and ".join(f"{num_examples(x[part])} {_VERBS[part]}" for part in missing)
    return (
        f"In a fixed random order (seed {seed}){per_class} {counts} of the {len(targets)} examples "
        f"{'that were given for training' if len(missing) == 1 else 'given'}, and {num_examples(x['train'])} train."
    )


_VERBS = {"test": "test", "validation": "validate", "train": "train"}


def _groups(targets: np.ndarray) -> np.ndarray:
    """The classes to divide by, as integers; of shape (examples, 1) where there are none."""
    if targets.ndim > 1:
        return np.zeros((len(targets), 1))
    return targets


def _values(targets: Targets, dtype: Any, standard: bool) -> tuple[dict[str, np.ndarray], str]:
    """The targets of all parts, and what the sentence about the scales says of them."""
    train = targets.parts["train"]
    if train.dtype.kind != "f":
        return targets.parts, ""
    if not standard:
        return {part: as_floats(y, dtype, "y") for part, y in targets.parts.items()}, ""
    standardise, mean, deviation = standardiser(train)
    scaled = {part: as_floats(standardise(y), dtype, "y") for part, y in targets.parts.items()}
    return scaled, f"; the target has m = {mean[0]:.6g} and s = {deviation[0]:.6g}"
