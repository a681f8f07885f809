"""The learning rate between two re-linearisations: its course within a window, and its cap at the anchor."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.context import Context
from relin._core.repr import one_line
from relin._core.types import Inputs, Params, Scalar, Step, Targets
from relin._schedule import AbstractSchedule, check_count
from relin._solver._optax import parts, scheduled, updates_of
from relin.kernel._curvature import largest_curvature, noise

_PROBED = (0, 1, 2, 70, 700, 7_000, 70_000)
"""Steps of a run at which an optimiser's updates are looked at."""
_ROUNDING = 1e-2
"""A relative difference of updates that may be rounding, as of a momentum in bfloat16."""


class AbstractWindowRate(eqx.Module):
    """The learning rate's course within a window, the steps from one re-linearisation to the next: a factor of the
    optimiser's updates, beside the optimiser's own schedule over the run.

    A solver takes a subclass as `window_rate`. In a window that is known to be of one step the factor is 1 whatever it
    says, so that `Every(1)` is ordinary training. Of adaptive schedules it is not known: one that re-linearises at
    every step takes the factor of each window's first.
    """

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def needs_length(self) -> bool:
        """Whether the number of a window's steps must be known at its first; of adaptive schedules it is not."""
        return False

    @abc.abstractmethod
    def factor(self, step: Step, length: Step) -> Scalar:
        """Of the updates.

        **Arguments:**

        - `step`: steps since the re-linearisation, from 0; may be traced.
        - `length`: the window's steps: up to the next re-linearisation, or to the end of the run where it comes first
          or the schedule is adaptive.
        """


class CosineWindow(AbstractWindowRate):
    """Half a cosine, restarted at every re-linearisation: floor + (1 − floor) ½ (1 + cos(π k/L)) at step k of L
    (Loshchilov & Hutter 2017, arXiv:1608.03983).

    It begins at 1, and would come to the floor with the next re-linearisation. The last window ends with the run, so
    that it is shorter where K does not divide T, and with `Never()` the run is the window.

    **Arguments:**

    - `floor`: in [0, 1].
    - `steps`: L, where it is not to be the window's length; needed with adaptive schedules, whose windows have none
      that is known beforehand. From step L of a longer window the factor is the floor.

    **Raises:** `ValueError` for numbers out of range.
    """

    floor: Scalar | float = 0.0
    steps: Step | None = None

    def __check_init__(self):
        if not _check.is_number(self.floor, lambda floor: 0 <= floor <= 1):
            raise ValueError(f"`floor` must be between 0 and 1, got {self.floor}; pass 0 to end at a rate of zero.")
        if self.steps is not None:
            check_count(self.steps, "`steps`", 1, "pass the steps in which the rate falls, or None for the window's")

    @property
    def needs_length(self) -> bool:
        return self.steps is None

    def factor(self, step: Step, length: Step) -> Scalar:
        done = jnp.minimum(jnp.asarray(step, float) / (length if self.steps is None else self.steps), 1.0)
        return self.floor + (1 - self.floor) * 0.5 * (1 + jnp.cos(jnp.pi * done))


class WarmUpWindow(AbstractWindowRate):
    """A linear warm-up restarted at every re-linearisation: (k + 1)/(W + 1) at its steps k < W, then 1.

    **Arguments:**

    - `steps`: W. In a window that is known to be no longer than that it takes all steps but the last; with adaptive
      schedules, that is the steps left to the end of the run.

    **Raises:** `ValueError` for numbers out of range.
    """

    steps: Step

    def __check_init__(self):
        check_count(self.steps, "`steps`", 0, "pass the steps in which the rate rises")

    def factor(self, step: Step, length: Step) -> Scalar:
        steps = jnp.minimum(self.steps, jnp.asarray(length) - 1)
        return jnp.minimum(jnp.asarray(step + 1, float) / (steps + 1), 1.0)


