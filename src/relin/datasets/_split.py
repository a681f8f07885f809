"""Which examples validate and test where the data do not say so, and which are kept of a limited number."""

import numpy as np

from relin._common.words import listed
from relin.datasets._errors import DatasetError

HELD_OUT = 0.2
"""A fifth of the examples tests, and of the others a fifth validates."""


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of which every prefix has the classes in their proportions.

    Within its class an example gets a random rank r, and examples are sorted by (r + ½)/(class size).
    """
    # RandomState's stream is frozen for good, which default_rng's is not (NumPy's NEP 19).
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(position, kind="stable")


def split(targets: np.ndarray, missing: list[str], held_out: float, seed: int) -> dict[str, np.ndarray]:
    """The examples of `train` and of each missing part, "test" and "validation", in a fixed random order.

    Of every class at least one example is in each part; of targets that are no classes, one an example, a part gets
    its share of all.

    **Raises:** `DatasetError` where there are too few.
    """
    left = np.random.RandomState(seed).permutation(len(targets))
    groups = [left]
    if targets.ndim == 1 and targets.dtype.kind in "biuU":
        names, members = np.unique(targets[left], return_inverse=True)
        groups = [left[members == number] for number in range(len(names))]
        few = [name.item() for name, group in zip(names, groups, strict=True) if len(group) <= len(missing)]
        if few:
            raise DatasetError(
                f"Each class needs at least {len(missing) + 1} examples, one for each of training, "
                f"{' and '.join(reversed(missing))}, got fewer of {listed(map(repr, few))}; drop or merge these "
                "classes, or give the parts yourself (integers are classes: give values to predict as floats)."
            )
    parts: dict[str, list[np.ndarray]] = {}
    for group in groups:
        for name in missing:
            count = max(int(len(group) * held_out), len(groups) > 1)
            parts.setdefault(name, []).append(group[:count])
            group = group[count:]
        parts.setdefault("train", []).append(group)
    order = np.argsort(left)
    found = {name: _in_order(np.concatenate(chosen), order) for name, chosen in parts.items()}
    if empty := [name for name, chosen in found.items() if not len(chosen)]:
        raise DatasetError(
            f"The {len(targets)} examples are too few to hold out {held_out:g} of them for {' and '.join(empty)}; use "
            "more, or give the parts yourself."
        )
    return found


def _in_order(chosen: np.ndarray, order: np.ndarray) -> np.ndarray:
    return chosen[np.argsort(order[chosen])]


def subset(targets: np.ndarray, count: int) -> np.ndarray:
    """`count` examples, in their own order: of classes, each in its proportion; else a fixed random choice."""
    classes = targets.ndim == 1 and targets.dtype.kind in "biu"
    order = stratified(targets, 0) if classes else np.random.RandomState(0).permutation(len(targets))
    return np.sort(order[:count])
