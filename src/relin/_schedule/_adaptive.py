"""Schedules that measure the network."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer

from relin._core import check as _check
from relin._core.context import Context
from relin._core.types import Flag, Inputs, Scalar, State, Step, Targets
from relin._schedule._base import AbstractSchedule, check_count


class AbstractWhen(AbstractSchedule):
    """Re-linearises at a check where a measure of the network reaches a tolerance.

    Subclasses give `measure`. A measure that is not a number does not re-linearise: there is no network worth
    linearising there.

    A check happens every `check_every` steps. With `max_check_every` the steps between two checks adapt: `check_every`
    at first and after a measure of half the tolerance or more (which includes every re-linearisation), twice as many as
    before after a measure below a quarter of it, and as many as before between the two. They stay a multiple of
    `check_every`, at most `max_check_every`.
    """

    tolerance: eqx.AbstractVar[Scalar | float]
    check_every: eqx.AbstractVar[Step]
    max_check_every: eqx.AbstractVar[Step | None]
    remedy: ClassVar[str] = "pass one"
    """What to do about a tolerance that is none."""

    def __check_init__(self):
        tolerance, least, most = self.tolerance, self.check_every, self.max_check_every
        check_count(least, "`check_every`", 1, "pass the number of steps between two checks")
        if most is not None:
            check_count(most, "`max_check_every`", 1, "pass the most steps between two checks, or None")
            if not isinstance(least, Tracer) and not isinstance(most, Tracer) and most < least:
                raise ValueError(
                    f"`max_check_every` must be at least `check_every`, {least}, got {most}; pass more, or None."
                )
        if not _check.is_number(tolerance, lambda tolerance: tolerance >= 0):
            raise ValueError(f"`tolerance` must be a number of at least 0, got {tolerance!r}; {self.remedy}.")

    @abc.abstractmethod
    def measure(self, context: Context) -> Scalar:
        """What is compared with the tolerance."""

    @property
    def adaptive(self) -> bool:
        return True

    def due(self, step: Step) -> Flag:
        return step % self.check_every == 0

    def init(self, context: Context) -> State:
        return self.first_check()

    def queried(self, step: Step, state: State) -> Flag:
        return True if self.max_check_every is None else step >= state[0]

    def query(self, context: Context, state: State) -> tuple[Flag, State]:
        return self.decided(self.measure(context), context.step, state)

    def first_check(self) -> State:
        """The step of the next check and the steps from the last one to it; nothing if they are fixed."""
        if self.max_check_every is None:
            return ()
        return jnp.array(self.check_every, jnp.int32), jnp.array(self.check_every, jnp.int32)  # of memory of their own

    def decided(self, measured: Scalar, step: Step, state: State) -> tuple[Flag, State]:
        """Whether to re-linearise at a measure, and when the next check is."""
        wanted = measured >= self.tolerance
        if self.max_check_every is None:
            return wanted, state
        shortest = jnp.asarray(self.check_every, jnp.int32)
        longest = jnp.asarray(self.max_check_every, jnp.int32)
        interval = next_interval(measured, self.tolerance, state[1], shortest, longest)
        return wanted, (step + interval, interval)


def next_interval(measured: Any, tolerance: Any, before: Any, shortest: Any, longest: Any, *, numpy: Any = jnp) -> Any:
    """The steps to the next check of an `AbstractWhen`, by JAX's functions or NumPy's, after `before` to this one."""
    doubled = numpy.minimum(2 * before, longest // shortest * shortest)
    interval = numpy.where(measured < tolerance / 4, doubled, before)
    return numpy.where(measured >= tolerance / 2, shortest, interval)


class WhenError(AbstractWhen):
    """Re-linearises when the relative linearisation error passes a tolerance.

    The error is ‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ over a probe batch x.

    **Arguments:**

    - `tolerance`: re-linearise where the error is at least this; 0 re-linearises at every check.
    - `check_every`: steps between two checks. A check costs about half of a step if `probe` is not given.
      Between two checks the displacement may leave the linearisation's reach: where `Every(K)` diverges at
      a learning rate, check more often than every K steps. A check at every step does not make every rate train.
    - `probe`: the inputs on which the error is measured; the first half of the coming step's batch if not given.
    - `max_check_every`: lets the steps between two checks grow up to this while the measure stays far below the
      tolerance, see `AbstractWhen`; `None` for a check every `check_every` steps.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: Inputs | None = None
    max_check_every: Step | None = None
    remedy: ClassVar[str] = "typical values are 0.05 to 0.5"

    def measure(self, context: Context) -> Scalar:
        return context.linearisation_error(context.half_batch[0] if self.probe is None else self.probe)


class WhenLossGap(AbstractWhen):
    """Re-linearises when the losses of the network and of its linearisation differ: |L(f(θ_t)) − L(f̄_t)| ≥ tolerance.

    **Arguments:**

    - `tolerance`: in the loss's unit; 0 re-linearises at every check.
    - `check_every`: steps between two checks.
    - `probe`: inputs and targets `(x, y)` on which the losses are measured; the first half of the coming step's batch
      if not given.
    - `max_check_every`: lets the steps between two checks grow up to this while the measure stays far below the
      tolerance, see `AbstractWhen`; `None` for a check every `check_every` steps.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: tuple[Inputs, Targets] | None = None
    max_check_every: Step | None = None
    remedy: ClassVar[str] = "it is a difference of losses, such as 0.1"

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        """The inputs and targets that the loss is shown, by name: they are checked before training as its data are."""
        return {} if self.probe is None else {"probe": self.probe}

    def measure(self, context: Context) -> Scalar:
        x, y = context.half_batch if self.probe is None else self.probe
        linearised, network, _ = context.predictions(x)
        loss = context.problem.loss
        return jnp.abs(loss.mean(network, y) - loss.mean(linearised, y))


class WhenFunctionMoves(AbstractWhen):
    """Re-linearises when the linearised network has moved: ‖f̄_t(x) − f(x; θ_s)‖ / √N ≥ tolerance over N inputs.

    **Arguments:**

    - `tolerance`: root mean square over the inputs, in the outputs' unit; 0 re-linearises at every check.
    - `check_every`: steps between two checks.
    - `probe`: the inputs x; the first half of the coming step's batch if not given.
    - `max_check_every`: lets the steps between two checks grow up to this while the measure stays far below the
      tolerance, see `AbstractWhen`; `None` for a check every `check_every` steps.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: Inputs | None = None
    max_check_every: Step | None = None
    remedy: ClassVar[str] = "it is a distance of outputs, such as 1.0"

    def measure(self, context: Context) -> Scalar:
        probe = context.half_batch[0] if self.probe is None else self.probe
        change = context.linearisation.jvp(context.displacement, probe)
        return jnp.linalg.norm(change) / jnp.sqrt(jnp.asarray(change.shape[0], change.dtype))
