"""Linearised training against what people write today: a Python loop over jitted `jax.jvp`, and `torch.func.jvp`."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import numpy as np

import relin as il
from benchmarks._measure import heading, row, seconds, table
from benchmarks._subjects import OPTIMISER, linearised_step, relin_steps, zeros

BATCH, STEPS = 64, 500


def main() -> None:
    heading(f"Linearised steps on small networks, batch {BATCH}")
    table(("network", "way", "ms a step", "times relin's"))
    for hidden in ((128, 128), (32, 32)):
        measure(hidden)


def measure(hidden: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    widths = (64, *hidden, 10)
    weights = [rng.standard_normal((a, b), np.float32) / np.float32(np.sqrt(a)) for a, b in pairwise(widths)]
    x, y = rng.standard_normal((1200, 64), np.float32), rng.integers(0, 10, 1200)
    ways: dict[str, Callable[[], Any]] = {
        "relin.train": relin_way(weights, x, y),
        "jitted jax.jvp": jax_way(weights, x, y),
    }
    try:
        ways["torch.func.jvp"] = torch_way(weights, x, y)
    except ImportError:
        print("PyTorch is not installed, so it is left out: pip install torch (its CPU build)")
    times = seconds(list(ways.values()), repeats=3)
    for way, time in zip(ways, times, strict=True):
        row("-".join(map(str, widths)), way, time / STEPS * 1e3, time / times[0])


def mlp(params: list, x: jax.Array) -> jax.Array:
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def _parameters(weights: list[np.ndarray]) -> list:
    return [(jax.numpy.asarray(w), jax.numpy.zeros(w.shape[1])) for w in weights]


def relin_way(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    problem = il.Problem(mlp, il.CrossEntropy())
    data = jax.numpy.asarray(x), jax.numpy.asarray(y)
    return relin_steps(problem, _parameters(weights), data, BATCH, il.Every(64), STEPS, host=False)


def jax_way(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    problem = il.Problem(mlp, il.CrossEntropy())
    step = jax.jit(lambda *arguments: linearised_step(problem, *arguments))
    params = _parameters(weights)

    def loop() -> Any:
        rng = np.random.default_rng(0)
        carry = zeros(params), OPTIMISER.init(params)
        for _ in range(STEPS):
            index = rng.integers(0, len(x), BATCH)
            carry = step(params, *carry, x[index], y[index])
        return carry

    return loop


def torch_way(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    import torch
    from torch.func import functional_call, jvp, vjp

    layers: list[torch.nn.Module] = []
    for weight in weights:
        layer = torch.nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.tensor(weight.T).contiguous(), torch.zeros(weight.shape[1])
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    anchor = {name: p.detach() for name, p in network.named_parameters()}
    inputs, targets = torch.tensor(x), torch.tensor(y)

    def loop() -> int:
        rng = np.random.default_rng(0)
        displacement = {name: torch.zeros_like(p) for name, p in anchor.items()}
        velocity = {name: torch.zeros_like(p) for name, p in anchor.items()}
        for _ in range(STEPS):
            index = torch.tensor(rng.integers(0, len(x), BATCH))

            def forward(p: dict, batch: torch.Tensor = inputs[index]) -> torch.Tensor:
                return functional_call(network, p, (batch,))

            with torch.no_grad():
                outputs, tangent = jvp(forward, (anchor,), (displacement,))
            linearised = (outputs + tangent).detach().requires_grad_()
            torch.nn.functional.cross_entropy(linearised, targets[index]).backward()
            gradient = vjp(forward, anchor)[1](linearised.grad)[0]
            for name in anchor:
                velocity[name].mul_(0.9).add_(gradient[name])
                displacement[name].sub_(velocity[name], alpha=0.01)
        return 0

    return loop
