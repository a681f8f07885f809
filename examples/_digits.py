"""Scikit-learn's handwritten digits, for the examples."""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits() -> list[np.ndarray]:
    """Training inputs `(1347, 64)`, test inputs, training classes and test classes."""
    x, y = load_digits(return_X_y=True)
    return train_test_split(x.astype(np.float32) / 16, y, test_size=0.25, random_state=0)


def batches(x: np.ndarray, y: np.ndarray, steps: int, size: int = 64) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The step's number, its inputs and its classes."""
    random = np.random.default_rng(0)
    for step in range(steps):
        chosen = random.integers(0, len(x), size)
        yield step, x[chosen], y[chosen]
