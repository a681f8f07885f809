"""The kernel block by block, in memory bounded by the result and a working set."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from relin._types import Inputs, Params
from relin.kernel._contract import Features, Kind, contract, in_order, pair_bytes
from relin.kernel._features import features_of_one

Result = dict[str, Array]

_ROWS = {"full": 64, "mean": 128, "diagonal": 128}
"""Examples in a block: few, so that little is computed twice on the diagonal; enough for fast matrix products."""
_IN_CACHE = 5 * 2**20
"""Bytes of what is made of examples at once on CPU, whose cache holds about as much; elsewhere a chunk at once."""


class Request(eqx.Module):
    """What is asked for: `apply`, the kind of outputs, whether parts by tensor, and whether the two sides are one."""

    apply: Callable
    outputs: str | int = eqx.field(static=True)
    per_layer: bool = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)

    @property
    def kind(self) -> Kind:
        """One output alone is the mean over itself."""
        return self.outputs if isinstance(self.outputs, str) else "mean"  # pyright: ignore[reportReturnType]


class Sizes(NamedTuple):
    """Numbers of examples: a chunk's, whose features are held together, those whose features are made at once, a
    block's of the kernel; and how many chunks are held."""

    chunk: int
    at_once: int
    block: int
    held: int


def kernel_in_blocks(
    request: Request, params: Params, x1: Inputs, x2: Inputs, batch_size: int | None, working_set: int
) -> Result:
    """The kernel by tensor, or the whole under the key ``""``.

    Features are made for a chunk of examples at a time, held where those of all chunks fit the working set and made
    again otherwise. The kernel of two chunks is filled in by a loop over blocks.
    """
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x1)
    one, backward = eqx.filter_eval_shape(_one, request, params, example)
    rows, columns = (jax.tree.leaves(x)[0].shape[0] for x in (x1, x2))
    sizes = _sizes(request.kind, one, backward, max(rows, columns), batch_size, working_set)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((request, params, x1, x2)))
    fill, make = (_fill, _many) if traced else (_fill_in_place, _many_in_place)
    held: dict[tuple[bool, int], Features] = {}

    def features(right: bool, start: int) -> Features:
        name = (right and not request.symmetric, start)
        if name not in held:
            if len(held) == sizes.held:
                del held[next(iter(held))]  # the one not used for longest
            x = jax.tree.map(lambda a: a[start : start + sizes.chunk], x2 if right else x1)
            held[name] = make(request, params, x, one, sizes.at_once)
        held[name] = held.pop(name)
        return held[name]

    result = _empty(request.kind, request.per_layer, one, rows, columns)
    for i, j in _walk(list(_starts(rows, sizes.chunk)), list(_starts(columns, sizes.chunk)), request.symmetric):
        left, right = features(False, i), features(True, j)
        blocks = _pairs(i, j, left, right, sizes.block, request.symmetric and i == j)
        result = fill((left, right, blocks, sizes.block, request.kind, request.per_layer, request.symmetric), result)
        del left, right  # else a chunk no longer held would live until the next ones are made
    return result


