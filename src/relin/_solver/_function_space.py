"""Training the dual variable with the kernel alone."""

import math
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from relin._core import check as _check, tree as _tree
from relin._core.batches import AbstractBatches
from relin._core.context import Context
from relin._core.linearise import LinearisedOutputs
from relin._core.problem import Problem
from relin._core.types import Inputs, Outputs, Params, Scalar, Step, Targets
from relin._schedule import AbstractSchedule
from relin._solver._base import AbstractMultiStepSolver, MultiStep, SolverState
from relin._solver._dual import Dual, from_dual, refuse_unless_linear, to_dual, vectors_of
from relin._solver._matrix_free import dense_kernel
from relin._solver._optax import check_optimiser, forgiving
from relin._solver._weight_space import WeightSpace
from relin._solver._window import AbstractWindowRate, RateCap, Window
from relin.kernel._independence import refuse_coupled

_LARGEST_KERNEL = 2**28
"""Numbers of a dense kernel, 1 GB in single precision, above which `"auto"` forms none."""
_PARAMS, _STEPS = 2, 10
"""`"auto"` forms none either for less than so many parameters for each BC² of a batch, and for less than so many steps
for each output: a step with it then costs more than products with J, or it more than the steps (benchmarks/README.md,
"solvers")."""


class FunctionSpace(AbstractMultiStepSolver):
    """The trajectory of `WeightSpace`, computed in function space (method.md, "Function space").

    A linear optimiser keeps the displacement in the row space of the visited examples' Jacobian, δ = Jᵀ a. So between
    two re-linearisations the dual variable a, `(n, C)`, is trained with f̄ = f(·; θ_s) + Θ a alone, and the weights are
    formed at their end. What an optimiser carries over a re-linearisation, such as momentum, need not lie in the new
    row space: such vectors m_i enter as Σ c_i m_i, with coefficients that are trained along.

    **Arguments:**

    - `optimiser`: an Optax transformation that is linear in the gradients and the same for all parameters: SGD,
      momentum, Nesterov, with schedules of the learning rate. Others (Adam, clipping, weight decay, line searches)
      are refused.
    - `on_relinearise`: as for `WeightSpace`.
    - `window_rate`, `rate_cap`: as for `WeightSpace`.
    - `kernel`: `"dense"` computes the kernel of the examples visited at an anchor, (nC)² numbers, once; a step then
      costs 2 (nC)² operations of the full batch, and 2 BC·nC of a minibatch. `"operator"` forms none: each step takes a
      product with Jᵀ and one with J over all visited examples. `"auto"` is dense where that is faster, up to 1 GB.

    **Raises:** `ValueError` for such an optimiser, with the reason, for names out of range, and where minibatches are
    drawn though an example's outputs depend on the others of its batch.
    """

    optimiser: optax.GradientTransformation
    on_relinearise: Literal["keep", "reset"] | float = "keep"
    kernel: Literal["auto", "dense", "operator"] = "auto"
    window_rate: AbstractWindowRate | None = None
    rate_cap: RateCap | None = None

    def __check_init__(self):
        self._weights  # noqa: B018  its checks are these
        _check.choice(self.kernel, "kernel", ("auto", "dense", "operator"))

    @property
    def _weights(self) -> WeightSpace:
        rates = {"window_rate": self.window_rate, "rate_cap": self.rate_cap}
        return WeightSpace(self.optimiser, self.on_relinearise, **rates)

    def check(self, problem: Problem, schedule: AbstractSchedule, batches: AbstractBatches, params: Params) -> None:
        _check.single_precision(params, "FunctionSpace")
        check_optimiser(self.optimiser, params)
        if forgiving(jax.eval_shape(self.optimiser.init, params)):
            raise ValueError(
                "FunctionSpace ends a run at its first loss that is not finite, got optax.apply_if_finite, which is to "
                "pass over some; use WeightSpace for it."
            )
        refuse_unless_linear(self.optimiser, params)
        self._weights.rates.check(self.optimiser, schedule, params)

    def init(self, params: Params) -> SolverState:
        return self._weights.init(params)

    def relinearise(self, state: SolverState) -> SolverState:
        return self._weights.relinearise(state)

    def begin(self, context: Context, state: SolverState, length: Step) -> SolverState:
        return self._weights.begin(context, state, length)

    def measures(self, state: SolverState) -> dict[str, Shaped[Array, ""]]:
        return self._weights.measures(state)

    def multi_step(
        self,
        problem: Problem,
        state: SolverState,
        data: tuple[Inputs, Targets],
        indices: Int[np.ndarray, "steps batch"] | None,
        start: int,
        count: int | float,
    ) -> MultiStep:
        if math.isinf(count):
            raise ValueError("FunctionSpace takes its steps one by one, got infinitely many; use SpectralDescent.")
        count = int(count)
        most = 2 ** math.ceil(math.log2(max(count, 1)))  # a program serves all numbers of steps up to it
        (x, y), places = data, None
        if indices is not None:
            visited, where = _visited(indices, most, jax.tree.leaves(x)[0].shape[0])
            places = jnp.asarray(where)
            x, y = jax.tree.map(lambda a: a[visited], data)
            remedy = "use WeightSpace, or the full batch"
            refuse_coupled(problem.apply, state.anchor, x, "FunctionSpace with minibatches", remedy)
        num_examples = jax.tree.leaves(x)[0].shape[0]
        at_once = num_examples if indices is None else indices.shape[1]
        dense = self._is_dense(problem, state.anchor, x, at_once, count)
        linear = _Linear(problem, state, x, y, dense_kernel(problem, state.anchor, x) if dense else None)
        dual, optimiser, window, losses = _trained(linear, self._weights, state, places, jnp.asarray(count), most)
        displacement, optimiser = _back(linear, state, dual, optimiser)
        state = SolverState(state.anchor, displacement, optimiser, window=window)
        return MultiStep(state, losses[:count], jnp.arange(count))

    def _is_dense(self, problem: Problem, anchor: Params, x: Inputs, at_once: int, count: int) -> bool:
        if self.kernel != "auto":
            return self.kernel == "dense"
        outputs = eqx.filter_eval_shape(problem.apply, anchor, x)
        num_params, num_outputs = sum(leaf.size for leaf in jax.tree.leaves(anchor)), outputs.size // outputs.shape[0]
        fits = outputs.size**2 <= _LARGEST_KERNEL
        return fits and num_params >= _PARAMS * at_once * num_outputs**2 and count >= _STEPS * num_outputs


