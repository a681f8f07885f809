"""Small functions evaluated without a compiler: their program, read by JAX, run by NumPy one operation at a time.

Compiling a function of eight examples takes a hundred times longer than this. It knows what losses are made of.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.lax import GatherScatterMode
from scipy import special


class _UnknownError(Exception):
    """An operation that is not known here."""


def interpreted(function: Callable, *arguments: Any) -> Any:
    """What the function of arrays returns, as NumPy's arrays; `None` where it does something that is not known here."""
    program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
    try:
        with np.errstate(all="ignore"):
            values = _run(program.jaxpr, program.consts, leaves)
    except (_UnknownError, ArithmeticError, LookupError, TypeError, ValueError):  # a compiler then decides
        return None
    return jax.tree.unflatten(jax.tree.structure(shape), values)


def _run(program: Any, constants: Any, arguments: list[np.ndarray]) -> list[np.ndarray]:
    known = dict(zip(program.constvars, map(np.asarray, constants), strict=True))
    known |= dict(zip(program.invars, arguments, strict=True))

    def read(place: Any) -> np.ndarray:
        return np.asarray(place.val, place.aval.dtype) if hasattr(place, "val") else known[place]

    for equation in program.eqns:
        results = _applied(equation, [read(place) for place in equation.invars])
        known |= dict(zip(equation.outvars, map(np.asarray, results), strict=True))
    return [read(place) for place in program.outvars]


