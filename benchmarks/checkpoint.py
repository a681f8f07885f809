"""What `Checkpoint` at its default interval adds to the time of a run."""

import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il
from benchmarks._measure import heading, row, table

SECONDS = 90
"""Of a run, in which one checkpoint is written on the way and one at the end."""


def main() -> None:
    heading("A run with `Checkpoint(folder)` over the same run without")
    table(("network", "parameters", "steps", "without, s", "with, s", "ratio", "of processor time"))
    x = jax.random.normal(jax.random.key(0), (4096, 28, 28, 1))
    data = x, jnp.arange(4096) % 10
    for name, options in {"mlp": {"width": 256, "depth": 2}, "cnn": {"width": 8}}.items():
        apply, params = il.from_equinox(il.models.build(name, (28, 28, 1), 10, **options, key=jax.random.key(1)))
        problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.adam(1e-3))

        def run(steps, checkpoint=None, problem=problem, solver=solver, params=params):
            shared = {"batch_size": 64, "record_every": steps, "key": jax.random.key(0), "checkpoint": checkpoint}
            begun, used = time.perf_counter(), time.process_time()
            il.train(problem, solver, il.Every(64), params, data, num_steps=steps, **shared)
            return np.array([time.perf_counter() - begun, time.process_time() - used])

        run(256)
        steps = round(256 * SECONDS / run(256)[0])
        with tempfile.TemporaryDirectory() as folder:
            run(64, il.Checkpoint(Path(folder) / "compiled"))
            without, kept = run(steps), run(steps, il.Checkpoint(Path(folder) / "run"))
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        row(name, size, steps, without[0], kept[0], *(f"{ratio:.3f}" for ratio in kept / without))
