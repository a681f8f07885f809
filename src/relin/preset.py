"""Combinations of parts that were measured to work together."""

from typing import Any, Literal, cast

import equinox as eqx
import jax
import numpy as np
import optax

from relin._core import check as _check
from relin._core.types import Scalar, Step
from relin._safeguard import AbstractSafeguard, check_safeguard
from relin._schedule import AbstractSchedule, Every
from relin._solver import WeightSpace


class Preset(eqx.Module):
    """The parts of a run, as `train` and `Run` take them.

    p = relin.preset.sparse(optax.sgd(0.1, momentum=0.9), 256)
    relin.train(problem, p.solver, p.schedule, params, data, safeguard=p.safeguard, …)
    relin.Run(problem, p.solver, p.schedule, params, key, p.safeguard)
    """

    solver: WeightSpace
    schedule: AbstractSchedule
    safeguard: AbstractSafeguard | None


# What the docstring says of docs/results; tests/docs/test_results.py asks the records.
# holds: not any(untrained("*+sparse", of=f) for f in folders() if result(f).study in ("frequency", "stability"))
# holds: all(trains_to("every-1", f"stability-{d}-mlp") == to for d, to in (("digits", 0.1), ("mnist1d", 0.3)))
# holds: max(trains_to(f"every-{K}", f) for K in (4, 16, 64, 256) for f in folders("stability-[dm]*-mlp")) == 0.1
# holds: sorted(o.learning_rate for o in outcomes("*+sparse", "stability-mnist1d-mlp")) == [0.3, 1, 1, 1]
def sparse(
    optimiser: optax.GradientTransformation,
    schedule: AbstractSchedule | Step,
    *,
    clip: Scalar | float = 0.3,
    on_relinearise: Literal["keep", "reset"] | float = "keep",
    safeguard: AbstractSafeguard | None = None,
) -> Preset:
    """Re-linearises rarely, with the gradient clipped against divergence at rates that ordinary training likes.

    After a re-linearisation the network may be far from what its linearisation promised, and the next linearised
    problem too steep for the learning rate. One of its steps then throws the displacement away, and a safeguard, which
    judges a displacement only when it is complete, can but refuse it again and again. The preset bounds each step
    instead: it clips the gradient's global norm before the optimiser sees it (Pascanu et al., arXiv:1211.5063).

    **Measured** with SGD, momentum 0.9, rates falling linearly to 0, batch 64. In the studies of docs/results every run
    of the preset trained: on MLPs, digits and mnist1d, at every rate offered, up to 1, with K of 4 to 256, where those
    periods alone train up to 0.1 at most, and ordinary training up to 0.1 and 0.3. `python -m benchmarks preset`
    compares it with periods alone at more K.

    **When to use it:** for SGD with momentum, at periods at which the rates that ordinary training likes diverge.
    Offer it larger rates: what bounds a step is rate × clip, and offered rates to 1 on mnist1d it does best at that
    or at 0.3.

    **When not:** at rates small enough for `Every(K)` alone, where the bound only slows training; with Adam and
    others that divide by the gradient's size, where clipping bounds nothing.

    **Arguments:**

    - `optimiser`: as for `WeightSpace`; what it adds to the gradient, such as weight decay, is not clipped.
    - `schedule`: a schedule, or a period K for `Every(K)`.
    - `clip`: the largest global norm of a gradient. At a low rate a larger bound slows training less.
    - `on_relinearise`: as for `WeightSpace`.
    - `safeguard`: one to use besides; none was needed there. A safeguard judges by one batch, which is noisy,
      and may stop short of displacements that would have been good: compare before adding one.

    **Returns:** a `Preset`.

    **Raises:** `TypeError` or `ValueError` for parts of the wrong kind, `clip` not above 0, or a period below 1.
    """
    _check.optimiser(optimiser)
    _check_clip(clip)
    check_safeguard(safeguard)
    solver = WeightSpace(optax.chain(optax.clip_by_global_norm(clip), optimiser), on_relinearise)
    return Preset(solver, _scheduled(schedule), safeguard)


def _scheduled(schedule: Any) -> AbstractSchedule:
    """A schedule as it is, a period K as `Every(K)`."""
    if isinstance(schedule, AbstractSchedule):
        return schedule
    if isinstance(schedule, int | jax.Array | np.ndarray | np.generic) and not isinstance(schedule, bool):
        return Every(cast(Step, schedule))
    raise TypeError(
        f"`schedule` must be a relin schedule or a period K in whole steps, got {schedule!r}; "
        "pass for example 256, or relin.Never() for K = ∞."
    )


def _check_clip(clip: Any) -> None:
    """Raises unless the bound on the gradient is a positive number, or one array, which may be traced."""
    if isinstance(clip, jax.Array | np.ndarray | np.generic):
        if clip.ndim != 0:
            raise ValueError(f"`clip` must be one number, got shape {clip.shape}; pass one bound for all parameters.")
    elif not isinstance(clip, int | float) or isinstance(clip, bool) or not clip > 0:
        raise ValueError(f"`clip` must be a number above 0, got {clip!r}; 0.3 is the bound that was measured.")
