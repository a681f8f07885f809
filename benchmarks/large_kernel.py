"""Kernels in files: time and memory of some sizes, and a model of them for sizes and devices that are not at hand.

Each size is a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import relin as il
from benchmarks._kernel_model import Rates, example, work
from benchmarks._measure import heading, row, table
from relin import kernel

NUMBERS = {"mlp": (2500, 5000, 10_000), "resnet18": (4, 8, 12)}
WORKING_SET = 320 * 2**20
CIFAR = 50_000
H100 = Rates(features=20e12, pairs=40e12, memory=2.5e12, disk=1e9)
"""Assumed: 30 and 60 % of 67 TFLOP/s in float32 without TF32, 75 % of 3.35 TB/s, and a disk of 1 GB/s."""
H100_WORKING_SET = 60 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks large_kernel")
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=tuple(NUMBERS), default="mlp")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--h100", action="store_true", help="the model alone, of ResNet-18 on all of CIFAR-10")
    asked = parser.parse_args()
    if asked.one:
        name, folder = asked.one
        print(json.dumps(measured(name, Path(folder))))
    elif asked.h100:
        predicted()
    else:
        compared(asked.network)


def network(name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """`apply` and parameters of ResNet-18, or of an MLP 784-256-256-10."""
    options = {"width": 256, "depth": 2} if name == "mlp" else {}
    return il.from_equinox(il.models.build(name, shape, 10, key=jax.random.key(0), **options))


def examples(name: str, number: int) -> np.ndarray:
    """Of Fashion-MNIST for the MLP, noise for ResNet-18."""
    if name == "mlp":
        return np.asarray(il.datasets.load("fashion-mnist").train.x[:number]).reshape(number, -1)
    return np.random.default_rng(0).normal(size=(number, 32, 32, 3)).astype(np.float32)


def memory(kind: str) -> float:
    """MB of this process: now, `VmRSS`, or the most since `forget_peak`, `VmHWM`. Linux alone tells it."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(kind)) / 1024


def forget_peak() -> float:
    """MB now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def measured(name: str, folder: Path) -> dict[str, float]:
    """Seconds, seconds of the processor, and MB beyond what the process held before."""
    x = jax.block_until_ready(jnp.asarray(np.load(folder / "examples.npy")))
    apply, params = network(name, x.shape[1:])
    before, times = forget_peak(), []

    def timed(task: Any) -> Any:
        start, used = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(task())
        times.append((time.perf_counter() - start, time.process_time() - used))
        return result

    def made(file: str) -> Any:
        return kernel.ntk(apply, params, x, outputs="mean", out=folder / file, working_set=WORKING_SET)

    timed(lambda: made("first.npy"))  # compiles
    found = timed(lambda: made("kernel.npy"))
    held = memory("VmHWM") - before
    timed(lambda: made("kernel.npy"))  # only looked at
    before = forget_peak()
    timed(lambda: kernel.spectrum(found, min(5, len(x)), key=jax.random.key(1)).eigenvalues)
    return {"times": times, "held": held, "held by spectrum": memory("VmHWM") - before}


def in_its_own_process(name: str, number: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "examples.npy", examples(name, number))
        command = [sys.executable, "-m", "benchmarks", "large_kernel", "--one", name, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compared(name: str) -> None:
    """Beside the model, at the rate at which the smallest kernel was made."""
    shape = examples(name, 1).shape[1:]
    given, rate = example(*network(name, shape), shape), 0.0
    heading(f"The mean kernel of {name} in a file (peaks: beyond what the process held before)")
    table(
        (
            "N",
            "file MB",
            "s",
            "processor s",
            "model s",
            "peak MB",
            "with compiling s",
            "looked at again s",
            "5 eigenvalues s",
            "peak MB",
        )
    )
    for number in NUMBERS[name]:
        found, counted = in_its_own_process(name, number), work(given, number, WORKING_SET)
        (first, _), made, (looked, _), (spectrum, _) = found["times"]
        flops = counted.features + counted.pairs
        rate = rate or flops / made[1]
        row(
            number,
            counted.written / 1e6,
            *made,
            flops / rate,
            found["held"],
            first,
            looked,
            spectrum,
            found["held by spectrum"],
        )


def predicted() -> None:
    shape = (32, 32, 3)
    given = example(*network("resnet18", shape), shape)
    counted = work(given, CIFAR, H100_WORKING_SET)
    heading(f"ResNet-18 on {CIFAR:,} examples on an H100, by the model")
    for label, value in counted._asdict().items():
        print(f"{label}: {value:.3g}")
    print(f"{counted.seconds(H100) / 60:.3g} minutes")
