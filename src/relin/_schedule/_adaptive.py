"""Schedules that look at the network."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from relin._context import Context
from relin._schedule._base import AbstractSchedule, check_count
from relin._types import Flag, Inputs, Scalar, State, Step, Targets


class AbstractWhen(AbstractSchedule):
    """Re-linearises at a check where a measure of the network reaches a tolerance.

    Subclasses give `measure`. A measure that is not a number does not re-linearise: there is no network worth
    linearising there.
    """

    tolerance: eqx.AbstractVar[Scalar | float]
    check_every: eqx.AbstractVar[Step]

    @abc.abstractmethod
    def measure(self, context: Context) -> Scalar:
        """What is compared with the tolerance."""

    @property
    def adaptive(self) -> bool:
        return True

    def due(self, step: Step) -> Flag:
        return step % self.check_every == 0

    def query(self, context: Context, state: State) -> tuple[Flag, State]:
        return self.measure(context) >= self.tolerance, state


class WhenError(AbstractWhen):
    """Re-linearises when the relative linearisation error passes a tolerance.

    The error is ‖f(x; θ_t) − f̄_t(x)‖ / ‖f(x; θ_t) − f(x; θ_s)‖ over a probe batch x.

    **Arguments:**

    - `tolerance`: re-linearise where the error is at least this; 0 re-linearises at every check.
    - `check_every`: steps between two looks at the error. A look costs about as much as a step on a probe of the
      batch's size. Between two looks the displacement may leave the linearisation's reach: where `Every(K)` diverges at
      a learning rate, look more often than every K steps; 1 is the safe choice.
    - `probe`: the inputs on which the error is measured; the coming step's batch if not given.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: Inputs | None = None

    def __check_init__(self):
        check_tolerance(self.tolerance, self.check_every, "typical values are 0.05 to 0.5")

    def measure(self, context: Context) -> Scalar:
        return context.linearisation_error(context.inputs if self.probe is None else self.probe)


class WhenLossGap(AbstractWhen):
    """Re-linearises when the losses of the network and of its linearisation differ: |L(f(θ_t)) − L(f̄_t)| ≥ tolerance.

    **Arguments:**

    - `tolerance`: in the loss's unit; 0 re-linearises at every check.
    - `check_every`: steps between two looks.
    - `probe`: inputs and targets `(x, y)` on which the losses are measured; the coming step's batch if not given.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: tuple[Inputs, Targets] | None = None

    def __check_init__(self):
        check_tolerance(self.tolerance, self.check_every, "it is a difference of losses, such as 0.1")

    def measure(self, context: Context) -> Scalar:
        x, y = context.batch if self.probe is None else self.probe
        linearised, network, _ = context.predictions(x)
        loss = context.problem.loss
        return jnp.abs(loss.mean(network, y) - loss.mean(linearised, y))


class WhenFunctionMoves(AbstractWhen):
    """Re-linearises when the linearised network has moved: ‖f̄_t(x) − f(x; θ_s)‖ / √N ≥ tolerance over N inputs.

    **Arguments:**

    - `tolerance`: root mean square over the inputs, in the outputs' unit; 0 re-linearises at every check.
    - `check_every`: steps between two looks.
    - `probe`: the inputs x; the coming step's batch if not given.
    """

    tolerance: Scalar | float
    check_every: Step = 10
    probe: Inputs | None = None

    def __check_init__(self):
        check_tolerance(self.tolerance, self.check_every, "it is a distance of outputs, such as 1.0")

    def measure(self, context: Context) -> Scalar:
        moved = context.linearisation.jvp(context.displacement, context.inputs if self.probe is None else self.probe)
        return jnp.linalg.norm(moved) / jnp.sqrt(jnp.asarray(moved.shape[0], moved.dtype))


def check_tolerance(tolerance: Scalar | float, check_every: Step, remedy: str) -> None:
    """Raises `TypeError` or `ValueError` unless both fit an adaptive schedule."""
    check_count(check_every, "`check_every`", 1, "pass the number of steps between two checks")
    if isinstance(tolerance, jax.Array | np.ndarray | np.generic):
        return
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not tolerance >= 0:
        raise ValueError(f"`tolerance` must be a number of at least 0, got {tolerance!r}; {remedy}.")
