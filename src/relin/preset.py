"""Combinations of parts that were measured to work together."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from relin._core import check as _check
from relin._core.types import Scalar, Step
from relin._safeguard import AbstractSafeguard, check_safeguard
from relin._schedule import AbstractSchedule, Every
from relin._solver import GradientBound, WeightSpace, grows_with_gradient


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
# holds: not any(untrained("*+sparse", of=f) for f in folders("stability-*"))
# holds: not any(untrained("*+sparse", of=f) for f in folders("frequency-*") if spec(f).sparse_periods)
# holds: all(trains_to("every-1", f"stability-{d}-mlp") == to for d, to in (("digits", 0.1), ("mnist1d", 0.3)))
# holds: max(trains_to(f"every-{K}", f) for K in (4, 16, 64, 256) for f in folders("stability-[dm]*-mlp")) == 0.1
# holds: sorted(o.learning_rate for o in outcomes("*+sparse", "stability-mnist1d-mlp")) == [0.3, 1, 1, 1]
# holds: loses("every-100", "frequency-fashion-cnn-muon") < loses("every-16+sparse", "frequency-fashion-cnn")
# holds: round(share("every-100", "frequency-fashion-cnn-muon")) == 1
# holds: round(share("every-16+sparse", "frequency-fashion-cnn")) == 6
# holds: [spec(f"frequency-fashion-cnn{m}").steps for m in ("-muon", "")] == [3000, 1000]
# holds: rate("every-100", "frequency-fashion-cnn-muon") == 0.015
def sparse(
    optimiser: optax.GradientTransformation,
    schedule: AbstractSchedule | Step,
    *,
    clip: Scalar | float = 0.3,
    on_relinearise: Literal["keep", "reset"] | float = "keep",
    safeguard: AbstractSafeguard | None = None,
) -> Preset:
    """Re-linearises rarely, without a longer Jacobian making longer steps.

    After a re-linearisation the network may be far from what its linearisation promised, and the next linearised
    problem steeper. Where the optimiser's step grows with the gradient, one step of it may then throw the displacement
    away, and a safeguard, which judges a displacement only when it is complete, can but refuse it again and again.
    What trains has steps of bounded length. Those of Adam, Lion and Muon are that by themselves, and are left as they
    are; of SGD and whatever else has steps that grow with the gradient, the gradient's global norm is clipped before
    the optimiser sees it (Pascanu et al., arXiv:1211.5063). Which kind it is, is seen once, from its own updates of
    small gradients, whatever the network's size: of the second kind where the update of any parameter is longer for
    twice the gradient. Some that have a bound of their own at larger gradients are taken for that kind too, and
    clipped: Adagrad and Yogi, whose steps grow until the gradient's numbers are about 0.3 and 0.03, the square roots of
    what Optax's accumulators of them begin with; RAdam, whose first steps grow; and optimisers that clip at more, or
    add noise to the gradient. `WeightSpace(optimiser)` trains them without the clipping.

    **Which optimiser:** on a CNN on Fashion-MNIST, Muon lost less in 3000 steps with updates in 1 % of them than SGD
    with this preset in 1000 steps with updates in 6 %. T differs there, so not all of that need be the
    optimiser's; the page *Which parts, when* of the documentation has the numbers. This is the Muon that was measured,
    its kernels taken as matrices (`matrices`):

    rate = optax.linear_schedule(0.015, 0.0, 3000)
    optimiser = optax.contrib.muon(rate, consistent_rms=0.2, muon_weight_dimension_numbers=relin.preset.matrices())
    p = relin.preset.sparse(optimiser, 100)

    **Measured** with SGD, momentum 0.9, rates falling linearly to 0, batch 64: every run of the preset in the studies
    of docs/results trained. On MLPs, digits and mnist1d, it did at every rate offered, up to 1, with K of 4 to 256,
    where those periods alone train up to 0.1 at most, and ordinary training up to 0.1 and 0.3.
    `python -m benchmarks preset` compares it with periods alone at more K. Offer SGD larger rates than without the
    preset: what bounds a step is rate × clip, and offered rates to 1 on mnist1d it does best at that or at 0.3.

    **When not:** with SGD at rates small enough for `Every(K)` alone, where the bound only slows training.

    **Arguments:**

    - `optimiser`: as for `WeightSpace`; what it adds to the gradient, such as weight decay, is not clipped.
    - `schedule`: a schedule, or a period K for `Every(K)`.
    - `clip`: the largest global norm of a gradient, for an optimiser whose step grows with it; others are not clipped.
      At a low rate a larger bound slows training less.
    - `on_relinearise`: as for `WeightSpace`; the bound stays as it is.
    - `safeguard`: one to use besides; none was needed there. A safeguard judges by one batch, which is noisy,
      and may stop short of displacements that would have been good: compare before adding one.

    **Returns:** a `Preset`.

    **Raises:** `TypeError` or `ValueError` for parts of the wrong kind, `clip` not above 0, or a period below 1.
    """
    _check.optimiser(optimiser)
    _check_clip(clip)
    check_safeguard(safeguard)
    solver = WeightSpace(optax.chain(_clipped_where_needed(optimiser, clip), optimiser), on_relinearise)
    return Preset(solver, _scheduled(schedule), safeguard)


def _clipped_where_needed(optimiser: optax.GradientTransformation, clip: Any) -> optax.GradientTransformation:
    """Clips a gradient's global norm if the steps of this optimiser grow with it."""

    def init(params: Any) -> GradientBound:
        kind = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        bound = jnp.where(grows_with_gradient(optimiser, params), clip, jnp.inf)
        return GradientBound(jnp.asarray(bound, kind))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return optax.clip_by_global_norm(state.bound).update(updates, optax.EmptyState())[0], state

    return optax.GradientTransformation(init, update)


@cache  # one function, so that what is compiled with it is found again
def matrices(output_axis: int = -1) -> Callable[[Any], Any]:
    """For `optax.contrib.muon(muon_weight_dimension_numbers=…)`: kernels of convolutions are matrices from all that an
    output sees to the outputs, beside parameters of two axes. All others are left to its Adam, as Optax leaves kernels.

    **Arguments:**

    - `output_axis`: of a kernel's outputs: −1, the last, as in relin's own and Flax' networks, or 0, as in PyTorch's
      and Equinox'.

    **Raises:** `ValueError` for another axis.
    """
    if output_axis not in (-1, 0):
        raise ValueError(f"`output_axis` must be -1, the last, or 0, got {output_axis!r}; pass one of these.")

    def of(leaf: Any) -> Any:
        if leaf.ndim < 2:
            return None
        if leaf.ndim == 2:
            return optax.contrib.MuonDimensionNumbers()
        outputs = output_axis % leaf.ndim
        return optax.contrib.MuonDimensionNumbers(tuple(n for n in range(leaf.ndim) if n != outputs), outputs)

    return partial(jax.tree.map, of)


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
