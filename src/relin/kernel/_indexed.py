"""How labels go through operations whose places are given by numbers: gathers, scatters and slices at a start.

Where a place is a number that the program itself holds, as in `h[jnp.arange(batch), length]`, it is followed exactly.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from relin.kernel._labels import UNCLEAR, Labels, merged, over

Known = np.ma.MaskedArray | None
"""The integers of an array, those masked that the program does not hold."""


def known_result(equation: Any, operands: Sequence[Known]) -> Known:
    """The integers that an operation on integers gives, if that is one that places are made of."""
    out = equation.outvars[0].aval
    rule = _KNOWN.get(equation.primitive.name)
    if rule is None or not (np.issubdtype(out.dtype, np.integer) or out.dtype == bool):
        return None
    if any(a is None for a in operands):
        if equation.primitive.name != "concatenate":
            return None
        operands = [
            np.ma.masked_all(variable.aval.shape, int) if a is None else a  # pyright: ignore[reportArgumentType]
            for variable, a in zip(equation.invars, operands, strict=True)
        ]
    return np.ma.asarray(rule(equation.params, *operands))


def _iota(params: Any) -> np.ndarray:
    axis, shape = params["dimension"], params["shape"]
    numbers = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(numbers, shape)


def _broadcast(params: Any, a: Any) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, place in enumerate(params["broadcast_dimensions"]):
        shape[place] = a.shape[axis]
    return np.ma.asarray(np.broadcast_to(a.reshape(shape), params["shape"], subok=True))


def _plain(function: Callable) -> Callable:
    return lambda params, *operands: function(*operands)


_KNOWN: dict[str, Callable] = {
    "iota": _iota,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "squeeze": lambda params, a: a.squeeze(params["dimensions"]),
    "concatenate": lambda params, *parts: np.ma.concatenate(parts, params["dimension"]),
    "convert_element_type": _plain(lambda a: a),
    "select_n": _plain(lambda which, no, yes: np.ma.where(which.astype(bool), yes, no)),
    "add": _plain(np.ma.add),
    "sub": _plain(np.ma.subtract),
    "mul": _plain(np.ma.multiply),
    "max": _plain(np.ma.maximum),
    "min": _plain(np.ma.minimum),
    "lt": _plain(np.ma.less),
    "ge": _plain(np.ma.greater_equal),
    "clamp": _plain(lambda low, a, high: np.ma.minimum(np.ma.maximum(a, low), high)),
}


def gathered(equation: Any, operands: Sequence[Labels], known: Sequence[Known]) -> Labels:
    (labels, indices), numbers = operands, equation.params["dimension_numbers"]
    sizes, shape = equation.params["slice_sizes"], equation.invars[0].aval.shape
    places, rank = equation.invars[1].aval.shape[:-1], len(equation.outvars[0].aval.shape)
    positions = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    total = _told_by(indices, known[1], positions, rank)
    if labels is None:
        return total
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    at: dict[int, np.ndarray] = {}
    for own, batch in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        at[own] = np.arange(places[batch]).reshape([-1 if a == batch else 1 for a in range(len(places))])
    for k, axis in enumerate(numbers.start_index_map):
        component = _component(known[1], k)
        if component is not None and axis in dropped:
            at[axis] = np.clip(component, 0, shape[axis] - 1)
    labels = over(labels, [a for a in range(labels.ndim) if a not in at and sizes[a] != shape[a]], UNCLEAR)
    exact = [axis for axis in at if labels.shape[axis] > 1]
    gone = [axis for axis in dropped if axis not in exact]
    labels = labels.transpose(*exact, *(axis for axis in range(labels.ndim) if axis not in dropped), *gone)
    labels = labels.reshape(labels.shape[: labels.ndim - len(gone)])
    if exact:
        labels = labels[tuple(np.broadcast_to(at[axis], places) for axis in exact)]
    else:
        labels = labels.reshape((1,) * len(places) + labels.shape)
    order = np.argsort((*positions, *numbers.offset_dims))
    return merged([total, labels.transpose(order)])


def _told_by(indices: Labels, known: Known, positions: Sequence[int], rank: int) -> Labels:
    """The labels of indices that the program does not hold, along the axes of what they are taken from or put to."""
    if indices is None:
        return None
    if indices.shape[-1] > 1:
        own = [k for k in range(indices.shape[-1]) if _component(known, k) is None]
        indices = indices[..., own]
    elif known is not None and not np.ma.is_masked(known):
        return None
    return _placed(over(indices, [indices.ndim - 1]).squeeze(-1), positions, rank) if indices.size else None


def _component(known: Known, k: int) -> np.ndarray | None:
    if known is None:
        return None
    component = known[..., k]
    return None if np.ma.is_masked(component) else np.asarray(component)


def _placed(labels: np.ndarray, axes: Sequence[int], rank: int) -> np.ndarray:
    shape = [1] * rank
    for size, axis in zip(labels.shape, axes, strict=True):
        shape[axis] = size
    return labels.reshape(shape)


def scattered(equation: Any, operands: Sequence[Labels], known: Sequence[Known]) -> Labels:
    """Each element depends on its own and on all updates that may come to it."""
    target, indices, updates = operands
    numbers = equation.params["dimension_numbers"]
    shape, places = (equation.invars[i].aval.shape for i in (0, 1))
    places, rank = places[:-1], len(shape)
    given = equation.invars[2].aval.shape
    positions = [axis for axis in range(len(given)) if axis not in numbers.update_window_dims]
    updates = merged([updates, _told_by(indices, known[1], positions, len(given))])
    if updates is None:
        return target
    aligned = {
        positions[batch]: own
        for own, batch in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    }
    skipped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    windows = [axis for axis in range(rank) if axis not in skipped]
    for axis, own in zip(numbers.update_window_dims, windows, strict=True):
        if given[axis] == shape[own]:
            aligned[axis] = own
    for k, own in enumerate(numbers.scatter_dims_to_operand_dims):
        component = _component(known[1], k)
        for axis, position in enumerate(positions):  # row n goes to row n
            if component is not None and own in numbers.inserted_window_dims and places[axis] == shape[own]:
                row = np.arange(shape[own]).reshape([-1 if a == axis else 1 for a in range(len(places))])
                if (component == row).all():
                    aligned[position] = own
    updates = over(updates, [axis for axis in range(updates.ndim) if axis not in aligned], UNCLEAR)
    order = sorted(aligned, key=lambda axis: aligned[axis])
    updates = updates.transpose(*order, *(axis for axis in range(updates.ndim) if axis not in aligned))
    return merged([target, _placed(updates.reshape(updates.shape[: len(order)]), sorted(aligned.values()), rank)])


def slice_at(equation: Any, operands: Sequence[Labels], known: Sequence[Known]) -> Labels:
    labels, *starts = operands
    sizes, shape = equation.params["slice_sizes"], equation.invars[0].aval.shape
    total = merged(None if a is None else a.reshape((1,) * len(sizes)) for a in starts)
    if labels is None:
        return total
    for axis, size in enumerate(sizes):
        if labels.shape[axis] == 1 or size == shape[axis]:
            continue
        start = known[1 + axis]
        if start is None or np.ma.is_masked(start):
            labels = over(labels, [axis], UNCLEAR)
        else:
            first = min(max(int(start), 0), shape[axis] - size)
            labels = labels.take(range(first, first + size), axis)
    return merged([total, labels])


def updated_at(equation: Any, operands: Sequence[Labels], known: Sequence[Known]) -> Labels:
    target, update, *starts = operands
    shape, given = (equation.invars[i].aval.shape for i in (0, 1))
    total = merged([target, *(None if a is None else a.reshape((1,) * len(shape)) for a in starts)])
    if update is None:
        return total
    for axis, size in enumerate(given):
        start = known[2 + axis]
        if update.shape[axis] == 1 or size == shape[axis]:
            continue
        if start is None or np.ma.is_masked(start):
            update = over(update, [axis], UNCLEAR)
            continue
        first = min(max(int(start), 0), shape[axis] - size)
        after = shape[axis] - size - first
        update = np.pad(update, [(first, after) if a == axis else (0, 0) for a in range(update.ndim)])
    return merged([total, update])
