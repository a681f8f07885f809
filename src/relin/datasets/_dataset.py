"""What `load` and `status` return."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from relin.datasets._nested import Inputs, leaves, mapped, num_examples


class Examples(NamedTuple):
    """Inputs with their targets, the example first: `x, y = dataset.train`.

    Float32 inputs and int32 classes; tokens, int32 in both, of text; float32 values of shape (examples, outputs) to
    predict. Inputs of one's own may be int32 or booleans, float64 where these were asked for, and a dictionary or tuple
    of arrays.
    """

    x: Inputs
    y: np.ndarray

    @property
    def num_examples(self) -> int:
        """N, the length of the leading axis."""
        return num_examples(self.x)

    def __repr__(self) -> str:
        x = ", ".join(f"{name}={leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves(self.x))
        return f"Examples({x}, y={self.y.dtype}{list(self.y.shape)})"


class RawExamples(NamedTuple):
    """The same before normalisation: x (examples, …, channels) is uint8 or float64."""

    x: np.ndarray
    y: Int32[np.ndarray, " examples"]

    def __repr__(self) -> str:
        return f"RawExamples(x={self.x.dtype}{list(self.x.shape)}, y={self.y.dtype}{list(self.y.shape)})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in three parts, normalised.

    **Attributes:**

    - `name`: as `load` takes it.
    - `train`, `validation`, `test`: inputs x (float32, channels last) and classes y (int32); for data of one's own see
      `from_arrays`.
    - `num_classes`: every y lies in 0, …, num_classes − 1; for values to predict the number of outputs.
    - `normalisation`: the formula that was applied to the raw inputs, with its numbers.
    - `split`: one sentence: which examples are in which part.
    - `vocabulary`: the characters that the tokens of a text stand for, in order.
    - `classes`: what stands for the classes 0, 1, … in data of one's own, such as text or numbers.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    num_classes: int
    normalisation: str
    split: str
    vocabulary: str | None = None
    classes: tuple[Any, ...] | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={getattr(self, part).num_examples}" for part in ("train", "validation", "test"))
        return f"Dataset({self.name!r}, {sizes}, input_shape={self.input_shape}, num_classes={self.num_classes})"

    @property
    def is_regression(self) -> bool:
        """Whether the targets are values, not classes."""
        return not np.issubdtype(self.train.y.dtype, np.integer)

    @property
    def input_shape(self) -> Any:
        """Shape of one input, without the example axis; of several inputs in their dictionary or tuple."""
        return mapped(lambda _, leaf: leaf.shape[1:], self.train.x)


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a dataset can be loaded without a download.

    **Attributes:**

    - `name`: as `load` takes it.
    - `available`: it is on this machine, or can be made on it.
    - `where`: the file or folder it is read from, or the package that provides it; none if it is missing.
    - `num_examples`: of the published dataset, all parts together.
    - `input_shape`: of one input.
    - `num_classes`: C.
    - `size`: bytes its files take on this disk; none where it has no files here.
    - `how_to_get`: one sentence.
    """

    name: str
    available: bool
    where: str | None
    num_examples: int
    input_shape: tuple[int, ...]
    num_classes: int
    size: int | None
    how_to_get: str
