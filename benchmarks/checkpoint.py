"""What `Checkpoint` at its default interval adds to the time of a run."""

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import optax

import relin as il
from benchmarks._measure import heading, row, table
from relin._loop.checkpoint import Keeper

SECONDS = 90
"""Of a run, in which one checkpoint is written on the way and one at the end."""
PAIRS = 2
"""Of runs, one with checkpoints and one without, each coming first in half of them."""
NETWORKS = {
    "mlp of 256": ("mlp", {"width": 256, "depth": 2}),
    "mlp of 1024": ("mlp", {"width": 1024, "depth": 3}),
    "cnn of 8, 16, 32": ("cnn", {"width": 8}),
}


def main() -> None:
    heading(f"A run of {SECONDS} s with `Checkpoint(folder)`, and the same run without")
    table(("network", "parameters", "steps", "written", "% of the time in writing", "with / without, median [all]"))
    x = jax.random.normal(jax.random.key(0), (4096, 28, 28, 1))
    for name, (kind, options) in NETWORKS.items():
        apply, params = il.from_equinox(il.models.build(kind, (28, 28, 1), 10, **options, key=jax.random.key(1)))
        problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.adam(1e-3))
        train = functools.partial(
            il.train, problem, solver, il.Every(64), params, (x, jnp.arange(4096) % 10), batch_size=64,
            key=jax.random.key(0),
        )  # fmt: skip
        short, long = (_seconds(train, steps) for steps in (256, 1280))  # the difference is without compiling
        steps = round(1024 * SECONDS / (long - short))
        ratios, shares, written = [], [], 0
        for pair in range(PAIRS):
            with tempfile.TemporaryDirectory() as folder, _timed() as writing:
                if pair == 0:
                    _seconds(train, 64, il.Checkpoint(Path(folder) / "compiled"))
                    writing.clear()
                checkpoints = [None, il.Checkpoint(Path(folder) / "run")]
                took = {kept is not None: _seconds(train, steps, kept) for kept in checkpoints[:: (-1) ** pair]}
            ratios.append(took[True] / took[False])
            shares.append(100 * sum(writing) / took[True])
            written = len(writing)
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        spread = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        row(name, size, steps, written, f"{statistics.median(shares):.3f}", spread)


def _seconds(train, steps: int, checkpoint: il.Checkpoint | None = None) -> float:
    begun = time.perf_counter()
    train(num_steps=steps, record_every=steps, checkpoint=checkpoint)
    return time.perf_counter() - begun


@contextlib.contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds of each checkpoint that is written meanwhile."""
    seconds, write = list[float](), Keeper.write

    def timed(keeper: Keeper, reached) -> None:
        begun = time.perf_counter()
        write(keeper, reached)
        seconds.append(time.perf_counter() - begun)

    with mock.patch.object(Keeper, "write", timed):
        yield seconds
