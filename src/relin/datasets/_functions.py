"""Functions of few directions of many inputs, generated: theory says how many feature updates they need."""

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from relin.datasets._dataset import Dataset, Examples
from relin.datasets._names import Function

_TRAIN, _VALIDATION, _TEST = 16_384, 2_048, 4_096
_BITS, _GAUSSIAN = "independent bits ±1, no example twice", "independent and standard normal"


class _Drawn(NamedTuple):
    """Inputs, targets, the number of classes or outputs, and what the inputs are."""

    x: Shaped[np.ndarray, "N D"]
    y: Shaped[np.ndarray, "N ..."]
    num_classes: int
    inputs: str


def generated(function: Function) -> Dataset:
    """The data set of a function, always the same: 16,384 examples train, 2,048 validate, 4,096 test.

    With bits x_i = ±1 or orthonormal directions w_j, drawn once, of Gaussian x, z_j = w_j·x, and normalised Hermite
    polynomials h_k = He_k/√k!, of mean 0 and variance 1, the targets are

    - `parity-D-K`: the class 1 where x_1 x_2 ⋯ x_K = −1, else 0.
    - `staircase-D-K`: (x_1 + x_1 x_2 + … + x_1 ⋯ x_K)/√K (Abbe et al. 2022, arXiv:2202.08658).
    - `single-index-D-K`: (h_K(z_1) + h_{K+2}(z_1))/√2, of information exponent K (Ben Arous et al. 2021,
      arXiv:2003.10409).
    - `multi-index-D-K`: Σ_j≤K (h_2(z_j) + h_4(z_j))/√(2K), whose mean second derivative has rank K (Damian et al. 2022,
      arXiv:2206.15144).
    """
    # The streams of RandomState stay as they are in every version of NumPy.
    random = np.random.RandomState(zlib.crc32(function.name.encode()))
    x, y, num_classes, inputs = _KINDS[function.kind](random, function)
    parts = np.split(np.arange(_TRAIN + _VALIDATION + _TEST), [_TRAIN, _TRAIN + _VALIDATION])
    train, validation, test = (Examples(x[part].astype(np.float32), y[part]) for part in parts)
    return Dataset(
        name=function.name,
        train=train,
        validation=validation,
        test=test,
        num_classes=num_classes,
        normalisation=f"none: inputs are {inputs}",
        split=f"Generated: {_TRAIN} examples train, {_VALIDATION} others validate, {_TEST} others test.",
    )


def _bits(random: np.random.RandomState, size: int) -> Int[np.ndarray, "N D"]:
    """±1, uniform over the different vectors of so many bits, so that none is in two parts."""
    count = _TRAIN + _VALIDATION + _TEST
    drawn = random.randint(0, 2, (2 * count, size), dtype=np.int8)
    _, first = np.unique(np.packbits(drawn, axis=1), axis=0, return_index=True)
    return 1 - 2 * drawn[np.sort(first)[:count]]


def _parity(random: np.random.RandomState, function: Function) -> _Drawn:
    x = _bits(random, function.inputs)
    odd = x[:, : function.order].prod(axis=1) < 0
    return _Drawn(x, odd.astype(np.int32), 2, _BITS)


def _staircase(random: np.random.RandomState, function: Function) -> _Drawn:
    x = _bits(random, function.inputs)
    steps = x[:, : function.order].cumprod(axis=1)
    return _Drawn(x, _values(steps.sum(axis=1) / math.sqrt(function.order)), 1, _BITS)


def _single_index(random: np.random.RandomState, function: Function) -> _Drawn:
    x, z = _gaussian(random, function.inputs, 1)
    k = function.order
    return _Drawn(x, _values((_hermite(k, z[:, 0]) + _hermite(k + 2, z[:, 0])) / math.sqrt(2)), 1, _GAUSSIAN)


def _multi_index(random: np.random.RandomState, function: Function) -> _Drawn:
    x, z = _gaussian(random, function.inputs, function.order)
    each = (_hermite(2, z) + _hermite(4, z)) / math.sqrt(2)
    return _Drawn(x, _values(each.sum(axis=1) / math.sqrt(function.order)), 1, _GAUSSIAN)


_KINDS: dict[str, Callable[[np.random.RandomState, Function], _Drawn]] = {
    "parity": _parity,
    "staircase": _staircase,
    "single-index": _single_index,
    "multi-index": _multi_index,
}


def _gaussian(
    random: np.random.RandomState, size: int, number: int
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]:
    """Inputs and their products with so many orthonormal directions, which no axis is nearer to than to others."""
    q, r = np.linalg.qr(random.standard_normal((size, number)))
    x = random.standard_normal((_TRAIN + _VALIDATION + _TEST, size))
    return x, x @ (q * np.sign(np.diag(r)))


def _hermite(degree: int, z: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """h_k = He_k/√k!, of variance 1 for standard normal z."""
    return np.polynomial.hermite_e.hermeval(z, np.eye(degree + 1)[degree]) / math.sqrt(math.factorial(degree))


def _values(y: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 1"]:
    return y[:, None].astype(np.float32)