def _sizes(
    kind: Kind, one: Features, backward: int, num_examples: int, batch_size: int | None, working_set: int
) -> Sizes:
    """Chunks of which two fill the working set at most; blocks whose products fill a quarter of it."""
    stored = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    chunk = _even(num_examples, batch_size or max(1, working_set // max(1, 2 * stored)))
    made = _IN_CACHE if jax.default_backend() == "cpu" else working_set // 2
    at_once = _even(chunk, max(1, made // max(1, stored + backward)))
    block = _even(chunk, min(math.isqrt(max(1, working_set // (4 * pair_bytes(one, kind)))), _ROWS[kind]))
    if block < chunk:  # a block's features are then copied, which takes a quarter too
        block = min(block, _even(chunk, working_set // max(1, 8 * stored)))
    held = max(2, working_set // max(1, chunk * stored))
    return Sizes(chunk, at_once, block, held)


def _even(total: int, largest: int) -> int:
    """The size of equal blocks of at most `largest`, as few as possible."""
    return math.ceil(total / math.ceil(total / max(1, largest)))


def _starts(total: int, size: int) -> Iterator[int]:
    """Starts of blocks of one size; the last is shifted back so that it ends at the end."""
    for start in range(0, total, size):
        yield max(0, min(start, total - size))


def _walk(rows: list[int], columns: list[int], symmetric: bool) -> Iterator[tuple[int, int]]:
    """Every pair of chunks, to and fro, so that a row begins with the chunk that the row before ended with."""
    for number, i in enumerate(rows):
        across = [j for j in columns if not symmetric or j >= i]
        yield from ((i, j) for j in (reversed(across) if number % 2 else across))


def _pairs(i: int, j: int, left: Features, right: Features, size: int, same: bool) -> Int[np.ndarray, "pairs 4"]:
    """Every block of the kernel of two chunks that start at i and j: its start in the chunks and in the result."""
    rows, columns = (jax.tree.leaves(side)[0].shape[0] for side in (left, right))
    starts = [(a, b) for a in _starts(rows, size) for b in _starts(columns, size) if not same or b >= a]
    return np.asarray([(a, b, i + a, j + b) for a, b in starts], np.int32)


def _empty(kind: Kind, per_layer: bool, one: Features, rows: int, columns: int) -> Result:
    batched = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), one)
    parts = jax.eval_shape(lambda f: in_order(contract(f, f, kind, per_layer), kind), batched)
    return {name: jnp.zeros((rows, columns, *part.shape[2:]), part.dtype) for name, part in parts.items()}


@eqx.filter_jit
def _one(request: Request, params: Params, x: Inputs) -> tuple[Features, int]:
    with jax.default_matmul_precision("highest"):
        return features_of_one(request.apply, request.outputs, request.per_layer, params, x)


def _many(request: Request, params: Params, x: Inputs, one: Features, at_once: int) -> Features:
    """The features of a chunk of examples, in one program."""
    return _made(request, params, x)


def _many_in_place(request: Request, params: Params, x: Inputs, one: Features, at_once: int) -> Features:
    """The features of a chunk of examples, some at a time: loops on the device are slow for convolutions on CPU."""
    num_examples = jax.tree.leaves(x)[0].shape[0]
    if num_examples <= at_once:
        return _made(request, params, x)
    whole = jax.tree.map(lambda leaf: jnp.zeros((num_examples, *leaf.shape), leaf.dtype), one)
    for start in _starts(num_examples, at_once):
        piece = jax.tree.map(lambda a, start=start: a[start : start + at_once], x)
        whole = _put(_made(request, params, piece), start, whole)
    return whole


@eqx.filter_jit
def _made(request: Request, params: Params, x: Inputs) -> Features:
    return jax.vmap(lambda x: _one(request, params, x)[0])(x)


@partial(jax.jit, donate_argnums=2)
def _put(piece: Features, start: Array, whole: Features) -> Features:
    return jax.tree.map(lambda w, p: jax.lax.dynamic_update_slice_in_dim(w, p, start, 0), whole, piece)


def _fill_blocks(operands: tuple, result: Result) -> Result:
    left, right, blocks, size, kind, per_layer, symmetric = operands

    def fill(number: Array, result: Result) -> Result:
        a, b, i, j = blocks[number]
        rows, columns = (_block(side, start, size) for side, start in ((left, a), (right, b)))
        parts = contract(rows, columns, kind, per_layer)
        if symmetric:  # first, so that the diagonal's blocks are written last as they were computed
            mirrored = in_order({name: _mirrored(part) for name, part in parts.items()}, kind)
            result = jax.tree.map(lambda whole, part: _write(whole, part, j, i), result, mirrored)
        return jax.tree.map(lambda whole, part: _write(whole, part, i, j), result, in_order(parts, kind))

    blocks = jnp.asarray(blocks)
    return jax.lax.fori_loop(0, blocks.shape[0], fill, result)


def _block(features: Features, start: Array, size: int) -> Features:
    def rows(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, min(size, leaf.shape[0]))

    return jax.tree.map(rows, features)


def _mirrored(part: Array) -> Array:
    """Θ(x′, x) from Θ(x, x′), axes as `contract` leaves them."""
    return jnp.transpose(part, (2, 3, 0, 1)) if part.ndim == 4 else jnp.swapaxes(part, 0, 1)


def _write(whole: Array, part: Array, i: Array, j: Array) -> Array:
    return jax.lax.dynamic_update_slice(whole, part, (i, j, *(jnp.zeros_like(i),) * (whole.ndim - 2)))


_fill = eqx.filter_jit(_fill_blocks)
_fill_in_place = eqx.filter_jit(_fill_blocks, donate="all-except-first")
