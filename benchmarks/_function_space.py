"""`FunctionSpace` with a dense kernel and with none against `WeightSpace`, over N, C and P, full batch."""

import itertools
import time
from typing import Any

import jax
import optax

import relin as il
from benchmarks._measure import heading, row, table

STEPS = 512
SIZES, OUTPUTS, WIDTHS = (128, 512, 2048), (1, 10), (32, 256, 1024)
LONGEST = 2**30
"""Of N P, above which a run takes too long to be measured."""
LARGEST = 2**27
"""Numbers of a dense kernel above which it is left out."""


def function_space() -> None:
    heading(f"Full-batch momentum on the squared error, {STEPS} steps at one anchor, MLP 784-W-W-C")
    table(("N", "C", "W", "P", "WeightSpace ms a step", "dense", "of it the kernel", "operator", '"auto"'))
    for number, outputs, width in itertools.product(SIZES, OUTPUTS, WIDTHS):
        measure(number, outputs, width)


def measure(number: int, outputs: int, width: int) -> None:
    apply, params = il.from_equinox(
        il.models.build("mlp", (28, 28, 1), outputs, key=jax.random.key(0), width=width, depth=2)
    )
    if number * sum(leaf.size for leaf in jax.tree.leaves(params)) > LONGEST:
        return
    problem = il.Problem(apply, il.SquaredError())
    x = jax.random.normal(jax.random.key(1), (number, 28, 28, 1))
    data = x, jax.random.normal(jax.random.key(2), (number, outputs))
    optimiser = optax.sgd(1e-4, momentum=0.9)
    weights = taken(problem, params, data, il.WeightSpace(optimiser))

    def ratio(kernel: Any, steps: int = STEPS) -> float:
        return taken(problem, params, data, il.FunctionSpace(optimiser, kernel=kernel), steps) / weights

    dense = (number * outputs) ** 2 <= LARGEST
    row(
        number,
        outputs,
        width,
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        weights / STEPS * 1e3,
        ratio("dense") if dense else "–",
        ratio("dense", 1) if dense else "–",
        ratio("operator"),
        ratio("auto"),
    )


def taken(problem: il.Problem, params: Any, data: Any, solver: il.AbstractSolver, steps: int = STEPS) -> float:
    """Seconds of a run after one to compile."""
    for _ in range(2):
        start = time.perf_counter()
        solution = il.train(problem, solver, il.Never(), params, data, num_steps=steps, key=jax.random.key(0))
        jax.block_until_ready(solution.displacement)
    return time.perf_counter() - start
