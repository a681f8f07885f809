"""What is worth knowing before hours are spent on a network."""

import math
import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relin import _check, _tree, _validate
from relin._context import Context
from relin._observer import Sharpness
from relin._primitives import backward_only
from relin._problem import Problem
from relin._types import Inputs, Params, Targets


@dataclass(frozen=True)
class Preflight:
    """What `check` found; `str` makes a table of it.

    What was not looked at, since the network cannot be linearised, is `None`; so is what cannot be known, such as
    `independent` from a batch of one example.
    """

    obstacle: str | None
    """Why the network cannot be linearised, and the way out; `None` if it can."""
    mode: str
    """How the network is trained, see `Problem.mode`; the rest is about the network in this mode."""
    num_examples: int
    num_params: int
    num_outputs: int | None = None
    """C."""
    deterministic: bool | None = None
    """Whether two evaluations give the same outputs; a step's mask is the same in both."""
    independent: bool | None = None
    """Whether an example's outputs do not depend on the others of its batch."""
    step_memory: int | None = None
    """Bytes of a compiled linearised step on this batch, arguments and results included."""
    kernel_memory: int | None = None
    """Bytes of the batch's full kernel, (N·C)² numbers."""
    device_memory: int | None = None
    """Bytes that the device has free."""
    largest_rate: float | None = None
    """2/λ_max of the linearised problem on this batch: below it gradient descent is stable, with momentum β below
    1 + β times it."""
    relative_cost: float | None = None
    """FLOPs of a linearised step over those of an ordinary one, by the compiler's count."""

    @property
    def ok(self) -> bool:
        """Whether nothing here forbids training: the network can be linearised, is deterministic, and a step fits."""
        fits = self.step_memory is None or self.device_memory is None or self.step_memory <= self.device_memory
        return self.obstacle is None and self.deterministic is not False and fits

    def rows(self) -> list[tuple[str, str, str]]:
        """What was asked, what was found, and what follows from it."""
        linearised = "yes" if self.obstacle is None else "no"
        rows = [("can be linearised", linearised, self.obstacle or "")]
        if self.obstacle is not None:
            return rows
        rows.append(("trained", self.mode, ""))
        rows.append(("deterministic", _said(self.deterministic), _IF_RANDOM if self.deterministic is False else ""))
        rows.append(("examples independent", _said(self.independent), _IF_COUPLED if self.independent is False else ""))
        memory = self.device_memory
        for name, size in (("memory of a step", self.step_memory), ("memory of the full kernel", self.kernel_memory)):
            free = "" if memory is None else f"of {_bytes(memory)} free"
            excess = size is not None and memory is not None and size > memory
            rows.append((name, "?" if size is None else _bytes(size), _IF_LARGE + free if excess else free))
        rate = "?" if self.largest_rate is None else f"{self.largest_rate:.3g}"
        rows.append(("largest stable learning rate", rate, "2/λ_max; (1 + β) times that with momentum β"))
        cost = "?" if self.relative_cost is None else f"{self.relative_cost:.2f}"
        rows.append(("cost of a linearised step", cost, "times an ordinary step's FLOPs"))
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:<{wide[0]}}  {found:>{wide[1]}}  {note}".rstrip() for name, found, note in rows)


_IF_RANDOM = "two evaluations differ: pass random numbers in with the inputs, or fix their key"
_IF_COUPLED = "as with batch statistics: the kernel and results depend on how batches are made; freeze the statistics"
_IF_LARGE = "too large, smaller batches or NTKOperator need less; "


def check(problem: Problem, params: Params, batch: tuple[Inputs, Targets]) -> Preflight:
    """Looks at a network before it is trained: whether it can be linearised, and what a step will take.

    **Arguments:**

    - `problem`, `params`: as for `train`.
    - `batch`: a pair `(x, y)` of arrays, as large as a training step's.

    **Returns:** a `Preflight`: a value with a table as its text. A network that cannot be linearised is an answer, with
    the function in its way named, and no error.

    **Raises:** `TypeError` or `ValueError` for a problem or a batch that are none.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` must be a relin problem, got {problem!r}; pass relin.Problem(apply, loss).")
    if not isinstance(batch, tuple):
        raise TypeError(f"`batch` must be a pair (x, y) of arrays, got {type(batch).__name__}; pass a tuple.")
    number = _validate.arrays(batch)
    size = sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))
    found = _obstacle(problem, params, batch)
    if found is not None:
        return Preflight(found, problem.mode, number, size)
    params, (x, y) = jax.tree.map(jnp.asarray, (params, batch))
    mode, problem = problem.mode, problem.trained(problem.variables)
    outputs = _evaluated(problem, params, x)
    deterministic = bool(np.array_equal(outputs, _evaluated(problem, params, x), equal_nan=True))
    ordinary = _compiled(problem.value_and_grad, params, x, y)
    linearised = _compiled(problem.linearised_value_and_grad, params, params, x, y)
    sharpness = Sharpness((x, y)).compute(_context(problem, params), ())[0]["sharpness"]
    return Preflight(
        None,
        mode,
        number,
        size,
        outputs.shape[1],
        deterministic,
        _independent(problem, params, x, outputs) if deterministic else None,
        _memory(linearised),
        (number * outputs.shape[1]) ** 2 * outputs.dtype.itemsize,
        _free_memory(),
        2 / float(sharpness) if sharpness > 0 else math.inf,
        _flops(linearised) / _flops(ordinary) if _flops(ordinary) else None,
    )


def _obstacle(problem: Problem, params: Params, batch: tuple[Inputs, Targets]) -> str | None:
    """What keeps the network from being linearised and trained, in one sentence."""
    try:
        _check.params(params)
        params, batch = jax.tree.map(jnp.asarray, (params, batch))
        _validate.network(problem, params, batch)
        trained = problem.trained(problem.variables)
        jax.eval_shape(trained.linearised_value_and_grad, params, params, *batch)
    except Exception as error:  # whatever the network raises is the answer
        if names := _backward_only(problem, params, batch[0]):
            return _validate.no_forward_mode(names)
        return " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
    return None


def _backward_only(problem: Problem, params: Params, x: Inputs) -> list[str]:
    try:
        return backward_only(problem.apply, params, x)
    except Exception:
        return []  # the network does not run at all


def _evaluated(problem: Problem, params: Params, x: Inputs) -> np.ndarray:
    """The outputs, by a program of their own: randomness of Python's differs between two of them."""
    return np.asarray(jax.jit(lambda p, x: problem.apply(p, x))(params, x))


def _independent(problem: Problem, params: Params, x: Inputs, outputs: np.ndarray) -> bool | None:
    half = len(outputs) // 2
    if not half:
        return None
    alone = _evaluated(problem, params, jax.tree.map(lambda a: a[:half], x))
    with_others = outputs[:half]
    rounding = math.sqrt(jnp.finfo(outputs.dtype).eps) * np.linalg.norm(with_others)
    return bool(np.linalg.norm(np.asarray(alone - with_others, np.float64)) <= rounding)


def _context(problem: Problem, params: Params) -> Context:
    zero = jnp.zeros((), jnp.int32)
    return Context(problem, params, _tree.zeros_like(params), zero, zero, traced=False)


def _compiled(function: Any, *arguments: Any) -> Any:
    return jax.jit(function).lower(*arguments).compile()


def _flops(program: Any) -> float:
    return float((program.cost_analysis() or {}).get("flops", 0.0))


def _memory(program: Any) -> int | None:
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def _free_memory() -> int | None:
    if statistics := jax.devices()[0].memory_stats():
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _said(answer: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[answer]


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} GB"
