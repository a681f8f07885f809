"""The kernel block by block, in memory bounded by the result and a working set."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from relin._core.types import Inputs, Params
from relin.kernel._contract import Features, Kind, contract, in_order, num_outputs
from relin.kernel._features import features_of_one
from relin.kernel._sizes import Sides, Sizes, chosen, even

Result = dict[str, Array]


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


class Blocks(eqx.Module):
    """Every block's start in two chunks and in the result, and the size of all of them."""

    starts: Int[np.ndarray, "blocks 4"]
    high: int = eqx.field(static=True)
    wide: int = eqx.field(static=True)


class Group(NamedTuple):
    """Outputs that are differentiated together: their cotangents, and how many of the last of them are new."""

    cotangents: Array | None
    new: int


def kernel_in_blocks(
    request: Request, params: Params, x1: Inputs, x2: Inputs, batch_size: int | None, working_set: int
) -> Result:
    """The kernel by tensor, or the whole under the key ``""``.

    It is made of some outputs at a time where it holds no pairs of different ones. Features of a chunk of examples are
    held while those of smaller chunks are made and go past it, and the kernel of two chunks is filled in by a loop over
    blocks.
    """
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x1)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((request, params, x1, x2)))
    one, backward = eqx.filter_eval_shape(_one, request, params, example, None)
    rows, columns = (jax.tree.leaves(x)[0].shape[0] for x in (x1, x2))
    sides, outputs = Sides(rows, columns, request.symmetric), num_outputs(one)
    # Within a larger program all outputs together: many groups would make it long.
    sizes = chosen(request.kind, one, backward, sides, batch_size, working_set, some=not traced)
    groups = list(_groups(outputs, sizes.outputs))
    if groups[0].cotangents is not None:
        one, _ = eqx.filter_eval_shape(_one, request, params, example, groups[0].cotangents)
    parts = [_of_outputs(request, params, x1, x2, one, group, sizes, traced) for group in groups]
    if len(parts) == 1:
        return parts[0]
    if request.kind == "mean":
        return jax.tree.map(lambda *each: sizes.outputs / outputs * functools.reduce(jnp.add, each), *parts)
    new = [jax.tree.map(lambda a, g=g: a[..., sizes.outputs - g.new :], p) for p, g in zip(parts, groups, strict=True)]
    return jax.tree.map(lambda *each: jnp.concatenate(each, -1), *new)


def structure(request: Request, params: Params, x: Inputs, rows: int, columns: int) -> Any:
    """The shape and type of each entry of the kernel of so many examples like those of `x`."""
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    one, _ = eqx.filter_eval_shape(_one, request, params, example, None)
    return jax.eval_shape(lambda: _empty(request.kind, request.per_layer, one, rows, columns))


def _groups(outputs: int, size: int) -> Iterator[Group]:
    """All outputs, `size` at a time; the last group is filled up with outputs that were there before, weighing 0."""
    if size == outputs:
        yield Group(None, outputs)
        return
    done = 0
    for start in _starts(outputs, size):
        number = np.arange(start, start + size)
        cotangents = np.where((number >= done)[:, None], np.eye(outputs, dtype=np.float32)[number], 0.0)
        yield Group(jnp.asarray(cotangents), start + size - done)
        done = start + size


def _of_outputs(
    request: Request, params: Params, x1: Inputs, x2: Inputs, one: Features, group: Group, sizes: Sizes, traced: bool
) -> Result:
    """The kernel of some outputs."""
    fill, put = (_fill, _put) if traced else (_fill_in_place, _put_in_place)
    at_once = sizes.chunk if traced else sizes.at_once
    rows, columns = (jax.tree.leaves(x)[0].shape[0] for x in (x1, x2))
    spare: list[Features] = []  # of chunks no longer held, whose memory is used again

    def features(x: Inputs, start: int) -> Features:
        chunk = jax.tree.map(lambda a: a[start : start + sizes.chunk], x)
        return _features(put, request, params, chunk, group.cotangents, one, at_once, spare)

    def filled(result: Result, i: int, left: Features, j: int, right: Features) -> Result:
        blocks = _pairs(i, j, left, right, sizes.block, request.symmetric and i == j)
        return fill((left, right, blocks, request.kind, request.per_layer, request.symmetric), result)

    result = _empty(request.kind, request.per_layer, one, rows, columns)
    starts, others = (list(_starts(number, sizes.chunk)) for number in (rows, columns))
    held: dict[int, Features] = {}
    last: dict[int, Features] = {}  # the chunk that went past last is the first of the next ones held, or to go past
    for number in range(0, len(starts), sizes.held):
        spare += [held.pop(i) for i in list(held)]
        for i in starts[number : number + sizes.held]:
            held[i] = last.pop(i) if request.symmetric and i in last else features(x1, i)
        if request.symmetric:
            for i, j in itertools.combinations_with_replacement(held, 2):
                result = filled(result, i, held[i], j, held[j])
            others = starts[number + sizes.held :]
        others = others[::-1]
        for j in others:
            if j not in last:
                spare += [last.pop(k) for k in list(last)]
                last[j] = features(x2, j)
            for i in held:
                result = filled(result, i, held[i], j, last[j])
    return result


