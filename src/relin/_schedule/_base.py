"""When to re-linearise."""

import abc

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree, Shaped

from relin._core.check import LARGEST_COUNT
from relin._core.context import Context
from relin._core.repr import one_line
from relin._core.types import Flag, Flags, Params, State, Step


class AbstractSchedule(eqx.Module):
    """Decides before which steps the network is re-linearised.

    A schedule that depends on the step alone gives `due`. One that depends on the network is *adaptive*: it gives
    `init` and `query` too, and `query` is evaluated at due steps only, so that `due` bounds its cost. One that need not
    be queried at every due step gives `queried`, which decides from its state.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for old, new in (("looks", "queried"), ("moves", "relinearised")):
            if old in vars(cls):
                raise TypeError(f"A schedule's method `{new}` was once `{old}`, got {cls.__name__}; rename it.")

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def adaptive(self) -> bool:
        """Whether it must be queried; otherwise every due step re-linearises."""
        return False

    @property
    def every_step(self) -> bool:
        """Whether it is known, without tracing, that every step re-linearises: ordinary training."""
        return False

    @property
    def partial(self) -> bool:
        """Whether it may re-linearise a part of the parameters: `query` then returns flags for `relinearised`."""
        return False

    @abc.abstractmethod
    def due(self, step: Step) -> Flag:
        """Whether a re-linearisation may happen before this step. `step` counts from 0 and may be traced."""

    def init(self, context: Context) -> State:
        """The schedule's state before step 0."""
        return ()

    def queried(self, step: Step, state: State) -> Flag:
        """Whether the schedule is queried at a due step; where not, nothing is re-linearised."""
        return True

    def query(self, context: Context, state: State) -> tuple[Flags, State]:
        """At a due step after step 0: whether to re-linearise, and the new state."""
        return True, state

    def relinearised(self, wanted: Flags, params: Params) -> PyTree[Flag]:
        """Which parameters `query` has re-linearised, a PyTree like `params`: all or none, unless partial."""
        return jax.tree.map(lambda _: wanted, params)

    def measures(self, state: State, feature_updates: Int[Array, ""]) -> dict[str, Shaped[Array, ""]]:
        """What each record says of the schedule itself, by name; nothing unless it overrides this."""
        return {}


def check_count(value: Step, name: str, least: int, remedy: str) -> None:
    """Raises `TypeError` or `ValueError` unless `value` is an integer from `least` to `LARGEST_COUNT`, or traced."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if value.ndim != 0 or not np.issubdtype(value.dtype, np.integer):
            raise TypeError(f"{name} must be one integer, got {value.dtype} of shape {value.shape}; {remedy}.")
        if isinstance(value, Tracer):
            return
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}; {remedy}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}; {remedy}.")
    if value > LARGEST_COUNT:
        raise ValueError(f"{name} must be at most {LARGEST_COUNT:,}, got {value:,}; {remedy}.")