class _Linear(eqx.Module):
    """f̄ on the visited examples as a function of the dual variable and of the carried coefficients."""

    problem: Problem
    linearised: LinearisedOutputs
    targets: Targets
    kernel: Float[Array, "nC nC"] | None
    at_start: Outputs
    carried: list[Outputs]
    """J m_i."""
    anchor: Params

    def __init__(
        self, problem: Problem, state: SolverState, x: Inputs, y: Targets, kernel: Float[Array, "nC nC"] | None
    ):
        vectors = vectors_of(state.optimiser, state.anchor)
        self.problem, self.targets, self.kernel, self.anchor = problem, y, kernel, state.anchor
        self.linearised, self.at_start, self.carried = _linearised(
            problem, state.anchor, x, state.displacement, vectors
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.at_start.shape

    def outputs(self, z: Dual, places: Int[Array, " batch"] | None) -> Outputs:
        """f̄ at the places of a batch among the visited examples, or at all of them."""
        shape = self.shape

        def chosen(a: Array) -> Array:
            return a if places is None else a[places]

        if self.kernel is None:
            pulled = self.linearised.pullback(z["dual"], self.anchor)
            change = chosen(self.linearised.pushforward(pulled))
        else:
            size = z["dual"].size
            rows = self.kernel if places is None else self.kernel.reshape(*shape, -1)[places].reshape(-1, size)
            change = jnp.matmul(rows, z["dual"].reshape(-1), precision="highest").reshape(-1, *shape[1:])
        total = chosen(self.at_start) + change
        for number, outputs in enumerate(self.carried):
            total = total + z["carried"][number] * chosen(outputs)
        return total

    def gradient(self, z: Dual, places: Int[Array, " batch"] | None) -> tuple[Scalar, Dual]:
        """The batch's loss, and its gradient Jᵀ ∂L/∂f̄ as a dual variable."""
        y = self.targets if places is None else jax.tree.map(lambda a: a[places], self.targets)
        loss, slope = jax.value_and_grad(self.problem.loss.mean)(self.outputs(z, places), y)
        dual = slope if places is None else jnp.zeros_like(z["dual"]).at[places].add(slope)
        return loss, {"dual": dual, "carried": jnp.zeros_like(z["carried"])}


@eqx.filter_jit
def _linearised(
    problem: Problem, anchor: Params, x: Inputs, displacement: Params, vectors: list[Params]
) -> tuple[LinearisedOutputs, Outputs, list[Outputs]]:
    linearised = problem.linearise(anchor).on(x)
    return linearised, linearised.value(displacement), [linearised.pushforward(vector) for vector in vectors]


@eqx.filter_jit
def _trained(
    linear: _Linear,
    solver: WeightSpace,
    state: SolverState,
    places: Int[Array, "most batch"] | None,
    count: Array,
    most: int,
) -> tuple[Dual, Any, Window | None, Float[Array, " most"]]:
    """The dual variable, the optimiser's state, where the run is in its window and the losses after `count` steps."""
    kind = linear.at_start.dtype
    start = to_dual(state.optimiser, state.anchor, linear.shape, kind)
    zero = {"dual": jnp.zeros(linear.shape, kind), "carried": jnp.zeros(len(linear.carried), kind)}

    def step(number: Array, carry: tuple[Dual, Any, Window | None, Array]) -> tuple[Dual, Any, Window | None, Array]:
        z, own, window, losses = carry
        loss, gradient = linear.gradient(z, None if places is None else places[number])
        updates, own = solver.optimiser.update(gradient, own, z)
        if window is not None:
            window = solver.rates.taken(window)
            updates = _tree.scale(window.factor, updates)
        return cast(Dual, optax.apply_updates(z, updates)), own, window, losses.at[number].set(loss)

    return jax.lax.fori_loop(0, count, step, (zero, start, state.window, jnp.zeros(most, kind)))


@eqx.filter_jit
def _back(linear: _Linear, state: SolverState, dual: Dual, optimiser: Any) -> tuple[Params, Any]:
    """The displacement and the optimiser's state in weight space."""
    vectors = vectors_of(state.optimiser, state.anchor)

    def weights(z: Dual) -> Params:
        total = linear.linearised.pullback(z["dual"], state.anchor)
        for number, vector in enumerate(vectors):
            total = _tree.add(total, _tree.scale(z["carried"][number], vector))
        return total

    displacement = _tree.add(state.displacement, weights(dual))
    return displacement, from_dual(optimiser, state.optimiser, state.anchor, weights)


def _visited(
    indices: Int[np.ndarray, "steps batch"], most: int, num_examples: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "most batch"]]:
    """The examples that the steps visit, of as many as `most` steps could, and where each batch's are among them."""
    found, places = np.unique(indices, return_inverse=True)
    size = min(num_examples, most * indices.shape[1])
    visited = np.concatenate([found, np.repeat(found[:1], size - len(found))])
    padded = np.zeros((most, indices.shape[1]), np.int32)
    padded[: len(indices)] = places.reshape(indices.shape)
    return visited, padded
