"""Makes a kernel larger than what it holds of it, says what memory that took, and kills itself while making another."""

import os
import resource
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from relin.kernel import ntk
from relin.kernel._kernel_file import KernelFile

LARGE = 5000
ROWS_BEFORE_THE_END = 50


def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def subject(number):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"w": jax.random.normal(keys[0], (4, 3)), "v": jax.random.normal(keys[1], (3, 2))}
    return params, jax.random.normal(keys[2], (number, 4))


def peak():
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder):
    options = {"outputs": "mean", "working_set": 2**24}
    ntk(apply, *subject(200), out=folder / "small.npy", **options)
    before = peak()
    ntk(apply, *subject(LARGE), out=folder / "large.npy", **options)
    print(peak() - before, flush=True)

    put, written = KernelFile._put, []

    def killed(self, row, column, values):
        """In the middle of a row of blocks, after some rows of one."""
        written.append(len(values))
        if sum(written) > ROWS_BEFORE_THE_END:
            put(self, row, column, values[: len(values) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, row, column, values)

    KernelFile._put = killed
    ntk(apply, *subject(60), out=folder / "killed.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
