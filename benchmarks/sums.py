"""What it costs that XLA compiles sums on CPUs itself, as relin tells it (docs/known-problems.md)."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import optax

import relin as il
from benchmarks._measure import heading, row, seconds, table

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
NETWORKS = {"mlp": ((784,), {}), "cnn": ((28, 28, 1), {"width": 16}), "lenet5": ((28, 28, 1), {})}
TURNS = 3


def main() -> None:
    """A flag holds for a process: each of the two has some, in turns, and its best times count."""
    heading("A step's time with XLA's own sums over that with YNNPACK's")
    theirs, own = np.array([[run(f"{FLAG}=+reduce"), run(f"{FLAG}=-reduce")] for _ in range(TURNS)]).min(axis=0)
    table(("network", "batch", "step", "ms", "ratio"))
    for (name, batch, kind, _, _), before, after in zip(steps(), theirs, own, strict=True):
        row(name, batch, kind, after * 1e3, after / before)


def run(flag: str) -> list[float]:
    """The seconds of each step, in a process of its own."""
    code = "from benchmarks.sums import measured; measured()"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": flag}, check=True, capture_output=True, text=True
    )
    return json.loads(ended.stdout)


def measured() -> None:
    print(json.dumps([seconds([functools.partial(jax.jit(step), *of)], repeats=30)[0] for *_, step, of in steps()]))


def steps() -> Iterator[tuple]:
    """Network, batch, kind, the step, and its arguments."""
    for name, (shape, options) in NETWORKS.items():
        for batch in (64,):
            for kind, step, arguments in of_network(name, shape, options, batch):
                yield name, batch, kind, step, arguments


def of_network(name: str, shape: tuple[int, ...], options: dict, batch: int) -> tuple:
    """An ordinary and a linearised step of SGD, each with its arguments."""
    keys = jax.random.split(jax.random.key(0), 4)
    apply, params = il.from_equinox(il.models.build(name, shape, 10, key=keys[0], **options))
    x, y = jax.random.normal(keys[1], (batch, *shape)), jax.random.randint(keys[2], (batch,), 0, 10)
    displacement = jax.tree.map(lambda p: 0.01 * jax.random.normal(keys[3], p.shape), params)

    def loss(outputs):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()

    def ordinary(p):
        return jax.tree.map(lambda p, g: p - 0.1 * g, p, jax.grad(lambda p: loss(apply(p, x)))(p))

    def linearised(p, d):
        outputs, pull = jax.vjp(lambda p: apply(p, x), p)
        tangent = jax.jvp(lambda p: apply(p, x), (p,), (d,))[1]
        return jax.tree.map(lambda d, g: d - 0.1 * g, d, pull(jax.grad(loss)(outputs + tangent))[0])

    return ("ordinary", ordinary, (params,)), ("linearised", linearised, (params, displacement))
