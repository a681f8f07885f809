"""`SpectralDescent` against the same descent step by step, and against itself in double precision."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il
from benchmarks._measure import heading, row, table

COUNTS = (10**3, 10**4, 10**5, 10**6)
WARMED_UP = 1000
"""Up to so many steps, and as many as are walked, a first run compiles; of longer ones that is a small part."""
OF_LIMIT = 0.5
"""The learning rate, as a part of 2/λ at the initial parameters."""


class Case(NamedTuple):
    """A data set and a network."""

    title: str
    data: str
    number: int
    model: str
    options: dict[str, int]
    walked: tuple[int, ...]
    """The numbers of steps that are taken one by one; the last says how long a step of larger ones is."""
    in_double: tuple[int, ...]


CASES = (
    Case("MLP 64-256-256-10", "digits", 1280, "mlp", {"width": 256, "depth": 2}, (1000, 10_000), COUNTS),
    Case("CNN of 8, 16, 32 channels", "fashion-mnist", 2000, "cnn", {"width": 8}, (200,), COUNTS[:1]),
)


def spectral(names: Sequence[str] = ("digits", "fashion-mnist")) -> None:
    """Prints a table for each of these data sets."""
    heading(f"Full-batch gradient descent on squared error, at {OF_LIMIT} of the largest stable rate, K steps at once")
    columns = ("K", "stepping s", "SpectralDescent s", "times faster", "products", "error: to stepping", "to float64")
    for case in (case for case in CASES if case.data in names):
        print(f"{case.title}, {case.number} examples of {case.data}; errors of the outputs' change, relative\n")
        table(columns)
        measure(case)
        print()


def measure(case: Case) -> None:
    problem, params, (x, y) = made(case)
    first = trained(problem, params, (x, y), il.SpectralDescent(1e-9), 1)
    rate = OF_LIMIT * float(first.records["largest_rate"][-1])
    change = jax.jit(lambda d: problem.linearise(params).jvp(d, x))
    seconds_a_step, stepped = 0.0, {}
    stepping = il.WeightSpace(optax.sgd(rate))
    trained(problem, params, (x, y), stepping, 2)
    for count in case.walked:
        walked, solution = timed(lambda count=count: trained(problem, params, (x, y), stepping, count))
        seconds_a_step, stepped[count] = walked / count, (walked, change(solution.displacement))
    for count in COUNTS:
        if count <= max(WARMED_UP, case.walked[-1]):
            trained(problem, params, (x, y), il.SpectralDescent(rate), count)
        taken, solution = timed(lambda count=count: trained(problem, params, (x, y), il.SpectralDescent(rate), count))
        found = change(solution.displacement)
        walked, wanted = stepped.get(count, (seconds_a_step * count, None))
        row(
            f"{count:,}",
            f"{walked:.3g}" if count in stepped else f"{walked:.3g}, extrapolated from {case.walked[-1]:,}",
            taken,
            walked / taken,
            int(solution.records["kernel_products"][-1]),
            "–" if wanted is None else f"{distance(found, wanted):.1e}",
            f"{distance(found, in_double(case, rate, count)):.1e}" if count in case.in_double else "–",
        )


def made(case: Case) -> tuple[il.Problem, Any, tuple[jax.Array, jax.Array]]:
    parts = il.datasets.load(case.data)  # the digits' training set has 1200, so that some of the others are taken
    both = (jnp.concatenate(pair)[: case.number] for pair in zip(parts.train, parts.validation, strict=True))
    x, y = jax.tree.map(jnp.asarray, tuple(both))
    apply, params = il.from_equinox(il.models.build(case.model, x.shape[1:], 10, key=jax.random.key(0), **case.options))
    return il.Problem(apply, il.SquaredError()), params, (x, jax.nn.one_hot(y, 10, dtype=x.dtype))


def trained(problem: il.Problem, params: Any, data: Any, solver: il.AbstractSolver, count: int) -> il.Solution:
    solution = il.train(problem, solver, il.Never(), params, data, num_steps=count, key=jax.random.key(0))
    jax.block_until_ready(solution.displacement)
    return solution


def in_double(case: Case, rate: float, count: int) -> np.ndarray:
    """The outputs' change with the same parameters and data in float64, where nothing but the expansion is left out."""
    problem, params, data = made(case)
    with jax.enable_x64(True):
        params, (x, y) = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), (params, data))
        solution = trained(problem, params, (x, y), il.SpectralDescent(rate), count)
        return np.asarray(jax.jit(lambda d: problem.linearise(params).jvp(d, x))(solution.displacement))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def distance(found: Any, wanted: Any) -> float:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
