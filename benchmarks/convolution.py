"""Convolutions through `train`, over the same number of separately jitted steps: nothing falls into the slow loop."""

import equinox as eqx
import jax

import relin as il
from benchmarks._measure import heading, row, seconds, table
from benchmarks._subjects import (
    OPTIMISER,
    SHAPES,
    linearised_step,
    plain_steps,
    relin_steps,
    subject,
    zeros,
)
from relin._core.primitives import slow_in_loops

CASES = {
    "cnn": (128, {}),
    "lenet5": (128, {}),
    "resnet18": (32, {}),
    "cnn with lax.conv": (128, {"convolution": "lax"}),
}


def main() -> None:
    heading("Convolutions: `train` over separately jitted steps")
    table(("network", "batch", "driven by", "jitted steps ms", "K = 1", "jitted linearised steps ms", "K = ∞"))
    for name, (batch, options) in CASES.items():
        measure(name, batch, options)
    measure("foreign network (equinox, lax.conv)", 128, None)


def measure(name: str, batch: int, options: dict | None) -> None:
    if options is None:
        _, _, data = subject("cnn", batch)
        apply, params = il.from_equinox(foreign(jax.random.key(0)))
        problem = il.Problem(apply, il.CrossEntropy())
    else:
        problem, params, data = subject(name.split()[0], batch, **options)
    host = slow_in_loops(problem.apply, params, data[0][:1])
    steps = 4 if name == "resnet18" else 30
    plain, linear, ordinary, never = seconds(
        [
            plain_steps(problem, params, data, batch, steps),
            linearised_steps(problem, params, data, batch, steps),
            relin_steps(problem, params, data, batch, il.Every(1), steps, host),
            relin_steps(problem, params, data, batch, il.Never(), steps, host),
        ],
        repeats=4,
    )
    driver = "host" if host else "device loop"
    row(name, batch, driver, plain / steps * 1e3, ordinary / plain, linear / steps * 1e3, never / linear)


def linearised_steps(problem, params, data, batch, steps):
    """Separately jitted linearised steps, called from the host."""
    batches = [
        jax.tree.map(lambda a, i=i: a[i * batch : (i + 1) * batch], data) for i in range(data[0].shape[0] // batch)
    ]
    step = jax.jit(lambda *arguments: linearised_step(problem, *arguments))

    def loop():
        carry = zeros(params), OPTIMISER.init(params)
        for i in range(steps):
            carry = step(params, *carry, *batches[i % len(batches)])
        return carry

    return loop


def foreign(key: jax.Array) -> eqx.Module:
    """A network of another library's layers, with its own convolutions."""
    keys = jax.random.split(key, 3)
    channels = SHAPES["cnn"][-1]
    return eqx.nn.Sequential(
        [
            eqx.nn.Lambda(lambda x: x.transpose(2, 0, 1)),
            eqx.nn.Conv2d(channels, 16, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(32, 10, key=keys[2]),
        ]
    )