class RateCap(eqx.Module):
    """Caps the learning rate of a window at c · 2 (1 + β)/λ_max, with λ_max of the linearised problem at its anchor.

    Gradient descent with momentum β on the linearised problem is stable below 2 (1 + β)/λ_max, λ_max the largest
    eigenvalue of G = JᵀHJ/N at the anchor (plus the solver's `proximal` λ); above, the squared error grows
    exponentially in the steps that the window has left, while cross-entropy, whose H falls as outputs grow, levels off.
    Where windows of SGD fail, λ_max at their anchors is about at the limit (docs/windows.md): the cap shortens the
    displacement there. The updates are multiplied by
    min(w, c · 2 (1 + β)/(λ_max η_t)), with η_t the optimiser's rate at step t of the run and w the factor of
    `window_rate`, or 1.

    λ_max comes from a few products with G at each anchor, on the coming batch, from the last anchor's vector and fresh
    noise in equal parts. It is approached from below. A product costs about as much as a step without its optimiser,
    and the vector as much memory as the parameters. At `Every(1)` every step has an anchor of its own, so that the cap
    acts on ordinary training too.

    Records hold `anchor_sharpness`, λ_max at the last anchor, `curvature_products`, those made so far, and
    `rate_factor`, what the last updates were multiplied by.

    **Arguments:**

    - `c`: the part of the limit that is allowed, above 0.
    - `rate`: η, the optimiser's learning rate: a number, or the same function of the step that it has.
    - `momentum`: β, the optimiser's.
    - `products`: the most at an anchor; fewer are made where λ_max is known to rounding before. Of 10 the networks
      tried took 7 to 10, and 5 missed λ_max by 1 % in a CNN. Drives may differ by one product.
    - `probe`: inputs and targets `(x, y)` whose λ_max is meant; the batch of the window's first step if not given,
      whose λ_max is on average above that of all examples.

    **Raises:** `ValueError` where a run begins, of many lanes the first, unless the optimiser's updates of a few small
    gradients, at its first three steps and some later ones, are those of gradient descent with this rate and momentum;
    and for a number as `rate` where the optimiser has a schedule, and for `optax.contrib.reduce_on_plateau`. The limit
    of others, such as Adam, which scale each coordinate, is that of G between these scales, which is not λ_max(G); that
    of Nesterov's momentum is lower. Clipping passes: it leaves small gradients as they are and shortens others. A
    weight decay of up to 10⁻³ passes; its curvature, which is as much, is left out of λ_max.
    """

    c: Scalar | float
    rate: Scalar | float | Callable[[Step], Scalar]
    momentum: Scalar | float = 0.0
    products: int = eqx.field(static=True, default=10)
    probe: tuple[Inputs, Targets] | None = None

    def __check_init__(self):
        if not _check.is_number(self.c, lambda c: 0 < c < math.inf):
            raise ValueError(f"`c` must be above 0 and finite, got {self.c}; 0.5 is half of what is stable.")
        if not (callable(self.rate) or _check.is_number(self.rate, lambda rate: 0 <= rate < math.inf)):
            raise ValueError(
                f"`rate` must be at least 0 and finite, or a function of the step, got {self.rate!r}; pass the "
                "optimiser's."
            )
        if not _check.is_number(self.momentum, lambda momentum: 0 <= momentum < 1):
            raise ValueError(f"`momentum` must be at least 0 and below 1, got {self.momentum}; pass the optimiser's.")
        _check.count(self.products, "products", "10 are usual")

    def __repr__(self) -> str:
        return one_line(self)

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        """The inputs and targets that the loss is shown, by name: they are checked before training as its data are."""
        return {} if self.probe is None else {"probe": self.probe}

    def check(self, optimiser: optax.GradientTransformation, params: Params) -> None:
        """Raises `ValueError` unless the optimiser is gradient descent with this rate and momentum: its updates are
        probed with one number of each parameter, in single precision whatever the parameters' own."""
        random = np.random.default_rng(0)

        def small(a: Array) -> Array:  # of one sign, so that nothing cancels in a momentum
            return jnp.asarray(random.uniform(5e-4, 1.5e-3, (1,) * a.ndim), jnp.float32)

        at, *gradients = (jax.tree.map(small, params) for _ in range(1 + len(_PROBED)))
        self._check_schedule(optimiser.init(at))
        moments = [0.0] * len(jax.tree.leaves(at))
        for step, *trees in zip(_PROBED, gradients, updates_of(optimiser, at, gradients, _PROBED), strict=True):
            gradient, update = (map(np.asarray, jax.tree.leaves(tree)) for tree in trees)
            moments = [new + float(self.momentum) * old for new, old in zip(gradient, moments, strict=True)]
            rate = float(self.rate_at(jnp.asarray(step, jnp.int32)))
            wanted = (-rate * moment for moment in moments)
            if not all(np.allclose(*pair, rtol=_ROUNDING, atol=1e-30) for pair in zip(update, wanted, strict=True)):
                raise ValueError(
                    "RateCap bounds the rate of gradient descent, with or without momentum, and must be given both as "
                    f"the optimiser has them, got rate {rate:.3g} at step {step} and momentum "
                    f"{float(self.momentum):.3g}, with which the optimiser's updates do not agree; pass its own, or "
                    "leave the cap out with Adam, weight decay above 0.001 and the like."
                )

    def _check_schedule(self, state: Any) -> None:
        """Raises `ValueError` for an optimiser whose rate changes in a way that `rate` does not."""
        if parts(state, optax.contrib.ReduceLROnPlateauState):
            raise ValueError(
                "RateCap must be given the optimiser's rate, got optax.contrib.reduce_on_plateau, whose rate follows "
                "the loss; leave one of them out."
            )
        if scheduled(state) and not callable(self.rate):
            raise ValueError(
                "RateCap must be given the optimiser's rate, got a schedule in the optimiser and the number "
                f"{float(self.rate):.3g}; pass the schedule as `rate`."
            )

    def rate_at(self, step: Step) -> Any:
        """The optimiser's learning rate at a step."""
        return self.rate(step) if callable(self.rate) else self.rate

    def begun(self, context: Context, before: "Curvature") -> "Curvature":
        """λ_max at the anchor of a new window."""
        start = _mixed(before.vector, context.step)
        probe = context.batch if self.probe is None else self.probe
        found = largest_curvature(context, probe, start, tolerance=0.0, max_products=self.products)
        value = jnp.asarray(found.value, before.sharpness.dtype)
        vector = jax.tree.map(jnp.asarray, found.vector)
        return Curvature(value, vector, before.products + jnp.asarray(found.products, jnp.int32))

    def capped(self, factor: Scalar, step: Step, curvature: "Curvature", damping: Scalar | float) -> Scalar:
        """At most so much of a factor of the rate of a step."""
        largest, rate = curvature.sharpness + damping, self.rate_at(step)
        limit = self.c * 2 * (1 + self.momentum) / (largest * rate)
        return jnp.where((largest <= 0) | (rate == 0), factor, jnp.minimum(factor, limit))


