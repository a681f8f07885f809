"""How far the empirical neural tangent kernel has moved."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Shaped

from relin._core.context import Context
from relin._core.problem import Problem
from relin._core.types import Inputs, Params, Scalar, Step, Targets
from relin._observer._base import AbstractObserver
from relin.kernel._arguments import check_inputs, check_outputs, check_size
from relin.kernel._independence import refuse_coupled
from relin.kernel._metrics import cka, distance, effective_rank, relative_change, target_alignment
from relin.kernel._ntk import REMEDY, unchecked_ntk

Record = dict[str, Shaped[Array, ""]]

_METRICS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "kernel_distance": (distance, 0.0),
    "kernel_change": (relative_change, 0.0),
    "kernel_cka": (cka, 1.0),
}
"""The metrics of two kernels, with their value of a kernel and itself."""


class DriftState(eqx.Module):
    """The kernels of the first and the last record, and what the last record said."""

    first: Float[Array, "N N ..."]
    last: Float[Array, "N N ..."]
    step: Int[Array, ""]
    feature_updates: Int[Array, ""]
    """Of the last record; −1 before the first."""
    record: Record
    unmoved: Record
    """What a next record says of the way from the last one, if the anchor stays."""


class KernelDrift(AbstractObserver):
    """How the empirical NTK Θ_s of a probe set moves, and what it is aligned with.

    Θ_s = J_s J_sᵀ is taken at the anchor θ_s: it is the kernel of the linearised network that is trained. A record at
    step t shows the anchor of the step before it; with `Every(1)`, ordinary training, that is θ_{t−1}. The kernel is
    computed where the anchor moved since the last record and nowhere else: between feature updates, and always with
    `Never()`, it is constant exactly.

    Records

    - `kernel_distance`, 1 − ⟨K, K′⟩/(‖K‖‖K′‖) (Fort et al. 2020, arXiv:2010.15110), `kernel_change`, ‖K − K′‖/‖K′‖
      (Geiger et al. 2020, arXiv:1906.08034), and `kernel_cka`, the centred alignment (Kornblith et al. 2019,
      arXiv:1905.00414), with K′ the kernel at step 0; at step 0 they are 0, 0 and 1.
    - `kernel_distance_last`, `kernel_change_last` and `kernel_cka_last`, with K′ the kernel at the last record: exactly
      0, 0 and 1 where the anchor has not moved.
    - `kernel_velocity`: `kernel_distance_last` over the steps since the last record; 0 at step 0.
    - `target_alignment`: the centred alignment with yyᵀ (Baratin et al. 2021, arXiv:2008.00938); y are values of the
      outputs' shape, or classes as one-hot vectors, at each position where there are several.
    - `effective_rank`: exp(−Σ p ln p) with p = eigenvalues/trace (Roy & Vetterli 2007).

    What is not defined, such as the centred alignment of a single example or that with targets of another form, is
    `nan`; see the metrics in `relin.kernel`.

    **Arguments:**

    - `probe`: inputs and targets `(x, y)`; N of them.
    - `outputs`: which kernel of the C outputs, further axes flattened: `"mean"` (N, N), the trace over outputs divided
      by C; `"full"` (N, N, C, C); `"diagonal"` (N, N, C); or the number of one output, whose kernel (N, N) is then
      aligned with that output's targets.
    - `batch_size`: examples of a block of the kernel, see `relin.kernel.ntk`; bounds the memory, not the result.
    - `coupled`: allows outputs that depend on the other examples: the kernel is then that of the probe as one batch,
      see `relin.kernel.ntk`.

    A record after a feature update costs one kernel and the eigenvalues of its matrix, of NC rows for `"full"`, and two
    kernels are kept; under `drive="vmap"`, where lanes decide together, every record costs that.

    **Raises:** `TypeError` or `ValueError` if `probe`, `outputs` or `batch_size` is not as described, and when
    training begins, if the targets do not fit the loss, the network has no such output, or its examples depend on each
    other, unless `coupled`.
    """

    probe: tuple[Inputs, Targets]
    outputs: Literal["full", "mean", "diagonal"] | int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    coupled: bool = eqx.field(static=True)

    def __init__(
        self,
        probe: tuple[Inputs, Targets],
        *,
        outputs: Literal["full", "mean", "diagonal"] | int = "mean",
        batch_size: int | None = None,
        coupled: bool = False,
    ):
        self.coupled = bool(coupled)
        self.probe = pair_of(probe, "probe")
        self.outputs = check_outputs(outputs)  # pyright: ignore[reportAttributeAccessIssue]
        self.batch_size = check_size(batch_size, "batch_size", "one chosen by relin.kernel.ntk")

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        return {"probe": self.probe}

    def check(self, problem: Problem, params: Params) -> None:
        if not self.coupled:
            refuse_coupled(problem.apply, params, self.probe[0], "KernelDrift", REMEDY)

    def init(self, context: Context) -> DriftState:
        kernel = jnp.zeros_like(eqx.filter_eval_shape(partial(self._kernel, coupled=True), context))  # by shape alone
        step, none = jnp.asarray(context.step, jnp.int32), jnp.asarray(-1, jnp.int32)
        state = DriftState(kernel, kernel, step, none, {}, {})
        later = jax.eval_shape(_measured, kernel, self._targets(context), step, none, state)
        record, unmoved = jax.tree.map(jnp.zeros_like, (later.record, later.unmoved))
        return replace(state, record=record, unmoved=unmoved)

    def compute(self, context: Context, state: DriftState) -> tuple[Record, DriftState]:
        moved = context.feature_updates != state.feature_updates
        measured = _measured if context.traced else _compiled_measured

        def again() -> DriftState:
            now = context.step, context.feature_updates
            return measured(self._kernel(context, self.coupled), self._targets(context), *now, state)

        def kept() -> DriftState:
            return replace(state, step=jnp.asarray(context.step, jnp.int32), record=state.record | state.unmoved)

        if context.traced:
            state = jax.lax.cond(moved, again, kept)
            return state.record, state
        state = again() if moved else kept()
        return state.record, state

    def _kernel(self, context: Context, coupled: bool) -> Float[Array, "N N ..."]:
        return unchecked_ntk(  # pyright: ignore[reportReturnType]  # a dict only where parts by layer are asked for
            context.problem.apply,
            context.anchor,
            self.probe[0],
            outputs=self.outputs,
            batch_size=self.batch_size,
            coupled=coupled,
        )

    def _targets(self, context: Context) -> Float[Array, "N C"] | None:
        """The targets that the kernel is aligned with, one output's alone; `None` where they are no vectors."""
        (x, y), apply, correct = self.probe, context.problem.apply, context.problem.loss.correct
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(context.problem))
        if traced:  # JAX would compare the arrays of two networks
            apply, correct = partial(lambda f, *a: f(*a), apply), partial(lambda f, *a: f(*a), correct)
        outputs = jax.eval_shape(apply, context.anchor, x)
        if not isinstance(y, jax.Array):
            return None
        classified = jax.eval_shape(correct, outputs, y) is not None
        if classified and jnp.issubdtype(y.dtype, jnp.integer) and outputs.size > y.size and not outputs.size % y.size:
            y = jax.nn.one_hot(y, outputs.size // y.size, dtype=outputs.dtype)
        if y.size != outputs.size:
            return None
        y = y.reshape(outputs.shape[0], -1).astype(outputs.dtype)
        return y[:, self.outputs : self.outputs + 1] if isinstance(self.outputs, int) else y


def _measured(
    kernel: Float[Array, "N N ..."],
    targets: Float[Array, "N C"] | None,
    step: Step,
    feature_updates: Step,
    state: DriftState,
) -> DriftState:
    """The state after a record of this kernel."""
    step, new = jnp.asarray(step, jnp.int32), state.feature_updates < 0
    record, unmoved = {}, {}
    for name, (metric, exact) in _METRICS.items():
        itself = metric(kernel, kernel)
        itself = jnp.where(jnp.isnan(itself), itself, jnp.asarray(exact, itself.dtype))
        unmoved[f"{name}_last"] = itself
        record[name] = jnp.where(new, itself, metric(kernel, state.first))
        record[f"{name}_last"] = jnp.where(new, itself, metric(kernel, state.last))
    record["kernel_velocity"] = _per_step(record["kernel_distance_last"], step - state.step)
    unmoved["kernel_velocity"] = unmoved["kernel_distance_last"]
    unknown = jnp.full((), jnp.nan, kernel.dtype)
    record["target_alignment"] = unknown if targets is None else target_alignment(kernel, targets)
    record["effective_rank"] = effective_rank(kernel)
    first = jnp.where(new, kernel, state.first)
    return DriftState(first, kernel, step, jnp.asarray(feature_updates, jnp.int32), record, unmoved)


def _per_step(distance: Scalar, steps: Int[Array, ""]) -> Scalar:
    return distance / jnp.maximum(steps, 1).astype(distance.dtype)


_compiled_measured = eqx.filter_jit(_measured)


def pair_of(data: Any, name: str) -> tuple[Inputs, Targets]:
    """`data` as arrays; raises unless it is a pair (x, y) of inputs and targets with one row each an example."""
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise TypeError(f"`{name}` must be a pair (x, y) of inputs and targets, got {type(data).__name__}; pass both.")
    check_inputs(tuple(data), name)
    x, y = jax.tree.map(jnp.asarray, tuple(data))
    return x, y
