"""Refusals shared by the networks."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from relin._common.words import listed


def closest(name: Any, known: Iterable[str]) -> str:
    """The end of a refusal: the nearest known name, if any is near."""
    matches = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else "."


def check_choice(option: str, value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        expected = listed(map(repr, known))
        raise ValueError(f"`{option}` must be one of {expected}, got {value!r}{closest(value, known)}")
    return value


_MOST = {"depth": 1_000, "num_classes": 2**21}
_MOST_OF_OTHERS = 100_000
"""A larger number would fill the memory, or its network never be compiled."""


def check_count(option: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(
            f"`{option}` must be an integer of at least {least}, got {value!r}; pass, for example, {max(least, 2)}."
        )
    if value > (most := _MOST.get(option, _MOST_OF_OTHERS)):
        raise ValueError(f"`{option}` must be at most {most:,}, got {value:,}; choose a smaller one.")
    return int(value)


def check_input_shape(network: str, input_shape: Any, ranks: Sequence[int], layout: str) -> tuple[int, ...]:
    """The shape as a tuple of integers, if it is one of `ranks` positive sizes."""
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    positive = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in shape)
    if not shape or not positive or len(shape) not in ranks:
        raise ValueError(
            f"{network} takes inputs of shape {layout}, got input_shape={input_shape!r}; pass the shape of "
            "one example, channels last and without the batch axis."
        )
    return tuple(int(n) for n in shape)


def check_example(network: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(
            f"{network} was built for one example of shape {expected}, got an input of shape {shape}; map it "
            "over a batch with relin.from_equinox or jax.vmap."
        )
