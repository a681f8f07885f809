"""What a loss promises, tried once on a few examples: docs/extending/loss.md."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from relin._core.interpret import interpreted
from relin._core.loss import AbstractLoss, CrossEntropy, SquaredError
from relin._core.types import Outputs, Scalar, Targets

_EXAMPLES, _NUMBERS, _LARGEST = 8, 2**17, 2**21
"""At most so many examples are tried together, with outputs of so many numbers if more than two; of two, with so many
at most."""
_COPIED = 2**24
"""Bytes of an array of targets that is taken to the host whole."""
_STEPS = (1e-3, 1e-5, 1e-1)
"""Of the finite differences: the others where a loss has a kink nearby, or rounds."""
_TOLERANCE = 5e-2
_TESTED = (CrossEntropy, SquaredError)
"""relin's own keep the contract: tests/core/test_losses.py."""
_MOST_KEPT = 256
_kept: set[Any] = set()
"""The kinds of losses, with shapes, that kept their promises in this process."""


class _Trial(NamedTuple):
    """What a loss gives on a few examples."""

    together: Float[Array, " n"]
    alone: Float[Array, " n"]
    mean: Scalar
    slope: Float[Array, " n"]
    """∂ℓ/∂f · v of each example, by `gradient`."""
    difference: Float[Array, " n"]
    """The same by central differences of `alone`."""


def check_shapes(loss: AbstractLoss, outputs: jax.ShapeDtypeStruct, targets: Targets) -> None:
    """Raises unless the loss gives one floating-point value for each example, and `correct` one or `None`."""
    num_examples = outputs.shape[0]
    values = jax.eval_shape(loss, outputs, targets)
    wanted = f"The loss must return one floating-point value for each example, shape ({num_examples},), got"
    if not isinstance(values, jax.ShapeDtypeStruct) or not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{wanted} {_described(values)}; return one array, of the outputs' type.")
    if values.shape == ():
        raise ValueError(f"{wanted} one number for the batch; leave the mean out, which relin takes.")
    if values.shape != (num_examples,):
        raise ValueError(f"{wanted} shape {values.shape}; sum or average over all axes but the first.")
    correct = jax.eval_shape(loss.correct, outputs, targets)
    if correct is not None and getattr(correct, "shape", None) != (num_examples,):
        raise ValueError(
            f"`correct` must return one value for each example, shape ({num_examples},), or None, got "
            f"{_described(correct)}; average over all axes but the first."
        )


def check_contract(loss: AbstractLoss, outputs: jax.ShapeDtypeStruct, targets: Targets) -> None:
    """Raises `ValueError` unless each value of the loss is of its own example, `mean` their mean, and `gradient` the
    gradient; tried in float64 on the first examples' targets, once for a kind of loss and these shapes.

    Outputs are made up: normal numbers, or from (0, 1) where the loss is not finite on those. A loss that is finite on
    neither, does not take float64, or has outputs of more than 2²⁰ numbers an example, is believed.
    """
    if type(loss) in _TESTED:
        return
    kind = _kind(loss, outputs, targets)
    if kind is not None and kind in _kept:
        return
    number = min(_EXAMPLES, outputs.shape[0])
    _check_alone(loss, outputs, targets)
    while number > 2 and number * math.prod(outputs.shape[1:]) > _NUMBERS:
        number //= 2
    if number * math.prod(outputs.shape[1:]) <= _LARGEST:
        _try(loss, (number, *outputs.shape[1:]), jax.tree.map(lambda a: _first(a, number), targets))
    if kind is not None:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept.add(kind)


def _check_alone(loss: AbstractLoss, outputs: jax.ShapeDtypeStruct, targets: Targets) -> None:
    """Raises `ValueError` unless the loss takes a batch of one example."""
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), (outputs, targets))
    try:
        check_shapes(loss, *one)
    except Exception as error:  # whatever the loss raises is the answer
        raise ValueError(
            f"The loss must take any number of examples, got an error for 1: {error} Put what differs between "
            "examples into the targets."
        ) from error


def _try(loss: AbstractLoss, shape: tuple[int, ...], targets: Targets) -> None:
    """Raises `ValueError` for what is wrong with values or gradient: found by an interpreter, in milliseconds, and
    before it is said by a compiled program too."""
    random = np.random.default_rng(0)
    points = random.normal(size=shape), random.uniform(0.1, 0.9, size=shape)
    ways = [(random.normal(size=shape), step) for step in _STEPS]
    with jax.enable_x64(True), jax.default_device(_host()):
        loss = jax.tree.map(lambda leaf: jnp.asarray(_in_float64(leaf)) if eqx.is_array(leaf) else leaf, loss)
        targets = jax.tree.map(_in_float64, targets)
        try:
            if not _wrong(lambda *way: interpreted(lambda *a: _tried(loss, *a), *way), points, targets, ways):
                return
            wrong = _wrong(lambda *way: _compiled(loss, *jax.tree.map(jnp.asarray, way)), points, targets, ways)
        except TypeError:  # of types that do not go together with float64
            return
    if wrong:
        raise ValueError(wrong)


