"""`python worker.py study|run|kernel FOLDER`: a study, a run with checkpoints, or a kernel in a file."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import relin as il
from relin.kernel import ntk
from relin.study import read_spec, run_study


def study(folder: Path) -> None:
    settings = {
        "data": "digits",
        "model": "mlp",
        "steps": 400,
        "seeds": 4,
        "num_records": 2,
        "periods": [1, 8, "inf"],
        "sparse_periods": [],
        "tolerances": [],
        "learning_rates": [0.1, 0.03],
    }
    run_study(read_spec("frequency", overrides=settings), folder)


def run(folder: Path) -> None:
    x = jax.random.normal(jax.random.key(0), (256, 8))
    params = {"w": jax.random.normal(jax.random.key(1), (8, 32)) / 3, "v": jnp.zeros((32, 4))}
    solver = il.WeightSpace(optax.adam(1e-3))
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        solver,
        il.Every(8),
        params,
        (x, jnp.arange(256) % 4),
        num_steps=4000,
        batch_size=32,
        record_every=500,
        key=jax.random.key(2),
        checkpoint=il.Checkpoint(folder, every=50),
    )
    solution.save(folder)


def kernel(folder: Path) -> None:
    x = jax.random.normal(jax.random.key(0), (600, 8))
    params = {"w": jax.random.normal(jax.random.key(1), (8, 64)), "v": jax.random.normal(jax.random.key(2), (64, 4))}
    folder.mkdir(exist_ok=True)
    ntk(apply, params, x, outputs="mean", working_set=2**16, out=folder / "kernel.npy")


def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


if __name__ == "__main__":
    {"study": study, "run": run, "kernel": kernel}[sys.argv[1]](Path(sys.argv[2]))
