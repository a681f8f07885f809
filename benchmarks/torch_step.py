"""`relin.torch.Linearised` against the module's own training step, and against a class of thirty lines."""

import copy
import datetime
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import nn

import relin as il
from benchmarks._measure import row, table
from relin.torch import Linearised


def unfused() -> AbstractContextManager[Any]:
    """PyTorch's fused attention has no forward mode."""
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


class ThirtyLines(nn.Module):
    """What people write: `torch.func.jvp` of `functional_call` around parameters that are kept."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.network = [module]
        self.names = [name for name, _ in module.named_parameters()]
        self.start = [p.detach().clone() for p in module.parameters()]
        self.params = nn.ParameterList([nn.Parameter(p.detach().clone()) for p in module.parameters()])

    def forward(self, *args: Any) -> torch.Tensor:
        displacement = tuple(p - s for p, s in zip(self.params, self.start, strict=True))

        def call(*params: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(self.network[0], dict(zip(self.names, params, strict=True)), args)

        value, change = torch.func.jvp(call, tuple(self.start), displacement)
        return value + change


PROCESSES = 3


def main() -> None:
    print(
        f"\n## A training step of `relin.torch.Linearised` over the module's own\n\nCPU {platform.machine()}, "
        f"{os.cpu_count()} cores, PyTorch {torch.__version__}, one thread, "
        f"{datetime.datetime.now(datetime.UTC).date()}\n"
    )
    for _ in range(PROCESSES):  # what a process did before decides which memory the C library gives back
        sys.stdout.flush()
        subprocess.run([sys.executable, "-m", "benchmarks.torch_step"], check=True)
        print()


def steps() -> None:
    table(("network", "batch", "own ms", "K = 1", "K = ∞", "thirty lines", "K = ∞ over thirty lines", "page faults"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, (module, x, classes) in subjects().items():
        ways = [
            step(copy.deepcopy(module), x, classes),
            step(Linearised(copy.deepcopy(module), il.Every(1)), x, classes),
            step(Linearised(copy.deepcopy(module), il.Never()), x, classes),
            step(ThirtyLines(copy.deepcopy(module)), x, classes, unfused),
        ]
        own, ordinary, linearised, thirty = cpu_seconds(ways)
        row(
            name,
            len(x),
            own * 1e3,
            ordinary / own,
            linearised / own,
            thirty / own,
            linearised / thirty,
            faults(ways[2]),
        )
    torch.set_num_threads(threads)


def cpu_seconds(functions: Sequence[Callable[[], None]], seconds: float = 3, least: int = 30) -> list[float]:
    """The median time of the processor that each takes, in random order; in one thread, other programs do not count.

    The order matters: what ran before leaves the caches and the C library's memory as they are found.
    """
    times: list[list[float]] = [[] for _ in functions]
    order, generator = list(range(len(functions))), random.Random(0)
    while len(times[0]) < least or sum(times[0]) < seconds:
        generator.shuffle(order)
        for index in order:
            start = time.process_time()
            functions[index]()
            times[index].append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def faults(function: Callable[[], None], repeats: int = 15) -> float:
    """How often a call waits for a page of memory, in a row of calls."""
    function()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        function()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / repeats


def step(
    model: nn.Module,
    x: torch.Tensor,
    classes: torch.Tensor,
    within: Callable[[], AbstractContextManager[Any]] | None = None,
) -> Callable[[], None]:
    """One step of AdamW on one batch; a linearised module is moved away from its anchor before."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    if isinstance(model, Linearised):
        model.attach(optimizer)

    def run() -> None:
        optimizer.zero_grad()
        with within() if within else nullcontext():
            outputs = model(x)
        nn.functional.cross_entropy(outputs, classes).backward()
        optimizer.step()

    run()
    return run


def subjects() -> dict[str, tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)

    def mlp(*widths: int) -> nn.Sequential:
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    def block(a: int, b: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(a, b, 3, padding=1, bias=False), nn.GroupNorm(8, b), nn.ReLU(), nn.MaxPool2d(2)

    cnn = nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 16, 10))
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.Sequential(
        nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Flatten(), nn.Linear(128 * 64, 10)
    )
    classes = torch.randint(0, 10, (128,))
    return {
        "MLP 784-256-256-10": (mlp(784, 256, 256, 10), torch.randn(128, 784), classes),
        "CNN of 16, 32, 64 channels": (cnn, torch.randn(32, 3, 32, 32), classes[:32]),
        "the CNN": (cnn, torch.randn(128, 3, 32, 32), classes),
        "Transformer, 4 blocks of 128, 64 tokens": (encoder, torch.randn(16, 64, 128), classes[:16]),
    }


if __name__ == "__main__":
    steps()
