"""Linearised training against what people write today: a Python loop over jitted `jax.jvp`, and `torch.func.jvp`."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import jax
import numpy as np

import relin as il
from benchmarks._measure import heading, row, seconds, table
from benchmarks._subjects import OPTIMISER, linearised_step_with_loss, relin_steps, zeros

BATCH, PERIOD = 64, 64
SINGLE = {(64, 64): 500, (128, 128): 500, (32, 32): 500}
"""The hidden widths, the digits study's first, and the steps of one run."""
SEEDS, STEPS = 24, 1000
"""Runs of the digits study's network, and their steps."""
SLOW_RUNS = 2
"""How many of them are run the ways that take one after another; their time is scaled up."""

Weights = list[np.ndarray]


def main() -> None:
    heading(f"Linearised steps on small networks, K = {PERIOD}, batch {BATCH}: one run")
    table(("network", "way", "ms a step", "times relin's"))
    for hidden, steps in SINGLE.items():
        weights, x, y = subject(hidden)
        ways: dict[str, Callable[[], Any]] = {"`relin.train`": relin_way(weights, x, y, steps)}
        ways |= one_by_one(weights, x, y, steps)
        times = seconds(list(ways.values()), repeats=3)
        for way, time in zip(ways, times, strict=True):
            row("-".join(map(str, (64, *hidden, 10))), way, time / steps * 1e3, time / times[0])
    heading(f"{SEEDS} runs of {STEPS} steps, MLP 64-64-64-10, each with a seed of its own")
    table(("way", "seconds", "times the study's"))
    weights, x, y = subject((64, 64))
    threads = os.cpu_count() or 1
    ways = {
        f"`train_lanes` in {threads} threads, as the study does": lanes_way(weights, x, y, "map", threads),
        "`train_lanes` in one thread": lanes_way(weights, x, y, "map", 1),
        f'`train_lanes(drive="vmap")` in {threads} threads': lanes_way(weights, x, y, "vmap", threads),
    }
    slow = one_by_one(weights, x, y, STEPS * SLOW_RUNS)
    times = seconds([*ways.values(), *slow.values()], repeats=2)
    scales = [1.0] * len(ways) + [SEEDS / SLOW_RUNS] * len(slow)
    for way, time, scale in zip([*ways, *slow], times, scales, strict=True):
        row(way, time * scale, time * scale / times[0])


