"""What `load` and `status` return."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


class Examples(NamedTuple):
    """Inputs with their targets, the example first: `x, y = dataset.train`.

    Float32 inputs and int32 classes; tokens, int32 in both, of text; float32 values of shape (examples, 1) of tables.
    """

    x: Float32[np.ndarray, "examples ..."] | Int32[np.ndarray, "examples length"]
    y: Int32[np.ndarray, "examples ..."] | Float32[np.ndarray, "examples 1"]

    def __repr__(self) -> str:
        return f"Examples(x={self.x.dtype}{list(self.x.shape)}, y={self.y.dtype}{list(self.y.shape)})"


class RawExamples(NamedTuple):
    """The same before normalisation: x (examples, …, channels) is uint8 or float64."""

    x: np.ndarray
    y: Int32[np.ndarray, " examples"]

    def __repr__(self) -> str:
        return f"RawExamples(x={self.x.dtype}{list(self.x.shape)}, y={self.y.dtype}{list(self.y.shape)})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in three parts, normalised.

    Attributes:
        name: as `load` takes it.
        train, validation, test: inputs x (float32, channels last) and classes y (int32).
        num_classes: every y lies in 0, …, num_classes − 1; 1 for values to predict.
        normalisation: the formula that was applied to the raw inputs, with its numbers.
        split: one sentence: which examples are in which part.
        vocabulary: the characters that the tokens of a text stand for, in order.
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    num_classes: int
    normalisation: str
    split: str
    vocabulary: str | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={len(getattr(self, part).x)}" for part in ("train", "validation", "test"))
        return f"Dataset({self.name!r}, {sizes}, input_shape={self.input_shape}, num_classes={self.num_classes})"

    @property
    def is_regression(self) -> bool:
        """Whether the targets are values, not classes."""
        return not np.issubdtype(self.train.y.dtype, np.integer)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the example axis."""
        return self.train.x.shape[1:]


@dataclass(frozen=True)
class DatasetStatus:
    """Whether a dataset can be loaded without a download.

    Attributes:
        name: as `load` takes it.
        available: it is on this machine, or can be made on it.
        where: the file or folder it is read from, or the package that provides it; none if it is missing.
        num_examples: of the published dataset, all parts together.
        input_shape: of one input.
        num_classes: C.
        size: bytes its files take on this disk; none where it has no files here.
        how_to_get: one sentence.
    """

    name: str
    available: bool
    where: str | None
    num_examples: int
    input_shape: tuple[int, ...]
    num_classes: int
    size: int | None
    how_to_get: str
