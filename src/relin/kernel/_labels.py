"""Which example each element of an array depends on: labels, and how operations carry them on.

A label array has an array's rank. An axis along which the labels do not change may have length 1, so that they are
small and an operation on them takes microseconds. `None` stands for an array that depends on no example.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Labels = np.ndarray | None
"""0 for no example, n + 1 for example n, or one of the following."""
JOINED, UNCLEAR = -1, -2
"""An operation that is understood joins examples here; or it is not known whether one does."""


def merged(arrays: Iterable[Labels]) -> Labels:
    """The labels of what depends on all of these, whose axes are broadcast."""
    return functools.reduce(_merged, arrays, None)


def _merged(a: Labels, b: Labels) -> Labels:
    if a is None or b is None or a is b:
        return a if b is None else b
    a, b = np.broadcast_arrays(a, b)
    conflict = np.where(((a == UNCLEAR) & (b != JOINED)) | ((b == UNCLEAR) & (a != JOINED)), UNCLEAR, JOINED)
    return np.where(a == 0, b, np.where((b == 0) | (a == b), a, conflict))


def over(labels: np.ndarray, axes: Iterable[int], several: int = JOINED) -> np.ndarray:
    """The labels of what depends on all elements along some axes, which get length 1; `several` where these differ."""
    axes = tuple(axis for axis in axes if labels.shape[axis] > 1)
    if not axes:
        return labels
    largest = labels.max(axes, keepdims=True)
    smallest = np.where(labels > 0, labels, np.iinfo(labels.dtype).max).min(axes, keepdims=True)
    made = np.where((largest > 0) & (largest != smallest), several, np.maximum(largest, 0))
    made = np.where((labels == UNCLEAR).any(axes, keepdims=True), UNCLEAR, made)
    return np.where((labels == JOINED).any(axes, keepdims=True), JOINED, made)


def everything(arrays: Iterable[Labels]) -> int:
    """The one label of what depends on all elements of all arrays."""
    parts = [over(a, range(a.ndim)).reshape(()) for a in arrays if a is not None]
    total = merged(parts)
    return 0 if total is None else int(total)


def full(label: int, rank: int) -> np.ndarray:
    return np.full((1,) * rank, label, np.int32)


def whole(labels: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The labels with an axis written out."""
    return np.repeat(labels, size, axis) if labels.shape[axis] != size else labels


def compressed(labels: np.ndarray) -> np.ndarray:
    for axis, size in enumerate(labels.shape):
        if size > 1 and (labels == labels.take([0], axis)).all():
            labels = labels.take([0], axis)
    return labels


def elementwise(equation: Any, operands: Sequence[Labels]) -> Labels:
    rank = len(equation.outvars[0].aval.shape)
    return merged(None if a is None else a.reshape((1,) * rank) if a.ndim == 0 else a for a in operands)


def reduced(equation: Any, operands: Sequence[Labels]) -> Labels:
    """Sums, maxima and the like over whole axes, which are left out."""
    axes = equation.params.get("axes", equation.params.get("dimensions"))
    total = merged(None if a is None or a.ndim == 0 else over(a, axes) for a in operands)
    return None if total is None else total.squeeze(tuple(axes))


def along(name: str) -> Callable[[Any, Sequence[Labels]], Labels]:
    """Sorts, cumulative sums and the like: every element depends on all along one axis."""

    def rule(equation: Any, operands: Sequence[Labels]) -> Labels:
        return merged(None if a is None else over(a, (equation.params[name] % a.ndim,)) for a in operands)

    return rule


def last(count: int | str) -> Callable[[Any, Sequence[Labels]], list[Labels]]:
    """Factorisations of matrices and the like: what is batched are all axes but the last ones."""

    def rule(equation: Any, operands: Sequence[Labels]) -> list[Labels]:
        own = len(equation.params[count]) if isinstance(count, str) else count
        ranks = [len(variable.aval.shape) for variable in equation.invars]
        batch = max(max(ranks) - own, 0)
        joined = [None if a is None else over(a, range(batch, a.ndim)) for a in operands]
        total = merged(None if a is None else a.reshape(*a.shape[:batch], *(1,) * (a.ndim - batch)) for a in joined)
        if total is None:
            return [None] * len(equation.outvars)
        head = total.reshape(total.shape[:batch])
        return [
            head.reshape(*head.shape[: len(out.aval.shape)], *(1,) * (len(out.aval.shape) - batch))
            for out in equation.outvars
        ]

    return rule


