"""Levenberg–Marquardt without matrices against dense ones: the time of a step, and how far as many steps come."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jax.flatten_util import ravel_pytree

import relin as il
from benchmarks._measure import heading, row, seconds, table
from benchmarks._subjects import relin_steps

EXAMPLES, STEPS, DAMPING = 200, 20, 1e-2
HIDDEN = ((16,), (128, 128))
"""The hidden widths of a network with fewer weights than outputs, and of one with more."""
FACTORISED = 5000
"""The most parameters with which optimistix is timed, which factorises a matrix of P columns and N·C + P rows."""
ADAPT = "levenberg-marquardt"
SOLVERS = {
    "`GaussNewton`": il.GaussNewton(DAMPING, ADAPT),
    "`GaussNewton`, at most 50 iterations": il.GaussNewton(
        DAMPING, ADAPT, linear_solver=il.ConjugateGradients(max_steps=50)
    ),
}

Way = Callable[[], Any]
"""Takes the steps and gives θ."""


def gauss_newton() -> None:
    """Prints the table; `optimistix` is in it where it is installed."""
    heading(f"Levenberg–Marquardt on {EXAMPLES} digits with the squared error, {STEPS} steps")
    table(("network", "parameters", "way", "ms a step", "times relin's", "loss"))
    for hidden in HIDDEN:
        measure(hidden)


def measure(hidden: tuple[int, ...]) -> None:
    digits = il.datasets.load("digits").train
    x, y = jnp.asarray(digits.x[:EXAMPLES]), jax.nn.one_hot(digits.y[:EXAMPLES], 10)
    model = il.models.build("mlp", (8, 8, 1), 10, key=jax.random.key(0), width=hidden[0], depth=len(hidden))
    apply, params = il.from_equinox(model)
    problem = il.Problem(apply, il.SquaredError())
    ways = {name: relin_way(problem, params, (x, y), solver) for name, solver in SOLVERS.items()}
    ways["dense Jacobian, Cholesky"] = dense_way(problem, params, (x, y))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    if size <= FACTORISED:
        try:
            ways["`optimistix.LevenbergMarquardt`"] = optimistix_way(problem, params, (x, y))
        except ImportError:
            print("optimistix is not installed, so it is left out: pip install optimistix")
    times = seconds(list(ways.values()), repeats=3)
    for (name, way), time in zip(ways.items(), times, strict=True):
        loss = float(problem.loss.mean(apply(way(), x), y))
        row("-".join(map(str, (64, *hidden, 10))), size, name, time / STEPS * 1e3, time / times[0], loss)


def relin_way(problem: il.Problem, params: Any, data: Any, solver: il.GaussNewton) -> Way:
    steps = relin_steps(problem, params, data, EXAMPLES, il.Every(1), STEPS, False, solver)

    def loop() -> Any:
        solved = steps().solver
        return jax.tree.map(jnp.add, solved.anchor, solved.displacement)

    return loop


def dense_way(problem: il.Problem, params: Any, data: Any) -> Way:
    """The same method with J formed and the smaller of J Jᵀ and JᵀJ factorised, in one compiled loop."""
    (x, y), (theta, unravel) = data, ravel_pytree(params)

    def residual(theta: jax.Array) -> jax.Array:
        return (problem.apply(unravel(theta), x) - y).reshape(-1)

    def step(theta: jax.Array, damping: jax.Array) -> tuple[jax.Array, jax.Array]:
        """δ and the decrease that the model promises."""
        jacobian, r = jax.jacrev(residual)(theta), residual(theta)
        wide = jacobian.shape[1] > jacobian.shape[0]
        gram = (jacobian @ jacobian.T if wide else jacobian.T @ jacobian) / EXAMPLES
        factor = jsp.linalg.cho_factor(gram + damping * jnp.eye(len(gram)))
        solved = jsp.linalg.cho_solve(factor, (r if wide else jacobian.T @ r) / EXAMPLES)
        delta = -(jacobian.T @ solved if wide else solved)
        change = jacobian @ delta
        return delta, -jnp.vdot(r + 0.5 * change, change) / EXAMPLES

    def body(_: jax.Array, carry: Any) -> Any:
        theta, damping, growth = carry
        delta, promised = step(theta, damping)
        before, after = (0.5 * jnp.sum(jnp.square(residual(t))) / EXAMPLES for t in (theta, theta + delta))
        ratio = (before - after) / promised
        factor = jnp.where(ratio > 0, jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3), growth)
        return jnp.where(ratio > 0, theta + delta, theta), damping * factor, jnp.where(ratio > 0, 2.0, 2 * growth)

    loop = jax.jit(lambda theta: jax.lax.fori_loop(0, STEPS, body, (theta, jnp.asarray(DAMPING), jnp.asarray(2.0)))[0])
    return lambda: unravel(loop(theta))


def optimistix_way(problem: il.Problem, params: Any, data: Any) -> Way:
    import optimistix as optx

    x, y = data
    solver = optx.LevenbergMarquardt(rtol=0.0, atol=1e-30)

    def loop(params: Any) -> Any:
        def residual(params: Any, _: None) -> jax.Array:
            return problem.apply(params, x) - y

        return optx.least_squares(residual, solver, params, max_steps=STEPS, throw=False).value

    loop = jax.jit(loop)
    return lambda: loop(params)
