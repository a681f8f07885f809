"""The empirical NTK against contraction of Jacobians, in JAX and as PyTorch's tutorial does it.

Each number comes from a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks._kernel_subjects import CLASSES, SHAPES, inputs, network, torch_network
from benchmarks._measure import heading, row, seconds, table
from relin import kernel
from relin.kernel._independence import doubt

SIZES = {
    "mlp": (256, 512, 1024),
    "cnn-28": (64, 128, 512),
    "cnn-32": (64, 128, 512),
    "resnet18": (32,),
    "transformer": (64, 256),
}
WAYS = ("relin", "contraction", "torch")
AT_ONCE = {"mlp": 32, "resnet18": 2}
"""Examples whose Jacobians are contracted at once by the other ways where those of all take too much memory. Their time
at N is then scaled up."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernel")
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=tuple(SIZES), action="append")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="what it takes to see that examples are independent")
    asked = parser.parse_args()
    if asked.check:
        checked()
        return
    if asked.one:
        name, number, outputs, way = asked.one
        print(json.dumps(measured(name, int(number), outputs, way)))
        return
    heading("The empirical NTK: seconds after compilation, seconds to compile, peak memory beyond the process's own")
    table(("network", "N", "kernel", "relin s", "compile s", "peak MB", "result MB", "contraction s", "torch.func s"))
    for name in asked.network or SIZES:
        for number in SIZES[name]:
            for outputs in ("full", "mean"):
                compare(name, number, outputs)


def compare(name: str, number: int, outputs: str) -> None:
    ours, *others = (in_its_own_process(name, number, outputs, way) for way in WAYS)
    size = number**2 * (CLASSES**2 if outputs == "full" else 1) * 4 / 1e6
    beside = [
        "–"
        if other is None
        else f"{'≈ ' if other['scaled'] else ''}{other['seconds']:.3g} ({other['seconds'] / ours['seconds']:.3g}×)"
        for other in others
    ]
    row(name, number, outputs, ours["seconds"], ours["compile"], ours["peak"], size, *beside)


CHECKED = (("mlp", 256), ("cnn-28", 64), ("transformer", 64), ("resnet18", 4))


def checked() -> None:
    """Processor time of the look at the programs, in a first and in a second call of the kernel."""
    heading("Seconds to see that examples are independent, of those of the mean kernel (processor time)")
    table(("network", "N", "first call", "second call"))
    for name, number in CHECKED:
        apply, params = network(name)
        x, found = jax.block_until_ready(inputs(name, number)), []
        for _ in range(2):
            start = time.process_time()
            doubt(apply, params, x)
            looked = time.process_time() - start
            jax.block_until_ready(kernel.ntk(apply, params, x, outputs="mean"))
            whole = time.process_time() - start
            found.append(f"{looked:.2g} of {whole:.3g} ({100 * looked / whole:.2g} %)")
        row(name, number, *found)


def in_its_own_process(name: str, number: int, outputs: str, way: str) -> Any:
    command = [sys.executable, "-m", "benchmarks", "kernel", "--one", name, str(number), outputs, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measured(name: str, number: int, outputs: str, way: str) -> dict[str, Any] | None:
    """Seconds after compilation, seconds of the first call beyond them, and MB of memory beyond what was there."""
    if way == "torch" and name not in ("mlp", "cnn-28", "cnn-32"):
        return None
    at_once = min(number, AT_ONCE.get(name, number))
    if way == "relin":
        apply, params = network(name)
        x = jax.block_until_ready(inputs(name, number))
        parts, times = [lambda: kernel.ntk(apply, params, x, outputs=outputs)], 1.0  # pyright: ignore
        scales = [1.0]
    else:
        parts = (jax_parts if way == "contraction" else torch_parts)(name, at_once, outputs)
        times = number / at_once
        scales = [times, times**2]
    before = peak()
    first = time.perf_counter()
    for part in parts:
        jax.block_until_ready(part())
    first = time.perf_counter() - first
    best = seconds(parts, repeats=3, warm_up=False)
    return {
        "seconds": sum(best_part * scale for best_part, scale in zip(best, scales, strict=True)),
        "compile": max(0.0, first - sum(best)),
        "peak": peak() - before,
        "scaled": times > 1,
    }


def peak() -> float:
    """The most memory the process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def jax_parts(name: str, number: int, outputs: str) -> list[Callable[[], Any]]:
    """The Jacobians of some examples, and their contraction with each other."""
    apply, params = network(name)
    x = inputs(name, number)
    one = jax.jacrev(lambda params, example: apply(params, example[None])[0])
    jacobians = jax.jit(jax.vmap(one, (None, 0)))
    made = jax.block_until_ready(jacobians(params, x))
    over = "nci,mdi->nmcd" if outputs == "full" else "nci,mci->nm"

    @jax.jit
    def contraction(made: Any) -> jax.Array:
        flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(made)]
        total = sum((jnp.einsum(over, leaf, leaf) for leaf in flat), start=jnp.zeros(()))
        return total if outputs == "full" else total / CLASSES

    return [lambda: jacobians(params, x), lambda: contraction(made)]


def torch_parts(name: str, number: int, outputs: str) -> list[Callable[[], Any]]:
    """The same, as in PyTorch's tutorial on neural tangent kernels."""
    import torch
    from torch.func import functional_call, jacrev, vmap

    net = torch_network(name)
    params = {key: value.detach() for key, value in net.named_parameters()}
    shape = SHAPES[name] if len(SHAPES[name]) == 1 else (SHAPES[name][-1], *SHAPES[name][:-1])
    x = torch.randn(number, *shape)

    def one(params: Any, example: Any) -> Any:
        return functional_call(net, params, (example.unsqueeze(0),)).squeeze(0)

    def jacobians() -> list[Any]:
        return [leaf.flatten(2) for leaf in vmap(jacrev(one), (None, 0))(params, x).values()]

    made = jacobians()
    over = "Naf,Mbf->NMab" if outputs == "full" else "Naf,Maf->NM"

    def contraction() -> Any:
        total = torch.stack([torch.einsum(over, leaf, leaf) for leaf in made]).sum(0)
        return total if outputs == "full" else total / CLASSES

    return [jacobians, contraction]
