"""A sweep of 50 runs as lanes of one program, against 50 calls of `train`; compilations counted."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import relin as il
from benchmarks._measure import heading, row, table

STEPS, BATCH = 300, 64
PERIODS, RATES = (1, 4, 16, 64, 2**30), 10


def main() -> None:
    heading("A sweep of 50 runs (5 K × 10 learning rates), MLP 64-128-128-10, 300 steps")
    data = il.datasets.load("digits").train
    data = jnp.asarray(data.x), jnp.asarray(data.y)
    traces = 0

    def build(key: jax.Array) -> tuple[il.Problem, Any]:
        apply, params = il.from_equinox(il.models.build("mlp", (8, 8, 1), 10, key=key, width=128, depth=2))

        def counted(params: Any, x: jax.Array) -> jax.Array:
            nonlocal traces
            traces += 1
            return apply(params, x)

        return il.Problem(counted, il.CrossEntropy()), params

    problem, params = build(jax.random.key(0))

    def make(lane: dict[str, jax.Array]) -> il.Run:
        solver = il.WeightSpace(optax.sgd(lane["rate"], momentum=0.9))
        return il.Run(problem, solver, il.Every(lane["period"]), params, jax.random.key(0))

    periods = jnp.repeat(jnp.array(PERIODS, jnp.int32), RATES)
    rates = jnp.tile(jnp.logspace(-3, -1, RATES), len(PERIODS))
    options = {"num_steps": STEPS, "batch_size": BATCH}
    table(("way", "seconds", "times the network was traced"))
    for temperature in ("cold", "warm"):
        traces = 0
        start = time.perf_counter()
        il.train_lanes(make, {"period": periods, "rate": rates}, data, **options)
        row(f"train_lanes, {temperature}", time.perf_counter() - start, traces)
    solvers = [il.WeightSpace(optax.sgd(float(rate), momentum=0.9)) for rate in rates]
    for temperature in ("cold", "warm"):
        traces = 0
        start = time.perf_counter()
        for solver, period in zip(solvers, periods.tolist(), strict=True):
            il.train(problem, solver, il.Every(period), params, data, key=jax.random.key(0), throw=False, **options)
        row(f"50 calls of train, {temperature}", time.perf_counter() - start, traces)