def _applied(equation: Any, values: list[np.ndarray]) -> list[Any]:
    name, how = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = next(how[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in how)
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
    if name in _ELEMENTWISE:
        return [_ELEMENTWISE[name](*values)]
    if name == "split":
        return np.split(values[0], np.cumsum(how["sizes"])[:-1], how["axis"])
    if name == "unstack":
        return list(np.moveaxis(values[0], how["axis"], 0))
    if name in _SHAPED:
        return [_SHAPED[name](how, *values)]
    raise _UnknownError(name)


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu":  # XLA rounds towards zero
        raise _UnknownError("div")
    return a / b


_CALLS = frozenset({"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"})
_NAMED_ALIKE = ("exp", "exp2", "log", "log1p", "expm1", "sqrt", "cbrt", "square", "sign", "abs", "floor", "ceil")
_TRIGONOMETRIC = ("sin", "cos", "tan", "sinh", "cosh", "tanh")
_OPERATORS = ("add", "sub", "mul", "neg", "pow", "lt", "le", "gt", "ge", "eq", "ne")
_ELEMENTWISE: dict[str, Callable] = {
    **{name: getattr(np, name) for name in (*_NAMED_ALIKE, *_TRIGONOMETRIC)},
    **{name: getattr(operator, name) for name in _OPERATORS},
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": np.invert,
    "add_any": operator.add,
    "max": np.maximum,
    "min": np.minimum,
    "div": _divided,
    "atan2": np.arctan2,
    "is_finite": np.isfinite,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "logistic": special.expit,
    "erf": special.erf,
    "erfc": special.erfc,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "stop_gradient": lambda a: a,
    "copy": lambda a: a,
    "clamp": lambda least, a, most: np.minimum(np.maximum(a, least), most),
}


def _broadcast(how: Any, a: np.ndarray) -> np.ndarray:
    placed = np.ones(len(how["shape"]), int)
    placed[list(how["broadcast_dimensions"])] = a.shape
    return np.broadcast_to(a.reshape(placed), how["shape"])


def _selected(how: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if len(cases) != 2:
        raise _UnknownError("select_n")
    return np.where(which, cases[1], cases[0])


def _sliced(how: Any, a: np.ndarray) -> np.ndarray:
    return a[tuple(map(slice, how["start_indices"], how["limit_indices"], how["strides"] or [1] * a.ndim))]


def _padded(how: Any, a: np.ndarray, value: np.ndarray) -> np.ndarray:
    if any(low < 0 or high < 0 or inner for low, high, inner in how["padding_config"]):
        raise _UnknownError("pad")
    return np.pad(a, [pair[:2] for pair in how["padding_config"]], constant_values=value)


def _counted(how: Any) -> np.ndarray:
    shape = [1] * len(how["shape"])
    shape[how["dimension"]] = -1
    return np.broadcast_to(np.arange(how["shape"][how["dimension"]], dtype=how["dtype"]).reshape(shape), how["shape"])


def _cumulated(how: Any, a: np.ndarray) -> np.ndarray:
    axis = how["axis"]
    return np.flip(np.flip(a, axis).cumsum(axis, a.dtype), axis) if how["reverse"] else a.cumsum(axis, a.dtype)


def _product(how: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (summed_a, summed_b), (shared_a, shared_b) = how["dimension_numbers"]
    left, right = list(range(a.ndim)), list(range(a.ndim, a.ndim + b.ndim))
    for i, j in zip((*summed_a, *shared_a), (*summed_b, *shared_b), strict=True):
        right[j] = left[i]
    kept_a = [axis for i, axis in enumerate(left) if i not in (*summed_a, *shared_a)]
    kept_b = [axis for j, axis in enumerate(right) if j not in (*summed_b, *shared_b)]
    return np.einsum(a, left, b, right, [left[i] for i in shared_a] + kept_a + kept_b)


def _places(
    indices: np.ndarray, shape: tuple[int, ...], sizes: list[int], windows: tuple[int, ...], ones: set[int], how: Any
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """For each number that is gathered from, or scattered to, an array of this shape, its place there, and whether its
    window lies inside. `sizes` are a window's, along the array's axes; `ones` the axes of these that it lacks."""
    map_, shared, shared_indices, mode = how
    rank = indices.ndim - 1 + len(windows)
    others = [axis for axis in range(rank) if axis not in windows]

    def along(axes: list[int], values: np.ndarray) -> np.ndarray:
        placed = [1] * rank
        for axis, size in zip(axes, values.shape, strict=True):
            placed[axis] = size
        return values.reshape(placed)

    inside, places = np.ones([1] * rank, bool), []
    free = iter(windows)
    for axis, (length, size) in enumerate(zip(shape, sizes, strict=True)):
        place = np.zeros([1] * rank, int)
        if axis in map_:
            start = along(others, indices[..., map_.index(axis)].astype(int))
            inside = inside & (start >= 0) & (start <= length - size)
            place = np.clip(start, 0, length - size)
        if axis in shared:
            batch = others[shared_indices[shared.index(axis)]]
            place = place + along([batch], np.arange(length))
        elif axis not in ones:
            place = place + along([next(free)], np.arange(size))
        places.append(place)
    return tuple(places), inside | (mode != GatherScatterMode.FILL_OR_DROP)


def _gathered(how: Any, a: np.ndarray, indices: np.ndarray) -> np.ndarray:
    numbers = how["dimension_numbers"]
    shared = numbers.operand_batching_dims
    fill = np.nan if how["fill_value"] is None and a.dtype.kind == "f" else how["fill_value"]
    ones = {*numbers.collapsed_slice_dims, *shared}
    rest = numbers.start_index_map, shared, numbers.start_indices_batching_dims, how["mode"]
    places, inside = _places(indices, a.shape, list(how["slice_sizes"]), numbers.offset_dims, ones, rest)
    found = a[tuple(np.broadcast_arrays(*places))]
    if inside.all():
        return found
    if fill is None:
        raise _UnknownError("gather")
    return np.where(inside, found, np.asarray(fill, a.dtype))


def _scattered(how: Any, a: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    numbers = how["dimension_numbers"]
    shared, windows = numbers.operand_batching_dims, numbers.update_window_dims
    ones = {*numbers.inserted_window_dims, *shared}
    sizes, free = [], iter(windows)
    for axis in range(a.ndim):
        sizes.append(1 if axis in ones else updates.shape[next(free)])
    rest = numbers.scatter_dims_to_operand_dims, shared, numbers.scatter_indices_batching_dims, how["mode"]
    places, inside = _places(indices, a.shape, sizes, windows, ones, rest)
    total = a.copy()
    np.add.at(total, tuple(np.broadcast_to(p, updates.shape) for p in places), np.where(inside, updates, 0))
    return total


_SHAPED: dict[str, Callable] = {
    "integer_pow": lambda how, a: a ** how["y"],
    "convert_element_type": lambda how, a: a.astype(how["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda how, a: a.reshape(how["new_sizes"]),
    "squeeze": lambda how, a: a.squeeze(how["dimensions"]),
    "transpose": lambda how, a: a.transpose(how["permutation"]),
    "reduce_sum": lambda how, a: a.sum(how["axes"], a.dtype),
    "reduce_prod": lambda how, a: a.prod(how["axes"], a.dtype),
    "reduce_max": lambda how, a: a.max(how["axes"]),
    "reduce_min": lambda how, a: a.min(how["axes"]),
    "reduce_and": lambda how, a: a.all(how["axes"]),
    "reduce_or": lambda how, a: a.any(how["axes"]),
    "argmax": lambda how, a: a.argmax(how["axes"][0]).astype(how["index_dtype"]),
    "argmin": lambda how, a: a.argmin(how["axes"][0]).astype(how["index_dtype"]),
    "select_n": _selected,
    "slice": _sliced,
    "pad": _padded,
    "concatenate": lambda how, *parts: np.concatenate(parts, how["dimension"]),
    "stack": lambda how, *parts: np.stack(parts, how["axis"]),
    "iota": _counted,
    "cumsum": _cumulated,
    "dot_general": _product,
    "gather": _gathered,
    "scatter-add": _scattered,
}