def subject(hidden: tuple[int, ...]) -> tuple[Weights, np.ndarray, np.ndarray]:
    """An MLP's weight matrices, and data of the digits' shape."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((a, b), np.float32) / np.float32(np.sqrt(a)) for a, b in pairwise((64, *hidden, 10))]
    return weights, rng.standard_normal((1200, 64), np.float32), rng.integers(0, 10, 1200)


def one_by_one(weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> dict[str, Callable[[], Any]]:
    """What people write: a Python loop over steps."""
    ways = {
        "Python loop over a jitted `jax.jvp` step, which notes each loss": jax_way(weights, x, y, steps, True),
        "the same loop, which never looks at the loss": jax_way(weights, x, y, steps, False),
    }
    try:
        ways["`torch.func.jvp`, `functional_call`"] = torch_way(weights, x, y, steps)
    except ImportError:
        print("PyTorch is not installed, so it is left out: pip install torch (its CPU build)")
    return ways


def mlp(params: list, x: jax.Array) -> jax.Array:
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def _parameters(weights: Weights) -> list:
    return [(jax.numpy.asarray(w), jax.numpy.zeros(w.shape[1])) for w in weights]


def relin_way(weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> Callable[[], Any]:
    problem = il.Problem(mlp, il.CrossEntropy())
    data = jax.numpy.asarray(x), jax.numpy.asarray(y)
    return relin_steps(problem, _parameters(weights), data, BATCH, il.Every(PERIOD), steps, host=False)


def lanes_way(weights: Weights, x: np.ndarray, y: np.ndarray, drive: Any, threads: int) -> Callable[[], Any]:
    """Lanes that differ in their batches and initial parameters, in as many jobs as there are threads."""
    problem, solver = il.Problem(mlp, il.CrossEntropy()), il.WeightSpace(OPTIMISER)
    data, params = (jax.numpy.asarray(x), jax.numpy.asarray(y)), _parameters(weights)

    def make(seed: jax.Array) -> il.Run:
        key = jax.random.key(seed)
        own = jax.tree.map(lambda p: p * (1 + 0.01 * jax.random.normal(key, p.shape)), params)
        return il.Run(problem, solver, il.Every(jax.numpy.int32(PERIOD)), own, key)

    def train(seeds: np.ndarray) -> il.LaneSolutions:
        return il.train_lanes(make, seeds, data, num_steps=STEPS, batch_size=BATCH, drive=drive)

    def loop() -> Any:
        with ThreadPoolExecutor(threads) as pool:
            jobs = list(pool.map(train, np.array_split(np.arange(SEEDS, dtype=np.int32), threads)))
        return [solution.params for solutions in jobs for solution in solutions]

    return loop


def jax_way(weights: Weights, x: np.ndarray, y: np.ndarray, steps: int, notes_loss: bool) -> Callable[[], Any]:
    """A loop that notes its loss waits for each step; one that never looks runs ahead of the device."""
    problem = il.Problem(mlp, il.CrossEntropy())
    step = jax.jit(lambda *arguments: linearised_step_with_loss(problem, *arguments))
    move = jax.jit(lambda anchor, displacement: jax.tree.map(jax.numpy.add, anchor, displacement))
    params = _parameters(weights)

    def loop() -> Any:
        rng = np.random.default_rng(0)
        anchor, displacement, state = params, zeros(params), OPTIMISER.init(params)
        losses = []
        for t in range(steps):
            if t % PERIOD == 0:
                anchor, displacement = move(anchor, displacement), zeros(params)
            index = rng.integers(0, len(x), BATCH)
            displacement, state, loss = step(anchor, displacement, state, x[index], y[index])
            if notes_loss:
                losses.append(float(loss))
        return anchor, displacement, losses

    return loop


def torch_way(weights: Weights, x: np.ndarray, y: np.ndarray, steps: int) -> Callable[[], Any]:
    import torch
    from torch.func import functional_call, jvp, vjp

    torch.set_num_threads(1)  # with more, its threads wait for each other where other work runs: 35 times slower
    layers: list[torch.nn.Module] = []
    for weight in weights:
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.tensor(weight.T).contiguous(), torch.zeros(weight.shape[1])
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    params = {name: p.detach() for name, p in network.named_parameters()}
    inputs, targets = torch.tensor(x), torch.tensor(y)

    def loop() -> int:
        rng = np.random.default_rng(0)
        anchor: dict[str, Any] = params
        displacement = {name: torch.zeros_like(p) for name, p in params.items()}
        velocity = {name: torch.zeros_like(p) for name, p in params.items()}
        for t in range(steps):
            if t % PERIOD == 0:
                anchor = {name: p + displacement[name] for name, p in anchor.items()}
                displacement = {name: torch.zeros_like(p) for name, p in anchor.items()}
            index = torch.tensor(rng.integers(0, len(x), BATCH))

            def forward(p: dict, batch: torch.Tensor = inputs[index]) -> torch.Tensor:
                return functional_call(network, p, (batch,))

            with torch.no_grad():
                outputs, tangent, *_ = jvp(forward, (anchor,), (displacement,))
            linearised = (outputs + tangent).detach().requires_grad_()
            torch.nn.functional.cross_entropy(linearised, targets[index]).backward()
            gradient = vjp(forward, anchor)[1](linearised.grad)[0]
            for name in anchor:
                velocity[name].mul_(0.9).add_(gradient[name])
                displacement[name].sub_(velocity[name], alpha=0.01)
        return 0

    return loop
