"""Schedules fixed in advance."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

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


class AtSteps(AbstractSchedule):
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
            steps = np.unique(values).astype(np.int32)
        self.steps = steps

    def due(self, step: Step) -> Flag:
        if self.steps.size == 0:
            return False
        return jnp.any(self.steps == step)


class Geometric(AbstractSchedule):
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

    def due(self, step: Step) -> Flag:
        steps = jnp.asarray(self.steps)
        place = jnp.searchsorted(steps, step)
        return jnp.where(place < steps.size, steps[jnp.minimum(place, steps.size - 1)] == step, False)
