"""When a network that is linearised in a loop of the user's own re-linearises."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from relin._core import tree as _tree
from relin._core.compiler import check_sums
from relin._core.context import relative_error
from relin._core.expansion import Predictions
from relin._core.types import Flag, Params, Scalar, Step
from relin._schedule import AbstractSchedule, WhenError, WhenFunctionMoves, innermost

_Measure = Callable[[Predictions], Scalar]
Counts = list[Int[Array, ""]]
"""How often the anchor moved, and what an adaptive schedule keeps: the next check and the steps to it."""


class When:
    """A schedule as a static part of a module: equal to another one of equal numbers. `None` is never."""

    def __init__(self, schedule: AbstractSchedule | None):
        _check(schedule)
        check_sums()
        leaves, structure = jax.tree.flatten(schedule)
        self.schedule = jax.tree.unflatten(
            structure, [np.asarray(leaf) if _is_array(leaf) else leaf for leaf in leaves]
        )
        self._identity = structure, tuple((np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, When) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return repr(self.schedule)

    @property
    def every_step(self) -> bool:
        """Whether it is ordinary training."""
        return self.schedule is not None and self.schedule.every_step

    @property
    def _adaptive(self) -> Any:
        """What decides by a measure; `None` where the step alone does."""
        return innermost(self.schedule) if self.schedule is not None and self.schedule.adaptive else None

    def start(self) -> Counts:
        """The counts before step 0."""
        checks = () if self._adaptive is None else self._adaptive.first_check()
        return [jnp.zeros((), jnp.int32), *checks]

    def after_step(
        self, step: Step, params: Params, anchor: Params, counts: Counts, predictions: Callable[[], Predictions] | None
    ) -> tuple[Params, Counts]:
        """The anchor of this step, θ where the schedule moves it, and the counts.

        **Raises:** `ValueError` for an adaptive schedule without predictions.
        """
        if self.every_step:
            return params, [counts[0] + 1]
        due = False if self.schedule is None else self.schedule.due(step)
        checks = tuple(counts[1:])
        if self._adaptive is not None:
            if predictions is None:
                raise ValueError(
                    f"{type(self._adaptive).__name__} measures the network, got no function that calls it; pass one, "
                    "such as step(lambda network: network(x)) with the inputs x of the coming step."
                )
            measure = _MEASURES[type(self._adaptive)]
            due, checks = self._asked(due, step, checks, partial(_measured, measure, params, anchor, predictions))
        return _tree.select(due, params, anchor), [counts[0] + due, *checks]

    def _asked(
        self, due: Flag, step: Step, checks: tuple[Array, ...], measured: Callable[[], Scalar]
    ) -> tuple[Flag, tuple[Array, ...]]:
        """Measures at due steps only; at the others this costs nothing."""
        when = self._adaptive

        def asked(checks: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
            wanted, checks = when.decided(measured(), jnp.asarray(step, jnp.int32), checks)
            return jnp.asarray(wanted), checks

        queried = due & when.queried(step, checks)
        if isinstance(queried, Tracer):
            return jax.lax.cond(queried, asked, lambda checks: (jnp.asarray(False), checks), checks)
        return asked(checks) if queried else (False, checks)


def linearisation_error(params: Params, anchor: Params, predictions: Callable[[], Predictions]) -> Scalar:
    """‖f(θ) − f̄‖ / ‖f(θ) − f(θ_s)‖ over a probe; 0 at an anchor."""
    return _measured(_relative_error, params, anchor, predictions)


def _measured(measure: _Measure, params: Params, anchor: Params, predictions: Callable[[], Predictions]) -> Scalar:
    """A measure of predictions; 0 at an anchor, where they differ by rounding only."""
    measured = measure(predictions())
    return jnp.where(_tree.norm(_tree.subtract(params, anchor)) == 0, jnp.zeros_like(measured), measured)


def _relative_error(found: Predictions) -> Scalar:
    """‖f(θ) − f̄‖ / ‖f(θ) − f(θ_s)‖; 0 where nothing moved."""
    linearised = [a + b for a, b in zip(found.at_anchor, found.tangent, strict=True)]
    return relative_error(*map(_flat, (linearised, found.network, found.at_anchor)))


def _root_mean_square(found: Predictions) -> Scalar:
    """‖J_s (θ − θ_s)‖ / √N over N inputs."""
    return jnp.linalg.norm(_flat(found.tangent)) / max(1, len(found.tangent[0])) ** 0.5


_MEASURES: dict[type, _Measure] = {WhenError: _relative_error, WhenFunctionMoves: _root_mean_square}


def _flat(leaves: list[Array]) -> Array:
    """One vector, in single precision at least."""
    return jnp.concatenate([leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)).reshape(-1) for leaf in leaves])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _check(schedule: Any) -> None:
    if schedule is None:
        return
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(
            f"`schedule` must be a relin schedule or None, got {schedule!r}; pass for example relin.Every(64), or None "
            "to call relinearise() yourself."
        )
    when = innermost(schedule)
    if schedule.partial or (schedule.adaptive and type(when) not in _MEASURES):
        raise ValueError(
            f"`schedule` must need no more than the network's outputs, got {type(when).__name__}; use WhenError or "
            "WhenFunctionMoves, pass None and call relinearise() where a condition of your own holds, or use "
            "relin.train."
        )
    if schedule.adaptive and getattr(when, "probe", None) is not None:
        raise ValueError(
            f"`schedule` must have no probe, got {type(when).__name__} with one; leave it out, and call the network on "
            "it in the function that step() is given."
        )
