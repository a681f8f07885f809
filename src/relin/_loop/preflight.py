"""What is worth knowing before hours are spent on a network."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from relin._common.showing import notebook
from relin._core import check as _check, finite as _finite
from relin._core.forward_mode import are_loops, check_rules, rules_in_the_way
from relin._core.names import some
from relin._core.primitives import constants
from relin._core.problem import Problem
from relin._core.types import Flag, Inputs, Outputs, Params, Scalar, Targets
from relin._loop import validate as _validate
from relin._loop.compiled import linearised_step, watched_outputs
from relin._loop.partition import StaticTree, hashable_combine, hashable_partition
from relin._loop.placement import given, placement_of
from relin.kernel._arguments import OneExampleError
from relin.kernel._independence import alone_as_in_batch, doubt
from relin.kernel._largest import largest_eigenpair


@dataclass(frozen=True)
class Preflight:
    """What `check` found; `str` makes a table of it.

    What was not looked at, since the network cannot be linearised, is `None`; so is what cannot be known, such as
    `independent` from a batch of one example.

    **Attributes**, beside those below:

    - `num_examples`: N, of the batch.
    - `num_params`: P, the trainable numbers.
    """

    obstacle: str | None
    """Why the network cannot be linearised, and the way out; `None` if it can."""
    mode: str
    """How the network is trained, see `Problem.mode`; the rest is about the network in this mode."""
    num_examples: int
    num_params: int
    num_outputs: int | None = None
    """C."""
    not_finite: str | None = None
    """Which parameter, input, target, output or derivative is not a finite number, the first one, with its example;
    `None` if all are finite. What depends on it is then `None`."""
    deterministic: bool | None = None
    """Whether two evaluations give the same outputs; a step's mask is the same in both."""
    independent: bool | None = None
    """Whether an example's outputs do not depend on the others of its batch."""
    step_memory: int | None = None
    """Bytes of a compiled linearised step on this batch, arguments and results included; on each of several devices."""
    kernel_memory: int | None = None
    """Bytes of the batch's full kernel, (N·C)² numbers."""
    device_memory: int | None = None
    """Bytes that the device has free."""
    largest_rate: float | None = None
    """2/λ_max of the linearised problem on this batch: below it gradient descent is stable, with momentum β below
    1 + β times it."""
    relative_cost: float | None = None
    """FLOPs of a linearised step over those of an ordinary one, by XLA's count."""
    rules: tuple[str, ...] = ()
    """Functions with a `custom_vjp` rule, as `name at file:line`: J v is the transpose of the Jᵀu that they define, but
    of Equinox' loops forward mode."""

    @property
    def ok(self) -> bool:
        """Whether nothing here forbids training: the network can be linearised, its numbers are finite, it is
        deterministic, and a step fits."""
        fits = self.step_memory is None or self.device_memory is None or self.step_memory <= self.device_memory
        trainable = self.obstacle is None and self.not_finite is None
        return trainable and self.deterministic is not False and fits

    def rows(self) -> list[tuple[str, str, str]]:
        """What was asked, what was found, and what follows from it."""
        linearised = "yes" if self.obstacle is None else "no"
        rows = [("can be linearised", linearised, self.obstacle or self._with_rules())]
        if self.obstacle is not None:
            return rows
        rows.append(("trained", self.mode, ""))
        rows.append(("all numbers finite", _said(self.not_finite is None), self.not_finite or ""))
        rows.append(("deterministic", _said(self.deterministic), _IF_RANDOM if self.deterministic is False else ""))
        rows.append(("examples independent", _said(self.independent), _IF_COUPLED if self.independent is False else ""))
        memory = self.device_memory
        for name, size in (("memory of a step", self.step_memory), ("memory of the full kernel", self.kernel_memory)):
            free = "" if memory is None else f"of {_bytes(memory)} free"
            excess = size is not None and memory is not None and size > memory
            rows.append((name, "?" if size is None else _bytes(size), _IF_LARGE + free if excess else free))
        rate = "?" if self.largest_rate is None else f"{self.largest_rate:.3g}"
        rows.append(("largest stable learning rate", rate, "of gradient descent: 2/λ_max, times 1 + β with momentum β"))
        cost = "?" if self.relative_cost is None else f"{self.relative_cost:.2f}"
        rows.append(("cost of a linearised step", cost, "times an ordinary step's FLOPs"))
        return rows

    def _with_rules(self) -> str:
        if not self.rules:
            return ""
        by_loops = "J v is forward mode of the loop, Jᵀu its custom_vjp rule's"
        by_transpose = "J v is the transpose of Jᵀu, whose custom_vjp rule defines J"
        return f"{by_loops if are_loops(self.rules) else by_transpose}: {some(list(self.rules))}"

    def __str__(self) -> str:
        rows = self.rows()
        wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:<{wide[0]}}  {found:>{wide[1]}}  {note}".rstrip() for name, found, note in rows)

    def _repr_html_(self) -> str:
        """In a notebook: whether the network can be trained, and the table."""
        size = f"{self.num_params:,} parameters, {self.num_examples:,} examples a step"
        sentence = f"{'Ready to train' if self.ok else 'Not to be trained like this'}: {size}"
        return notebook().run_html(sentence, [], ["asked", "found", "note"], self.rows())


