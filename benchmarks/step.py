"""A weight-space step over an ordinary step, both compiled over many steps, beside the ratio of their FLOPs."""

import jax

import relin as il
from benchmarks._measure import compiled, flops, heading, memory_left, row, seconds, table, temporary_memory
from benchmarks._subjects import OPTIMISER, linearised_step, plain_loop, plain_step, relin_steps, subject, zeros

CASES = {
    "mlp": (32, 64, 128, 256, 512, 1024),
    "cnn": (32, 128, 512, 1024),
    "resnet18": (32, 128, 512, 1024),
}
LOOP, TURNS = 2.0, 30.0
"""Seconds a loop should take, and all turns of the yardstick together; two steps and one turn are the least."""


def main(*names: str) -> None:
    heading("A weight-space step over an ordinary step")
    table(("network", "batch", "ordinary ms", "K = 1", "K = 64", "K = ∞", "FLOP ratio", "K = ∞ over FLOP ratio"))
    for name in names or CASES:
        for batch in CASES[name]:
            measure(name, batch)


def measure(name: str, batch: int) -> None:
    problem, params, data = subject(name, batch)
    x, y = data[0][:batch], data[1][:batch]
    state = OPTIMISER.init(params)
    linearised = compiled(lambda *a: linearised_step(problem, *a), params, zeros(params), state, x, y)
    if temporary_memory(linearised) > memory_left():
        row(name, batch, f"needs {temporary_memory(linearised) / 2**30:.0f} GiB of memory", *["–"] * 5)
        return
    ratio = flops(linearised) / flops(compiled(lambda *a: plain_step(problem, *a), params, state, x, y))
    plain_steps = plain_loop(problem, params, data, batch)
    once = seconds([lambda: plain_steps(1)], repeats=1)[0]
    steps = max(2, min(200, int(LOOP / once)))
    loops = [plain_steps]
    loops += [
        relin_steps(problem, params, data, batch, schedule, steps, host=False)
        for schedule in (il.Every(1), il.Every(64), il.Never())
    ]
    for loop in loops:
        jax.block_until_ready(loop(1))  # compiles it: the number of steps is an argument of the program
    turns = max(1, min(5, int(TURNS / (once * steps))))
    times = seconds([lambda loop=loop: loop(steps) for loop in loops], repeats=turns, warm_up=False)
    plain, ordinary, every, never = times
    row(name, batch, plain / steps * 1e3, ordinary / plain, every / plain, never / plain, ratio, never / plain / ratio)
