"""A weight-space step over an ordinary step, both compiled over many steps, beside the ratio of their FLOPs."""

import jax

import relin as il
from benchmarks._measure import flops, heading, row, seconds, table
from benchmarks._subjects import OPTIMISER, linearised_step, plain_loop, plain_step, relin_steps, subject, zeros

CASES = {"mlp": (32, 64, 128, 256, 512, 1024), "cnn": (32, 128, 512), "resnet18": (32,)}
BUDGET = 2.0
"""Seconds a measurement may take."""


def main() -> None:
    if jax.default_backend() != "cpu":
        CASES.update(cnn=(32, 128, 512, 1024), resnet18=(32, 128, 512, 1024))
    heading("A weight-space step over an ordinary step")
    table(("network", "batch", "ordinary ms", "K = 1", "K = 64", "K = ∞", "FLOP ratio", "K = ∞ over FLOP ratio"))
    for name, batches in CASES.items():
        for batch in batches:
            measure(name, batch)


def measure(name: str, batch: int) -> None:
    problem, params, data = subject(name, batch)
    once = seconds([plain_loop(problem, params, data, batch, 1)], repeats=2)[0]
    steps = max(2, min(200, int(BUDGET / once)))
    loops = [plain_loop(problem, params, data, batch, steps)]
    loops += [
        relin_steps(problem, params, data, batch, schedule, steps, host=False)
        for schedule in (il.Every(1), il.Every(64), il.Never())
    ]
    plain, ordinary, every, never = seconds(loops, repeats=5)
    x, y = data[0][:batch], data[1][:batch]
    state = OPTIMISER.init(params)
    ratio = flops(lambda *a: linearised_step(problem, *a), params, zeros(params), state, x, y) / flops(
        lambda *a: plain_step(problem, *a), params, state, x, y
    )
    row(name, batch, plain / steps * 1e3, ordinary / plain, every / plain, never / plain, ratio, never / plain / ratio)
