"""Schedules fixed in advance."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from relin._core.check import LARGEST_COUNT
from relin._core.types import Flag, Step
from relin._schedule._base import AbstractSchedule, check_count


class Every(AbstractSchedule):
    """Re-linearises at steps 0, K, 2K, …: T steps make ⌈T/K⌉ − 1 feature updates.

    `Every(1)` is ordinary training. `k` may be a traced integer, so that one compiled program serves every K.

    **Arguments:**

    - `k`: K, the steps of a window, at least 1.

    **Raises:** `TypeError` or `ValueError` for what is not such a number.
    """

    k: Step

    def __check_init__(self):
        check_count(self.k, "The period K", 1, "pass a whole number of steps, or use Never() for K = ∞")

    @property
    def every_step(self) -> bool:
        return isinstance(self.k, int) and self.k == 1

    def due(self, step: Step) -> Flag:
        return step % self.k == 0


class Never(AbstractSchedule):
    """K = ∞: the network stays linearised at its initial parameters (lazy training; no feature is learned)."""

    def due(self, step: Step) -> Flag:
        return False


class _AbstractListed(AbstractSchedule):
    """Re-linearises before each of its steps, which are in order."""

    steps: eqx.AbstractVar[Any]

    def due(self, step: Step) -> Flag:
        if self.steps.size == 0:
            return False
        if isinstance(self.steps, np.ndarray) and isinstance(step, int):  # no device is asked: PyTorch may train
            return bool(np.any(self.steps == step))
        steps = jnp.asarray(self.steps)
        if steps.size <= _FEW:
            return jnp.any(steps == step)
        place = jnp.searchsorted(steps, step)
        return jnp.where(place < steps.size, steps[jnp.minimum(place, steps.size - 1)] == step, False)


_FEW = 1000
"""Steps of which all are compared at once, where a search takes one operation after another."""


class AtSteps(_AbstractListed):
    """Re-linearises before each of the given steps (step 0 always is an anchor and need not be named).

    **Arguments:**

    - `steps`: whole numbers from 0, in any order, each once or more often; or an integer array, which may be traced.

    **Raises:** `TypeError` or `ValueError` for other numbers.
    """

    steps: jax.Array | np.ndarray

    def __init__(self, steps: Sequence[int] | jax.Array | np.ndarray):
        if not isinstance(steps, jax.Array):
            values = np.asarray(list(steps))
            if values.size and (values.ndim != 1 or not np.issubdtype(values.dtype, np.integer)):
                raise TypeError(
                    f"`steps` must be a sequence of integers, got {steps!r}; pass whole steps such as [100, 200]."
                )
            if values.size and values.min() < 0:
                raise ValueError(f"`steps` must not be negative, got {int(values.min())}; steps count from 0.")
            if values.size and values.max() > LARGEST_COUNT:
                raise ValueError(
                    f"`steps` must be at most {LARGEST_COUNT:,}, got {int(values.max()):,}; leave later ones out."
                )
            self.steps = np.unique(values).astype(np.int32)
        else:
            self.steps = jnp.sort(steps.reshape(-1))


class Geometric(_AbstractListed):
    """Re-linearises before steps `first`, `first` · `ratio`, `first` · `ratio`², …, each rounded to the nearest step.

    **Arguments:**

    - `first`: the first step, at least 1.
    - `ratio`: greater than 1.
    """

    first: int
    ratio: float
    steps: np.ndarray

    def __init__(self, first: int, ratio: float):
        check_count(first, "`first`", 1, "pass the step of the first feature update")
        if not (isinstance(ratio, int | float) and math.isfinite(ratio) and ratio > 1):
            raise ValueError(f"`ratio` must be a number greater than 1, got {ratio!r}; use Every(k) for even spacing.")
        self.first, self.ratio = first, ratio
        if ratio < 1 + 1e-4:
            raise ValueError(f"`ratio` must be at least 1.0001, got {ratio!r}; use Every(1) for every step.")
        terms = 1 + int(math.log(np.iinfo(np.int32).max / first) / math.log(ratio))
        self.steps = np.unique(np.rint(first * float(ratio) ** np.arange(terms)).astype(np.int32))


class EqualTime(_AbstractListed):
    """Re-linearises so that each window takes an equal part of the training's *time*, the sum of its learning rates, as
    nearly as whole steps allow: before the step at which that sum is nearest to i/(n + 1) of the whole, i = 1, …, n.

    A displacement grows with the sum of the rates of its window. With a rate that falls, windows of equally many steps
    are the longer displacements the earlier they are; here the first windows are short and the last are long. Of a
    constant rate these are windows of T/(n + 1) steps, rounded up or down. For a rate that falls to 0 along a line over
    T steps, update i of n is before step T (1 − √(1 − i/(n + 1))), or one beside it.

    **Arguments:**

    - `learning_rate`: a number, or a function of the step as Optax's schedules are, with rates of at least 0. One that
      JAX cannot trace, as with an `if` on the step, is called with each step as an integer.
    - `num_steps`: T.
    - `updates`: n, how many feature updates there are, from 1 to T − 1.

    **Raises:** `ValueError` for numbers out of range, and for rates that are negative, not finite, or all 0.
    """

    steps: np.ndarray

    def __init__(self, learning_rate: float | Callable[[Any], Any], num_steps: int, updates: int):
        check_count(num_steps, "`num_steps`", 2, "pass the steps of the run")
        check_count(updates, "`updates`", 1, "pass how many feature updates there are, or use Never() for none")
        if updates >= num_steps:
            raise ValueError(
                f"`updates` must be below num_steps={num_steps:,}, got {updates:,}; use Every(1) for one at each step."
            )
        self.steps = _equal_time_steps(_rates(learning_rate, num_steps), updates)


def _rates(learning_rate: float | Callable[[Any], Any], num_steps: int) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        if not callable(learning_rate):
            rates = [learning_rate]
        else:
            try:
                rates = jax.vmap(learning_rate)(jnp.arange(num_steps))
            except TypeError:  # JAX's are such too: of a function that asks what the step is
                rates = [learning_rate(step) for step in range(num_steps)]
    if any(isinstance(rate, Tracer) for rate in (rates, *(rates if isinstance(rates, list) else ()))):
        raise ValueError(
            "The learning rates must be known before the run is compiled, got a traced one; pass a schedule of rates "
            "relative to it, such as optax.linear_schedule(1.0, 0.0, num_steps)."
        )
    return np.broadcast_to(np.asarray(rates, np.float64), (num_steps,))


def _equal_time_steps(rates: np.ndarray, updates: int) -> np.ndarray:
    """The steps, from 1 to T − 1 and in order, before which so many updates divide the sum of the rates evenly.

    `rates` has shape (T,). Of two updates whose nearest steps are the same, the later one takes the next step that is
    free. **Raises:** `ValueError` for rates that are negative, not finite, or all 0.
    """
    if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.any()):
        raise ValueError(
            f"The learning rates must be at least 0, finite and not all 0, got {rates.min():g} to {rates.max():g}; "
            "pass the optimiser's rate or its schedule."
        )
    last = len(rates) - 1
    time = np.concatenate([[0.0], np.cumsum(rates)])  # before each step, and at the end
    wanted = time[-1] * np.arange(1, updates + 1) / (updates + 1)
    after = np.searchsorted(time, wanted)
    steps = np.where(wanted - time[after - 1] < time[after] - wanted, after - 1, after)
    places = np.arange(updates)
    steps = places + np.maximum.accumulate(np.maximum(steps, 1) - places)  # each at least one after the one before
    return np.minimum(steps, last - updates + 1 + places).astype(np.int32)