def _wrong(evaluated: Any, points: Any, targets: Targets, ways: Any) -> str:
    """What is wrong with a loss, in one sentence, or nothing."""
    for point in points:
        trials = (evaluated(point, targets, *way) for way in ways)
        found = next(trials)
        if found is None:
            return "unknown"
        if not all(bool(np.isfinite(part).all()) for part in found):
            continue
        if wrong := _wrong_values(found):
            return wrong
        if _agrees(found) or any(map(_agrees, trials)):
            return ""
        return (
            "The loss's gradient must be that of its values, got a slope of "
            f"{np.sum(found.slope):.4g} where finite differences give {np.sum(found.difference):.4g}; "
            "check its rules of differentiation (custom_jvp, custom_vjp), stop_gradient and rounding."
        )
    return ""


def _wrong_values(found: _Trial) -> str:
    together, alone = np.asarray(found.together), np.asarray(found.alone)
    size = np.max(np.abs(alone))
    apart = np.abs(together - alone) > 1e-5 * size
    if apart.any():
        worst = int(np.argmax(apart))
        return (
            "Each value of a loss must depend on its own example alone, got "
            f"{alone[worst]:.4g} for example {worst} by itself and {together[worst]:.4g} among {len(alone)}; do not "
            "normalise over the batch: divide weights or counts by their mean over the data beforehand."
        )
    mean = float(np.mean(alone))
    if abs(float(found.mean) - mean) > 1e-5 * size:
        return (
            f"`mean` must be the mean of the loss over the batch, got {float(found.mean):.4g} where that is "
            f"{mean:.4g}; leave `mean` as it is, and put weights into the loss itself."
        )
    return ""


def _tried(loss: AbstractLoss, outputs: Outputs, targets: Targets, direction: Outputs, step: Any) -> _Trial:
    def alone(one: Array, target: Targets) -> Scalar:
        return loss(one[None], jax.tree.map(lambda a: a[None], target))[0]

    moved = jnp.concatenate([outputs[None], (outputs + step * direction)[None], (outputs - step * direction)[None]])
    values, after, before = jax.vmap(jax.vmap(alone), in_axes=(0, None))(moved, targets)
    together, pullback = jax.vjp(lambda f: loss(f, targets), outputs)
    gradient = pullback(jnp.ones_like(together))[0]
    if _overrides(loss, "gradient"):
        gradient = loss.gradient(outputs, targets)
    mean = loss.mean(outputs, targets) if _overrides(loss, "mean") else jnp.sum(together) / len(together)
    slope = jnp.sum((gradient * direction).reshape(len(outputs), -1), axis=1)
    return _Trial(together, values, mean, slope, (after - before) / (2 * step))


_compiled = eqx.filter_jit(_tried)


def _overrides(loss: AbstractLoss, method: str) -> bool:
    return getattr(type(loss), method) is not getattr(AbstractLoss, method)


def _agrees(found: _Trial) -> bool:
    error = np.abs(np.asarray(found.slope) - np.asarray(found.difference))
    return bool(np.all(error <= _TOLERANCE * np.max(np.abs([found.slope, found.difference]))))


def _kind(loss: AbstractLoss, outputs: jax.ShapeDtypeStruct, targets: Targets) -> Any:
    """What decides the trial, but for values; `None` where it cannot be compared."""
    arrays, static = eqx.partition(loss, eqx.is_array)
    shapes = jax.tree.map(lambda a: (a.shape, str(a.dtype)), (arrays, outputs, targets))
    leaves, structure = jax.tree.flatten((static, shapes))
    kind = type(loss), tuple(leaves), structure
    try:
        hash(kind)
    except TypeError:
        return None
    return kind


def _first(array: Array, number: int) -> np.ndarray:
    """The first rows, on the host: without compiling a slice unless the array is large."""
    return np.asarray(array)[:number] if array.nbytes < _COPIED else np.asarray(array[:number])


def _in_float64(array: Any) -> Any:
    """An array on the host, floating-point numbers in float64; random keys as they are."""
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return array
    return np.asarray(array, np.float64 if jnp.issubdtype(array.dtype, jnp.floating) else None)


def _host() -> Any:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:  # a process that was told to use the accelerator only
        return None


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, jax.ShapeDtypeStruct) else type(value).__name__