_IF_RANDOM = "two evaluations differ: pass random numbers in with the inputs, or fix their key"
_IF_COUPLED = "the kernel and results depend on how batches are made; freeze statistics, if these are why"


_IF_LARGE = "too large, smaller batches or NTKOperator need less; "


def check(problem: Problem, params: Params, batch: tuple[Inputs, Targets], *, mesh: Mesh | None = None) -> Preflight:
    """Looks at a network before it is trained: whether it can be linearised, and what a step will take.

    **Arguments:**

    - `problem`, `params`: as for `train`.
    - `batch`: a pair `(x, y)` of arrays, as large as a training step's; of a data set, its training part.
    - `mesh`: as for `train`. The memory of a step, and what is free, are then those of each device.

    **Returns:** a `Preflight`: a value with a table as its text. A network that cannot be linearised is an answer, with
    the function in its way named, and no error.

    **Raises:** `TypeError` or `ValueError` for a problem or a batch that are none.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` must be a relin problem, got {problem!r}; pass relin.Problem(apply, loss).")
    batch = _validate.training_part(batch)
    if not isinstance(batch, tuple):
        raise TypeError(f"`batch` must be a pair (x, y) of arrays, got {type(batch).__name__}; pass a tuple.")
    number = _validate.arrays(batch)
    size = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
    begun, problem = Preflight(None, problem.mode, number, size), problem.trained(problem.variables)
    try:
        _check.params(params)
    except (TypeError, ValueError) as error:
        return replace(begun, obstacle=str(error))
    placement = placement_of(mesh, params, batch)
    if placement is None:
        return _checked(begun, problem, params, batch, jax.devices()[0])
    with placement.entered():
        params, placement = placement.with_params(params)
        batch = placement.placed(jax.tree.map(given, batch), split=True)
        return _checked(begun, placement.placed(problem), params, batch, placement.mesh.devices.flat[0])


def _checked(
    begun: Preflight, problem: Problem, params: Params, batch: tuple[Inputs, Targets], device: Any
) -> Preflight:
    """What is found of a batch and parameters that are arrays, beside what is known."""
    found = _obstacle(problem, params, batch)
    if found is not None:
        return replace(begun, obstacle=found)
    params, (x, y) = jax.tree.map(jnp.asarray, (params, batch))
    trial = _Trial(problem, params, x, y)
    cost, deterministic = trial.relative_cost(), trial.traced_alike()
    not_finite = trial.not_finite()
    sharpness = math.nan if not_finite else trial.sharpness()
    deterministic = deterministic and trial.run_alike()
    independent = trial.independent() if deterministic and not_finite is None else None
    if not_finite is None and not math.isfinite(sharpness):
        not_finite = "the curvature of the loss is not finite, though the loss and its gradient are"
    return replace(
        begun,
        num_outputs=trial.outputs.size // begun.num_examples,
        not_finite=not_finite,
        deterministic=deterministic,
        independent=independent,
        step_memory=_memory(trial.linearised),
        kernel_memory=trial.outputs.size**2 * trial.outputs.dtype.itemsize,
        device_memory=_free_memory(device),
        largest_rate=_largest_rate(sharpness),
        relative_cost=cost,
        rules=rules_in_the_way(trial.problem.apply, params, x),
    )


def _obstacle(problem: Problem, params: Params, batch: tuple[Inputs, Targets]) -> str | None:
    """What keeps the network from being linearised and trained, in one sentence."""
    try:
        params, batch = jax.tree.map(jnp.asarray, (params, batch))
        once = _traced_once(problem, params, batch[0])
        _validate.targets(once, params, batch)
        for program, (static, *arguments) in _programs(once, params, *batch):
            _validate.linearisable(once, params, batch[0], partial(program, static), *arguments)
        check_rules(once.apply, params, batch[0])
    except Exception as error:  # whatever the network raises is the answer
        return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    return None


def _traced_once(problem: Problem, params: Params, x: Inputs) -> Problem:
    """The same problem, for whose programs the network is traced once; itself if a trace draws random numbers."""
    if _validate.draws(problem, params, x):
        return problem
    return replace(problem, apply=Partial(_outputs, problem))


def _outputs(problem: Problem, params: Params, x: Inputs) -> Outputs:
    arrays, static = hashable_partition(problem)
    return watched_outputs(static, arrays, params, x)


def _programs(problem: Problem, params: Params, x: Inputs, y: Targets) -> list[tuple[Any, tuple[Any, ...]]]:
    """The programs to compile, each with its arguments: `_step`, and the linearised step where that is another."""
    arrays, static = hashable_partition(problem)
    zero = _zeros(params)
    programs: list[tuple[Any, tuple[Any, ...]]] = [(_step, (static, arrays, params, zero, np.asarray(False), x, y))]
    if problem.taylor.order != 1:
        programs.append((linearised_step, (static, arrays, params, zero, x, y)))
    return programs


def _zeros(params: Params) -> Params:
    """On the host: JAX compiles a program for the zeros of each shape."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)