class Curvature(eqx.Module):
    """That of the linearised problem at the last anchor."""

    sharpness: Float[Array, ""]
    """Not a number before the first window."""
    vector: Params
    products: Int[Array, ""]


class Window(eqx.Module):
    """Where a run is between two re-linearisations."""

    step: Int[Array, ""]
    """Since the last one; at 0 the window's first step is yet to come."""
    start: Int[Array, ""]
    """The step of the run with which the window began."""
    length: Int[Array, ""]
    """See `AbstractWindowRate.factor`."""
    factor: Float[Array, ""]
    """Of the last updates."""
    curvature: Curvature | None

    def again(self) -> "Window":
        """At a re-linearisation."""
        return eqx.tree_at(lambda window: window.step, self, jnp.zeros_like(self.step))


class WindowRates(eqx.Module):
    """What decides the rate within a window, beside the optimiser."""

    course: AbstractWindowRate | None
    cap: RateCap | None

    def check(self, optimiser: optax.GradientTransformation, schedule: AbstractSchedule, params: Params) -> None:
        """Raises `ValueError` for a schedule or an optimiser that they do not go with."""
        if schedule.partial and (self.course, self.cap) != (None, None):
            raise ValueError(
                "`window_rate` and `rate_cap` must be used with one schedule for all parameters, got PerParameter, "
                "whose parts have windows of their own; leave them out, or pass one schedule."
            )
        if schedule.adaptive and self.course is not None and self.course.needs_length:
            raise ValueError(
                f"{self.course} needs the lengths of windows beforehand, got {schedule}, which decides on the way; "
                "pass CosineWindow(steps=…), or a schedule such as Every(64)."
            )
        if self.cap is not None:
            self.cap.check(optimiser, params)

    def init(self, params: Params) -> Window | None:
        """Before step 0."""
        if self.course is None and self.cap is None:
            return None
        zero, unknown = jnp.zeros((), jnp.int32), jnp.full((), jnp.nan, _tree.dtype_of(params))
        curvature = None if self.cap is None else Curvature(unknown, _tree.zeros_like(params), zero)
        return Window(zero, zero, zero, jnp.ones_like(unknown), curvature)

    def begun(self, context: Context, window: Window, length: Step) -> Window:
        """Before the first step of a window."""
        curvature = window.curvature
        if self.cap is not None and curvature is not None:
            curvature = self.cap.begun(context, curvature)
        start, length = (jnp.asarray(number, jnp.int32) for number in (context.step, length))
        return Window(jnp.zeros_like(window.step), start, length, window.factor, curvature)

    def taken(self, window: Window, damping: Scalar | float = 0.0) -> Window:
        """After a step, with the factor of its updates."""
        factor = jnp.ones_like(window.factor)
        if self.course is not None:
            given = self.course.factor(window.step, window.length)
            factor = jnp.where(window.length == 1, factor, given).astype(factor.dtype)
        if self.cap is not None and window.curvature is not None:
            factor = self.cap.capped(factor, window.start + window.step, window.curvature, damping)
            factor = factor.astype(window.factor.dtype)
        return Window(window.step + 1, window.start, window.length, factor, window.curvature)

    def measures(self, window: Window | None) -> dict[str, Shaped[Array, ""]]:
        """What each record says of them; in ordinary training there is no window, and the factor is 1."""
        if window is None:
            return {} if self.course is None else {"rate_factor": jnp.ones(())}
        found: dict[str, Shaped[Array, ""]] = {"rate_factor": window.factor}
        if window.curvature is not None:
            found["anchor_sharpness"] = window.curvature.sharpness
            found["curvature_products"] = window.curvature.products
        return found


def check_rates(course: Any, cap: Any) -> None:
    """Raises `TypeError` unless these are what solvers take as `window_rate` and `rate_cap`."""
    if not (course is None or isinstance(course, AbstractWindowRate)):
        raise TypeError(f"`window_rate` must be one such as relin.CosineWindow() or None, got {course!r}; pass one.")
    if not (cap is None or isinstance(cap, RateCap)):
        raise TypeError(f"`rate_cap` must be a relin.RateCap or None, got {cap!r}; pass one.")


def _mixed_parts(vector: Params, step: Step) -> Params:
    random = noise(jax.random.fold_in(jax.random.key(0), step), vector)
    return _tree.add(vector, _tree.scale(1 / _tree.norm(random), random))


_mixed = eqx.filter_jit(_mixed_parts)
"""The last vector, of length 1 or 0, and as much noise: a start that has a part along every eigenvector."""
