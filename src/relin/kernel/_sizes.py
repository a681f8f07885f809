"""How many examples and outputs have their features made together, so that a working set holds them."""

import math
from typing import Any, NamedTuple

import jax

from relin.kernel._contract import Features, Gradients, Kind, Products, Rows, num_outputs, pair_bytes

_ROWS = {"full": 64, "mean": 128, "diagonal": 128}
"""Examples in a block: few, so that little is computed twice on the diagonal; enough for fast matrix products."""
_LONG_ROWS = 512
"""The same for features so long that reading them takes the time: better to compute twice than to read twice."""
_IN_CACHE = 5 * 2**20
"""Bytes of what is made of examples at once on CPU, whose cache holds about as much; elsewhere a chunk at once."""
_HELD = 4
"""Chunks that the working set holds, unless one holds everything: all but one are held while the others go past."""


class Sizes(NamedTuple):
    """Numbers of outputs that are differentiated together; of examples in a chunk, whose features are made at once, and
    in a block of the kernel; and of chunks that are held while others go past them."""

    outputs: int
    chunk: int
    at_once: int
    block: int
    held: int


class Sides(NamedTuple):
    """The kernel's numbers of examples."""

    rows: int
    columns: int
    symmetric: bool


def chosen(
    kind: Kind, one: Features, backward: int, sides: Sides, batch_size: int | None, working_set: int, some: bool
) -> Sizes:
    """The sizes for which the least is computed.

    `one` are the features of one example, by shape, and `backward` the bytes that its backward passes take. All outputs
    are taken together, or, if `some`, fewer where the kernel holds no pairs of different outputs: the features of more
    examples are then held.
    """
    outputs = num_outputs(one)
    holding = working_set if kind == "full" else 3 * working_set // 4  # long rows are multiplied whole, and copied
    candidates = [outputs]
    while some and kind != "full" and batch_size is None and candidates[-1] > 1:
        candidates.append(math.ceil(candidates[-1] / 2))
    best = min(candidates, key=lambda c: _operations(one, c, sides, _capacity(_bytes(one, c), holding)))
    stored, backward = _bytes(one, best), backward * best // outputs
    longest = max(sides.rows, sides.columns)
    if batch_size is None:
        chunk, held = _chunks(sides, _capacity(stored, holding))
    else:
        chunk = min(batch_size, longest)
        held = max(1, _capacity(stored, holding) // chunk - 1)
    made = _IN_CACHE if jax.default_backend() == "cpu" else working_set // 2
    at_once = even(chunk, made // max(1, stored + backward))
    pairs = math.isqrt(max(1, working_set // (4 * pair_bytes(one, kind))))
    block, copied = min(pairs, _ROWS[kind]), working_set // max(1, 8 * stored)  # of a block smaller than its chunk
    if kind != "full" and copied < block and chunk <= min(pairs, _LONG_ROWS):
        block = chunk
    elif block < chunk:
        block = min(block, copied)
    return Sizes(best, chunk, at_once, even(chunk, block), held)


def even(total: int, largest: int) -> int:
    """The size of equal blocks of at most `largest`, as few as possible."""
    return math.ceil(total / math.ceil(total / max(1, largest)))


def _bytes(one: Features, outputs: int) -> int:
    """What the features of one example and so many outputs take, given those of all outputs."""

    def size(*leaves: Any) -> int:
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    by_output = [f.value if isinstance(f, Gradients) else f.cotangents for f in one]
    shared = [f.inputs for f in one if isinstance(f, Products)]
    return outputs * size(*jax.tree.leaves(by_output)) // num_outputs(one) + size(*jax.tree.leaves(shared))


def _capacity(stored: int, working_set: int) -> int:
    """How many examples' features are held."""
    return max(2, working_set // max(1, stored))


def _chunks(sides: Sides, capacity: int) -> tuple[int, int]:
    """Examples of a chunk, and how many chunks are held while others go past."""
    longest = max(sides.rows, sides.columns)
    if longest <= (capacity if sides.symmetric else capacity // 2):
        return longest, 1
    chunk = even(longest, max(1, capacity // _HELD))
    return chunk, max(1, capacity // chunk - 1)


def _operations(one: Features, outputs: int, sides: Sides, capacity: int) -> float:
    """What depends on how many outputs are taken together: forward and backward passes, where a backward pass costs
    two forward passes, and the products of layers' inputs, which are made again for each group of outputs."""
    chunk, held = _chunks(sides, capacity)
    later = range(held * chunk, sides.rows, held * chunk)  # where the chunks that are held start, after the first ones
    if sides.symmetric:
        past = sum(max(0, sides.rows - start - chunk) for start in later)
    else:
        past = (len(later) + 1) * sides.columns
    pairs = sides.rows * sides.columns / (2 if sides.symmetric else 1)
    forward, products = _operations_of_one(one)
    groups = math.ceil(num_outputs(one) / outputs)
    return groups * ((sides.rows + past) * (1 + 2 * outputs) * forward + pairs * products)


def _operations_of_one(one: Features) -> tuple[float, float]:
    """Of an example's forward pass, as far as its features tell, and of the products of its layers' inputs with those
    of another example."""
    forward, products = 1.0, 0.0
    for feature in one:
        if isinstance(feature, Gradients):
            forward += 2 * feature.value.shape[1]  # of one position, or more
        elif feature.cotangents is not None:
            _, positions, width = feature.cotangents.shape
            inputs = sum(leaf.shape[1] for leaf in feature.inputs if not isinstance(leaf, Rows))
            forward += 2 * positions * inputs * width
            products += 2 * positions**2 * inputs
    return forward, products