class _Trial:
    """What is found by running steps on one batch.

    One program makes the linearised step and the products with the curvature: compiling is most of what `check` takes,
    and goes on in a thread, so that what needs no compiled program is best asked first.
    """

    def __init__(self, problem: Problem, params: Params, x: Inputs, y: Targets):
        self.network, self.problem = problem.apply, _traced_once(problem, params, x)
        self.params, self.x, self.y = params, x, y
        self.outputs = jax.eval_shape(self.problem.apply, params, x)
        self.arrays, self.static = hashable_partition(self.problem)
        self.zero, self.digests = _zeros(params), list[np.ndarray]()
        lowered = [function.lower(*given) for function, given in _programs(self.problem, params, x, y)]
        compiler = ThreadPoolExecutor()
        self.compiling = [compiler.submit(program.compile) for program in lowered]
        compiler.shutdown(wait=False)

    @property
    def step(self) -> Compiled:
        return self.compiling[0].result()

    @property
    def linearised(self) -> Compiled:
        return self.compiling[-1].result()

    @cached_property
    def at_anchor(self) -> tuple[Scalar, np.ndarray, Params]:
        return self(self.x)

    def __call__(self, x: Inputs) -> tuple[Scalar, np.ndarray, Params]:
        """The loss, the digest of the outputs and the gradient."""
        loss, digest, gradient = self.step(self.arrays, self.params, self.zero, np.asarray(False), x, self.y)
        return loss, np.asarray(digest), gradient

    def not_finite(self) -> str | None:
        """The first number that is not finite, in words."""
        if _finite.everywhere(self.at_anchor):
            return None
        losses = _finite.Losses(self.problem.loss, self.y)
        found = _finite.in_network(self.problem.apply, self.params, self.x, losses)
        return found or "the loss or its gradient is not finite, though the outputs and their derivative are"

    def traced_alike(self) -> bool:
        """Whether the network makes the same program twice: Python's randomness becomes its constants."""
        if self.network is self.problem.apply:
            return False  # random numbers are drawn
        first, second = (constants(self.network, self.params, self.x) for _ in range(2))
        return first == second

    def run_alike(self) -> bool:
        """Whether the program gives the same outputs at every run."""
        again = self.digests or [self(self.x)[1]]
        return all(np.array_equal(self.at_anchor[1], other, equal_nan=True) for other in again)

    def independent(self) -> bool | None:
        """Whether each example's outputs and their derivative are those of that example alone.

        The program tells, or what outputs do where half of the other examples, or the other half, are replaced, and
        where examples go through the network alone; one that takes this batch only is judged without the latter.
        """
        number, network = len(self.at_anchor[1]), (self.problem.apply, self.params, self.x)
        if number < 2:
            return None
        try:
            if doubt(*network) is None:
                return True
        except OneExampleError:
            return self._unmoved_by_others(number)
        return self._unmoved_by_others(number) and bool(alone_as_in_batch(*network)[0])

    def _unmoved_by_others(self, number: int) -> bool:
        order = np.random.default_rng(0).permutation(number)
        rounding = math.sqrt(jnp.finfo(self.outputs.dtype).eps)
        digest = self.at_anchor[1]
        for kept, others in (np.split(order, [number // 2]), np.split(order, [number // 2])[::-1]):
            taken = np.arange(number)
            taken[others] = np.resize(kept, len(others))
            found = self(jax.tree.map(lambda a, taken=taken: jax.device_put(a[taken], a.sharding), self.x))[1]
            if not np.linalg.norm((found - digest)[kept]) <= rounding * np.linalg.norm(digest[kept]):
                return False
        return True

    def sharpness(self) -> float:
        """λ_max of the linearised problem at the anchor, JᵀHJ/N."""

        def product(vector: Params) -> Params:
            _, digest, result = self.step(self.arrays, self.params, vector, np.asarray(True), self.x, self.y)
            self.digests.append(np.asarray(digest))
            return result

        random = np.random.default_rng(0)
        start = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), self.params)
        return float(largest_eigenpair(product, start, tolerance=0.01).value)

    def relative_cost(self) -> float | None:
        """By the count of what the compiler is given, in which the network is linearised once; of order 2 nothing
        else but what the compiler makes of it is counted."""
        ordinary = self._lowered(_ordinary)
        if self.problem.taylor.order == 1:
            linearised = self._lowered(_linearised_once, self.params)
        else:
            ordinary, linearised = ordinary.compile(), self.linearised
        flops = _flops(ordinary)
        return _flops(linearised) / flops if flops else None

    def _lowered(self, function: Any, *more: Any) -> Any:
        return function.lower(self.static, self.arrays, self.params, *more, self.x, self.y)


@partial(jax.jit, static_argnums=0)
def _step(
    static: StaticTree, problem: PyTree, params: Params, vector: Params, curved: Flag, x: Inputs, y: Targets
) -> tuple[Scalar, Float[Array, " batch"], Params]:
    """The loss, a digest of the outputs at the anchor, a number for each example, and the gradient, of a linearised
    step at this displacement; with `curved` vᵀGv, the digest and G v, with v the vector and G = JᵀHJ/N at the anchor.

    The two differ in what is done with the outputs alone.
    """
    whole = hashable_combine(problem, static)
    outputs, pullback = jax.vjp(lambda p: whole.apply(p, x), params)
    tangent = whole.linearise(params).jvp(vector, x)
    wide = jnp.promote_types(outputs.dtype, jnp.float32)

    def product() -> tuple[Scalar, Array]:
        cotangent = whole.loss.hessian_product(outputs, y, tangent) / len(outputs)
        return jnp.vdot(tangent, cotangent).astype(wide), cotangent.astype(outputs.dtype)

    def step() -> tuple[Scalar, Array]:
        loss, cotangent = jax.value_and_grad(whole.loss.mean)(outputs + tangent, y)
        return loss.astype(wide), cotangent.astype(outputs.dtype)

    value, cotangent = jax.lax.cond(curved, product, step)
    flat = outputs.reshape(len(outputs), -1).astype(wide)
    digest = flat @ jax.random.normal(jax.random.key(0), (flat.shape[1],), wide)
    return value, digest, pullback(cotangent)[0]


@partial(jax.jit, static_argnums=0)
def _ordinary(static: StaticTree, problem: PyTree, params: Params, x: Inputs, y: Targets) -> tuple[Scalar, Params]:
    return hashable_combine(problem, static).value_and_grad(params, x, y)


@partial(jax.jit, static_argnums=0)
def _linearised_once(
    static: StaticTree, problem: PyTree, params: Params, displacement: Params, x: Inputs, y: Targets
) -> tuple[Scalar, Params]:
    whole = hashable_combine(problem, static)
    return whole.value_and_grad_on(whole.linearise(params).on(x), displacement, y)


def _largest_rate(sharpness: float) -> float | None:
    if math.isnan(sharpness):
        return None
    return 2 / sharpness if sharpness > 0 else math.inf


def _flops(program: Any) -> float:
    return float((program.cost_analysis() or {}).get("flops", 0.0))


def _memory(program: Any) -> int | None:
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def _free_memory(device: Any) -> int | None:
    if statistics := device.memory_stats():
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no such function
        return None


def _said(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[answer]


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} GB"