def _starts(total: int, size: int) -> Iterator[int]:
    """Starts of blocks of one size; the last is shifted back so that it ends at the end."""
    for start in range(0, total, size):
        yield max(0, min(start, total - size))


def _pairs(i: int, j: int, left: Features, right: Features, size: int, same: bool) -> Blocks:
    """Every block of the kernel of two chunks that start at i and j."""
    rows, columns = (jax.tree.leaves(side)[0].shape[0] for side in (left, right))
    high, wide = even(rows, size), even(columns, size)
    starts = [(a, b) for a in _starts(rows, high) for b in _starts(columns, wide) if not same or b >= a]
    return Blocks(np.asarray([(a, b, i + a, j + b) for a, b in starts], np.int32), high, wide)


def _empty(kind: Kind, per_layer: bool, one: Features, rows: int, columns: int) -> Result:
    outputs = num_outputs(one)
    beside = {"full": (outputs, outputs), "mean": (), "diagonal": (outputs,)}[kind]
    types: dict[str, Any] = {}
    for feature in one:
        floats = [a.dtype for a in jax.tree.leaves(feature) if jnp.issubdtype(a.dtype, jnp.floating)]
        for path in feature.paths if per_layer else ("",):
            types[path] = jnp.result_type(types.get(path, floats[0]), *floats)
    return {path: jnp.zeros((rows, columns, *beside), dtype) for path, dtype in types.items()}


@eqx.filter_jit
def _one(request: Request, params: Params, x: Inputs, cotangents: Array | None) -> tuple[Features, int]:
    with jax.default_matmul_precision("highest"):
        return features_of_one(request.apply, request.outputs, request.per_layer, params, x, cotangents)


def _features(
    put: Callable,
    request: Request,
    params: Params,
    x: Inputs,
    cotangents: Array | None,
    one: Features,
    at_once: int,
    spare: list[Features],
) -> Features:
    """The features of a chunk of examples, some at a time: loops on the device are slow for convolutions on CPU.

    They take the place of features of `spare` that are as large, if any.
    """
    num_examples = jax.tree.leaves(x)[0].shape[0]
    at_once = min(at_once, num_examples)
    if spare and jax.tree.leaves(spare[-1])[0].shape[0] == num_examples:
        whole = spare.pop()
    else:
        whole = jax.tree.map(lambda leaf: jnp.zeros((num_examples, *leaf.shape), leaf.dtype), one)
    leaves, structure = jax.tree.flatten((request, params, x, cotangents))
    arrays = [leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in leaves]
    rest = tuple(one if array is None else None for one, array in zip(leaves, arrays, strict=True))
    for start in _starts(num_examples, at_once):
        whole = put((structure, rest, at_once), arrays, np.int32(start), whole)
    return whole


def _put_piece(fixed: tuple, arrays: list[Array | None], start: Array, whole: Features) -> Features:
    """Makes some examples' features and writes them into a chunk's: little for the host to do for each."""
    structure, rest, size = fixed
    leaves = [one if array is None else array for array, one in zip(arrays, rest, strict=True)]
    request, params, x, cotangents = jax.tree.unflatten(structure, leaves)
    piece = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), x)
    made = jax.vmap(lambda x: _one(request, params, x, cotangents)[0])(piece)
    return jax.tree.map(lambda w, p: jax.lax.dynamic_update_slice_in_dim(w, p, start, 0), whole, made)


def _fill_blocks(operands: tuple, result: Result) -> Result:
    left, right, blocks, kind, per_layer, symmetric = operands
    starts = jnp.asarray(blocks.starts)

    def fill(number: Array, result: Result) -> Result:
        a, b, i, j = starts[number]
        rows, columns = _block(left, a, blocks.high), _block(right, b, blocks.wide)
        parts = contract(rows, columns, kind, per_layer)
        if symmetric:  # first, so that the diagonal's blocks are written last as they were computed
            mirrored = in_order({name: _mirrored(part) for name, part in parts.items()}, kind)
            result = jax.tree.map(lambda whole, part: _write(whole, part, j, i), result, mirrored)
        return jax.tree.map(lambda whole, part: _write(whole, part, i, j), result, in_order(parts, kind))

    return jax.lax.fori_loop(0, starts.shape[0], fill, result)


def _block(features: Features, start: Array, size: int) -> Features:
    def rows(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, size)

    return jax.tree.map(rows, features)


def _mirrored(part: Array) -> Array:
    """Θ(x′, x) from Θ(x, x′), axes as `contract` leaves them."""
    return jnp.transpose(part, (2, 3, 0, 1)) if part.ndim == 4 else jnp.swapaxes(part, 0, 1)


def _write(whole: Array, part: Array, i: Array, j: Array) -> Array:
    return jax.lax.dynamic_update_slice(whole, part, (i, j, *(jnp.zeros_like(i),) * (whole.ndim - 2)))


_put = jax.jit(_put_piece, static_argnums=0)
_put_in_place = jax.jit(_put_piece, static_argnums=0, donate_argnums=3)
_fill = eqx.filter_jit(_fill_blocks)
_fill_in_place = eqx.filter_jit(_fill_blocks, donate="all-except-first")
