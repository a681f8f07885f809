"""The blocks of a kernel in a file, and whether they are as they were written."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_AT_ONCE = 2**25
"""Bytes of a kernel that are in memory at once, or one row of it."""


class Sizes(NamedTuple):
    """Numbers of examples of each side of a kernel, and of each side of a block."""

    rows: int
    columns: int
    high: int
    wide: int


class Block(NamedTuple):
    """A part of the kernel that is made at once."""

    row: int
    column: int
    rows: int
    columns: int
    mirrored: bool
    """Whether its mirror image is written too: it is off the diagonal of a symmetric kernel."""

    @property
    def name(self) -> str:
        return f"{self.row}, {self.column}"

    @property
    def mirror(self) -> "Block":
        return Block(self.column, self.row, self.columns, self.rows, self.mirrored)

    def of(self, kernel: np.ndarray) -> np.ndarray:
        return kernel[self.row : self.row + self.rows, self.column : self.column + self.columns]


def list_blocks(sizes: Sizes, symmetric: bool) -> list[Block]:
    """Every block of the kernel, each pair once; those at the ends are smaller."""
    return [
        Block(i, j, min(sizes.high, sizes.rows - i), min(sizes.wide, sizes.columns - j), symmetric and j > i)
        for i in range(0, sizes.rows, sizes.high)
        for j in range(i if symmetric else 0, sizes.columns, sizes.wide)
    ]


def pieces(shape: tuple[int, ...], dtype: Any, copies: int = 1) -> Iterator[tuple[int, int]]:
    """Where the rows of such a kernel begin and end that are in memory at once, so many times each."""
    size = max(1, _AT_ONCE // (copies * math.prod(shape[1:]) * np.dtype(dtype).itemsize))
    return ((start, min(start + size, shape[0])) for start in range(0, shape[0], size))


def mirror_image(values: np.ndarray) -> np.ndarray:
    """Θ(x′, x) from Θ(x, x′)."""
    return values.transpose(1, 0, *range(values.ndim - 1, 1, -1))


def digest(parts: Iterable[np.ndarray]) -> str:
    """Of a block, given as its rows from the first to the last, some at a time."""
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).data)
    return f"sha256:{found.hexdigest()}"


def as_written(path: Path, blocks: Iterable[Block], digests: Mapping[str, str]) -> dict[str, str]:
    """The digests of those blocks that are as they were written, on both sides of the diagonal."""
    return {
        block.name: digests[block.name]
        for block in blocks
        if block.name in digests and digest(_alike_on_both_sides(path, block)) == digests[block.name]
    }


def _alike_on_both_sides(path: Path, block: Block) -> Iterator[np.ndarray]:
    """The block's rows up to the first that its mirror image does not repeat."""
    kernel = np.lib.format.open_memmap(path, mode="r")
    for start, stop in pieces(block.of(kernel).shape, kernel.dtype):
        part = block._replace(row=block.row + start, rows=stop - start)
        kernel = np.lib.format.open_memmap(path, mode="r")  # anew, so that what was read leaves the memory
        values = np.array(part.of(kernel))
        if block.mirrored and not np.array_equal(part.mirror.of(kernel), mirror_image(values)):
            return
        yield values