def reshaped(equation: Any, operands: Sequence[Labels]) -> Labels:
    before, after = (atom.aval.shape for atom in (equation.invars[0], equation.outvars[0]))
    (labels,) = operands
    if labels is None or 0 in before:
        return None
    written, sizes = labels, []
    for own, new in _groups(before, after):
        if all(labels.shape[axis] == 1 for axis in own):
            sizes += [1] * len(new)
            continue
        for axis in own:
            written = whole(written, axis, before[axis])
        sizes += [after[axis] for axis in new]
    return compressed(written.reshape(sizes))


def _groups(before: tuple[int, ...], after: tuple[int, ...]) -> Iterable[tuple[list[int], list[int]]]:
    """Which neighbouring axes become which."""
    i = j = 0
    while i < len(before) or j < len(after):
        own, new = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + 1, j + 1
        while (a := math.prod(before[k] for k in own)) != (b := math.prod(after[k] for k in new)):
            if a < b:
                own.append(i)
                i += 1
            else:
                new.append(j)
                j += 1
        yield own, new


def broadcast(equation: Any, operands: Sequence[Labels]) -> Labels:
    labels, places = operands[0], equation.params["broadcast_dimensions"]
    if labels is None:
        return None
    shape = [1] * len(equation.outvars[0].aval.shape)
    for axis, place in enumerate(places):
        shape[place] = labels.shape[axis]
    return labels.reshape(shape)


def squeezed(equation: Any, operands: Sequence[Labels]) -> Labels:
    return None if operands[0] is None else operands[0].squeeze(equation.params["dimensions"])


def transposed(equation: Any, operands: Sequence[Labels]) -> Labels:
    return None if operands[0] is None else operands[0].transpose(equation.params["permutation"])


def reversed_(equation: Any, operands: Sequence[Labels]) -> Labels:
    return None if operands[0] is None else np.flip(operands[0], equation.params["dimensions"])


def sliced(equation: Any, operands: Sequence[Labels]) -> Labels:
    (labels,), params = operands, equation.params
    if labels is None:
        return None
    strides = params["strides"] or (1,) * labels.ndim
    pieces = zip(labels.shape, params["start_indices"], params["limit_indices"], strides, strict=True)
    return labels[tuple(slice(None) if size == 1 else slice(a, b, by) for size, a, b, by in pieces)]


def padded(equation: Any, operands: Sequence[Labels]) -> Labels:
    labels, value = operands
    if labels is not None:
        for axis, (low, high, inner) in enumerate(equation.params["padding_config"]):
            if labels.shape[axis] > 1:
                labels = _padded_axis(labels, axis, low, high, inner)
    return elementwise(equation, (labels, value))


def _padded_axis(labels: np.ndarray, axis: int, low: int, high: int, inner: int) -> np.ndarray:
    moved = np.moveaxis(labels, axis, 0)
    apart = np.zeros(((len(moved) - 1) * (inner + 1) + 1, *moved.shape[1:]), labels.dtype)
    apart[:: inner + 1] = moved
    ends = [(max(low, 0), max(high, 0))] + [(0, 0)] * (labels.ndim - 1)
    apart = np.pad(apart, ends)[max(-low, 0) :]
    return np.moveaxis(apart[: len(apart) - max(-high, 0)], 0, axis)


def concatenated(equation: Any, operands: Sequence[Labels]) -> Labels:
    axis = equation.params["dimension"]
    rank = len(equation.outvars[0].aval.shape)
    if all(a is None for a in operands):
        return None
    parts = [full(0, rank) if a is None else a for a in operands]
    if all(part.shape == parts[0].shape and (part == parts[0]).all() for part in parts) and parts[0].shape[axis] == 1:
        return parts[0]
    parts = [whole(a, axis, v.aval.shape[axis]) for a, v in zip(parts, equation.invars, strict=True)]
    sizes = np.max([part.shape for part in parts], 0)
    for other in range(rank):
        if other != axis:
            parts = [whole(part, other, sizes[other]) for part in parts]
    return compressed(np.concatenate(parts, axis))


