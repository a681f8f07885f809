"""How long `relin.check` takes, over what compiling a training step takes."""

import time

import jax
import jax.numpy as jnp
import optax

import relin as il
from benchmarks._measure import compiled, heading, row, table


def main() -> None:
    heading("`check` over the compilation of a training step")
    table(("network", "compiling a linearised step, s", "eight steps of `train`, s", "`check`, s", "over compiling"))
    options = {"depth": 4, "width": 64, "num_heads": 2, "key": jax.random.key(0)}
    image, tokens = jax.random.normal(jax.random.key(1), (32, 32, 32, 3)), jnp.arange(32 * 64).reshape(32, 64) % 50
    subjects = {
        "vit": (il.models.build("vit", (32, 32, 3), 10, **options), (image, jnp.arange(32) % 10)),
        "gpt": (il.models.build("gpt", (64,), 50, **options), (tokens, (tokens + 1) % 50)),
    }
    for name, (network, batch) in subjects.items():
        apply, params = il.from_equinox(network)
        problem = il.Problem(apply, il.CrossEntropy())

        def step(params, displacement, x, y, problem=problem):
            return problem.linearised_value_and_grad(params, displacement, x, y)

        solver, run = il.WeightSpace(optax.sgd(0.01)), {"num_steps": 8, "key": jax.random.key(0)}
        compiling = _fresh(lambda: compiled(step, params, params, *batch))  # noqa: B023
        training = _fresh(lambda: il.train(problem, solver, il.Every(8), params, batch, **run))  # noqa: B023
        checking = _fresh(lambda: il.check(problem, params, batch))  # noqa: B023
        row(name, compiling, training, checking, checking / compiling)


def _fresh(function) -> float:
    """The best of two times, in seconds, each with nothing compiled before."""
    times = []
    for _ in range(2):
        jax.clear_caches()
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