def split(equation: Any, operands: Sequence[Labels]) -> list[Labels]:
    (labels,), axis, sizes = operands, equation.params["axis"], equation.params["sizes"]
    if labels is None or labels.shape[axis] == 1:
        return [labels] * len(sizes)
    return list(np.split(labels, np.cumsum(sizes)[:-1], axis))


def stacked(equation: Any, operands: Sequence[Labels]) -> Labels:
    axis, rank = equation.params["axis"], len(equation.outvars[0].aval.shape)
    parts = [full(0, rank) if a is None else np.expand_dims(a, axis) for a in operands]
    sizes = np.max([part.shape for part in parts], 0)
    sizes[axis] = 1
    return compressed(np.concatenate([np.broadcast_to(part, sizes) for part in parts], axis))


def tiled(equation: Any, operands: Sequence[Labels]) -> Labels:
    if operands[0] is None:
        return None
    pairs = zip(equation.params["reps"], operands[0].shape, strict=True)
    return np.tile(operands[0], [1 if size == 1 else times for times, size in pairs])


def with_more_axes(equation: Any, operands: Sequence[Labels]) -> Labels:
    """Random numbers of keys: more axes after those of the keys."""
    labels, rank = operands[0], len(equation.outvars[0].aval.shape)
    return None if labels is None else labels.reshape(*labels.shape, *(1,) * (rank - labels.ndim))


def with_fewer_axes(equation: Any, operands: Sequence[Labels]) -> Labels:
    """Keys of numbers: without the last axes."""
    labels, rank = operands[0], len(equation.outvars[0].aval.shape)
    if labels is None:
        return None
    labels = over(labels, range(rank, labels.ndim))
    return labels.reshape(labels.shape[:rank])


def product(equation: Any, operands: Sequence[Labels]) -> Labels:
    """Batch axes, those of the left operand, those of the right one."""
    (contracted, batched), parts = equation.params["dimension_numbers"], []
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    free = [rank - len(c) - len(b) for rank, c, b in zip(ranks, contracted, batched, strict=True)]
    for side, labels in enumerate(operands):
        if labels is None:
            continue
        labels = over(labels, contracted[side])
        own = [axis for axis in range(labels.ndim) if axis not in (*contracted[side], *batched[side])]
        labels = labels.transpose(*batched[side], *own, *contracted[side])
        head, tail = (
            labels.shape[: len(batched[side])],
            labels.shape[len(batched[side]) : len(batched[side]) + len(own)],
        )
        parts.append(labels.reshape(*head, *((*tail, *(1,) * free[1]) if side == 0 else (*(1,) * free[0], *tail))))
    return merged(parts)


def convolved(equation: Any, operands: Sequence[Labels]) -> Labels:
    """An image's results depend on the whole image."""
    numbers, batches = equation.params["dimension_numbers"], equation.params["batch_group_count"]
    image, kernel = operands
    rank, parts = len(equation.outvars[0].aval.shape), []
    if kernel is not None:
        parts.append(full(everything([kernel]), rank))
    if image is not None:
        image = over(image, [axis for axis in range(rank) if axis != numbers.lhs_spec[0] or batches > 1])
        shape = [1] * rank
        shape[numbers.out_spec[0]] = image.shape[numbers.lhs_spec[0]]
        parts.append(image.reshape(shape))
    return merged(parts)


def windowed(equation: Any, operands: Sequence[Labels]) -> Labels:
    """Pooling: along an axis on which it does anything, results depend on all."""
    before, after = (atom.aval.shape for atom in (equation.invars[0], equation.outvars[0]))
    window = equation.params["window_dimensions"]
    axes = [axis for axis in range(len(window)) if window[axis] > 1 or before[axis] != after[axis]]
    return merged(None if a is None or a.ndim == 0 else over(a, axes) for a in operands)
